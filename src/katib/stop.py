"""Ending the trainings that run beside this process, with their checkpoints."""

import contextlib
import os
import time
from pathlib import PurePath

import psutil


def stop(seconds: float) -> bool:
    """Sends SIGTERM to each process that runs train.py, and waits for them.

    Args:
        seconds: to wait at most.

    Returns:
        Whether all of them have ended.
    """
    found = [process for process in psutil.process_iter() if _trains(process)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    end = time.monotonic() + seconds
    _, alive = psutil.wait_procs(found, timeout=max(0.0, end - time.monotonic()))
    return not alive


def _trains(process: psutil.Process) -> bool:
    """Whether a word of its command line is train.py itself (a shell has it inside a longer word)."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return process.pid != os.getpid() and any(PurePath(word).name == "train.py" for word in words[:8])
    return False
