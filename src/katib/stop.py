"""Stopping the trainings of this pod, so that they write their checkpoints."""

import contextlib
import os
from pathlib import PurePath

import psutil


def stop_trainings(seconds: float) -> bool:
    """Send SIGTERM to each process that runs train.py, and wait for it.

    Args:
        seconds: maximum time to wait.

    Returns:
        Whether all of them have ended.
    """
    processes = [process for process in psutil.process_iter() if _is_training(process)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=max(0.0, seconds))
    return not alive


def _is_training(process: psutil.Process) -> bool:
    """Return whether a word of the command line is train.py (a shell has it only inside a longer word)."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return process.pid != os.getpid() and any(PurePath(word).name == "train.py" for word in words[:8])
    return False
