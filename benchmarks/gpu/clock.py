"""What is measured of a training: a clock that each method's loop calls after every step."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

PROFILED_STEPS = 10
ROWS = 40  # of a profiler's table


class Measured(BaseException):
    """Ends a training that has been measured. Not an Exception, so that no library handles it."""


class Clock:
    """Counts steps, and ends the training by `Measured` after some seconds.

    The device is waited for at three moments only: after the first step, and at the start and the end of what counts.
    Between them steps overlap as they do in use.
    """

    def __init__(self, batch: int, warm_up: int, seconds: float, most_steps: int, profile: Path | None = None) -> None:
        """Start the clock, and count the time that training waits for loaders from now on.

        Args:
            batch: examples of a step.
            warm_up: steps that do not count.
            seconds: time to measure.
            most_steps: steps that count, at most.
            profile: file of a profiler's table of `PROFILED_STEPS` steps, which takes the place of the measurement.
        """
        self.batch, self.warm_up, self.seconds, self.most_steps = batch, warm_up, seconds, most_steps
        self.profile, self.profiler = profile, None
        self.steps = 0
        self.created = time.perf_counter()
        self.first = self.started = 0.0
        self.waited = 0.0
        self.figures: dict[str, Any] = {}
        _time_loaders(self)

    def step(self) -> None:
        """A step has ended."""
        self.steps += 1
        if self.steps == 1:
            _synchronize()
            self.first = time.perf_counter() - self.created
        if self.steps < self.warm_up:
            return
        if self.steps == self.warm_up:
            gc.collect()
            _synchronize()
            if self.profile is not None:
                self._start_profiler()
            self.waited, self.started = 0.0, time.perf_counter()
            return
        counted = self.steps - self.warm_up
        if self.profile is not None:
            if counted == PROFILED_STEPS:
                self._write_profile()
                self.figures = {"first_step_s": self.first}
                raise Measured
            return
        if counted < self.most_steps and time.perf_counter() - self.started < self.seconds:
            return
        host = time.perf_counter() - self.started
        _synchronize()
        seconds = time.perf_counter() - self.started
        self.figures = {
            "examples_per_second": self.batch * counted / seconds,
            "steps": counted,
            "step_ms": 1e3 * seconds / counted,
            "waiting": self.waited / host,
            "first_step_s": self.first,
            **_memory(),
        }
        raise Measured

    def _start_profiler(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self.profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self.profiler.__enter__()

    def _write_profile(self) -> None:
        """Tables by time on the device and on the host, and the calls by which the host waits for the device."""
        host = time.perf_counter() - self.started
        _synchronize()
        seconds = time.perf_counter() - self.started
        assert self.profiler is not None
        assert self.profile is not None
        self.profiler.__exit__(None, None, None)
        averages = self.profiler.key_averages()
        waits = {each.key: each.count for each in averages if each.key in WAITS}
        lines = [f"{PROFILED_STEPS} steps: {1e3 * seconds:.1f} ms, of which the host took {1e3 * host:.1f}; {waits}"]
        for order in ("self_device_time_total", "self_cpu_time_total"):
            lines.append(averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=70))
        self.profile.write_text("\n".join(lines), encoding="utf-8")


# Names in a profile of what makes the host wait for the device.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def _time_loaders(clock: Clock) -> None:
    """Add the time that the process spends in any DataLoader's `next` to a clock."""
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    following = _BaseDataLoaderIter.__next__

    def timed(self: Any) -> Any:
        before = time.perf_counter()
        try:
            return following(self)
        finally:
            clock.waited += time.perf_counter() - before

    _BaseDataLoaderIter.__next__ = _BaseDataLoaderIter.next = timed  # type: ignore[method-assign, attr-defined]


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory() -> dict[str, float]:
    """Peak memory in MiB: of torch's allocations on the device; without one, of the process."""
    import torch

    if torch.cuda.is_available():
        return {"peak_mib": torch.cuda.max_memory_allocated() / 2**20}
    import resource

    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
