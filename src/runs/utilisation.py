"""CPU and GPU utilisation of a run, and its peak memory."""

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

from config.process import available_cores

INTERVAL = 5.0  # seconds between samples


class UtilisationMonitor:
    """Measures the utilisation of this process and its children; a thread samples that of GPUs."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._gpu: list[float] = []
        self._started, self._cpu = time.monotonic(), _cpu_seconds()
        self._thread = threading.Thread(target=self._sample, name="utilisation", daemon=True)
        self._thread.start()

    def summary(self) -> dict[str, Any]:
        """Return the mean utilisation since the start.

        Returns:
            cpu_percent: Percentage of all cores that this process may use. gpu_percent: Mean over samples; null without GPU.
        """
        wall = max(time.monotonic() - self._started, 1e-9)
        cpu = 100 * (_cpu_seconds() - self._cpu) / wall / available_cores()
        samples = list(self._gpu)
        return {
            "cpu_percent": round(max(cpu, 0.0), 1),
            "gpu_percent": round(sum(samples) / len(samples), 1) if samples else None,
        }

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self._thread.join(timeout=2)

    def _sample(self) -> None:
        while not self._done.wait(INTERVAL):
            torch = sys.modules.get("torch")
            # A call before training has initialised CUDA would initialise it on the wrong device.
            cuda = getattr(torch, "cuda", None)
            if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
                continue
            try:
                self._gpu.append(float(cuda.utilization()))
            except Exception:  # no NVML library, or a driver without the counter
                return


def peak_memory() -> dict[str, float | None]:
    """Return the peak memory of this process in MiB.

    Returns:
        process_mib: Resident memory. gpu_mib: Maximum over GPUs of what torch allocated; null without GPU.
    """
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        gpu = max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) / 2**20
    return {
        "process_mib": round(_peak_resident() / 2**20, 1),
        "gpu_mib": None if gpu is None else round(gpu, 1),
    }


def _peak_resident() -> int:
    # getrusage would include the memory of the parent before the fork.
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_seconds() -> float:
    """Processor time of this process and of all its children, ended ones included."""
    import psutil

    process = psutil.Process()
    times = process.cpu_times()
    total = times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child_times = child.cpu_times()
                total += child_times.user + child_times.system
    return float(total)
