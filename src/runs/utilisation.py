"""How busy a run kept its machine, and how much memory it took at most."""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


class UtilisationMonitor:
    """Watches this process and its children from a thread, one short look every few seconds.

    Attributes:
        interval: seconds between looks.
    """

    def __init__(self, interval: float = 5.0) -> None:
        self.interval = interval
        self._done = threading.Event()
        self._gpu: list[float] = []
        self._started, self._cpu = time.monotonic(), _cpu_seconds()
        self._thread = threading.Thread(target=self._watch, name="utilisation", daemon=True)
        self._thread.start()

    def so_far(self) -> dict[str, Any]:
        """Mean shares since the start, in percent.

        Returns:
            cpu_percent: of all cores this process may use. gpu_percent: mean over GPUs and looks, null
            without them.
        """
        wall = max(time.monotonic() - self._started, 1e-9)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cpu = 100 * (_cpu_seconds() - self._cpu) / wall / cores
        looks = list(self._gpu)
        return {
            "cpu_percent": round(max(cpu, 0.0), 1),
            "gpu_percent": round(sum(looks) / len(looks), 1) if looks else None,
        }

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        self._thread.join(timeout=2)

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            torch = sys.modules.get("torch")
            # Only once training has started the GPU: to ask before would start it on the wrong device.
            cuda = getattr(torch, "cuda", None)
            if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
                continue
            try:
                self._gpu.append(float(cuda.utilization()))
            except Exception:  # no NVML library, or a driver without the counter: nothing to learn by asking again
                return


def peak_memory() -> dict[str, float | None]:
    """The most memory this process has held.

    Returns:
        process_mib: resident memory. gpu_mib: allocated by torch on the fullest GPU, null without one.
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
    # getrusage would also count what the parent held before it started us.
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_seconds() -> float:
    """Processor time of this process and of all its children, those that are done too."""
    import psutil

    me = psutil.Process()
    own = me.cpu_times()
    total = own.user + own.system + getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
    with contextlib.suppress(psutil.Error):
        for child in me.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                total += times.user + times.system
    return float(total)
