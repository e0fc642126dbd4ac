"""Stopping the trainings of this pod or of a run folder, so that they write their checkpoints."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from config import files
from config.errors import InputError
from katib.shell_command import EARLY_STOPPED, is_shell
from runs import folder as folders

_LAUNCHERS = ("torchrun", "torch.distributed.run", "torch.distributed.launch")


def stop_trainings(seconds: float, folder: Path | None = None) -> bool:
    """Send SIGTERM to trainings of isotrain, and wait for them.

    A training is a Python interpreter that executes the train.py of this installation, in this container. The torchrun
    that started it gets the signal in its place, and passes it on to all ranks. Katib's wrapper for early stopping would
    end with 1, as if the training had failed, so that nothing replaces the pod: its shell is ended by SIGTERM, too, with 143.

    Args:
        seconds: maximum time to wait.
        folder: a run folder: only the process that holds its lock is stopped; None for all trainings of this pod.

    Returns:
        Whether all of them have ended.

    Raises:
        InputError: there is no such folder; or, outside a trial, there are trainings in several run folders.
    """
    trainings = [process for process in psutil.process_iter() if _is_training(process)]
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"there is no run folder {folder}")
        owner = files.read_json(folder / folders.OWNER)
        holds_lock = owner.get("host") == socket.gethostname() and folders.is_locked(folder)
        processes = [process for process in trainings if holds_lock and process.pid == owner.get("pid")]
    else:
        used_folders = sorted({name for process in trainings if (name := _run_folder(process))})
        if len(used_folders) > 1 and not os.environ.get("KATIB_TRIAL_NAME"):
            names = ", ".join(used_folders)
            raise InputError(f"trainings run in several folders ({names}): name one, python -m katib stop FOLDER")
        pids = {process.pid for process in trainings}
        # A data-loading worker is a copy of its parent; the parent ends it.
        trainings = [process for process in trainings if _parent_id(process) not in pids]
        processes = list({process.pid: process for process in map(_launcher_or_itself, trainings)}.values())
    shells = [] if folder is not None else list(filter(None, map(_early_stopping_shell, processes)))
    _signal(shells, signal.SIGSTOP)
    _signal(processes, signal.SIGTERM)
    ended = _wait([*processes, *trainings] if folder is None else processes, seconds)
    _signal(shells, signal.SIGTERM)
    _signal(shells, signal.SIGCONT)
    return ended


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _wait(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait until processes have ended, and return whether they have. A stopped parent leaves them as zombies."""
    end = time.monotonic() + max(0.0, seconds)
    while any(map(_is_running, processes)):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _early_stopping_shell(process: psutil.Process) -> psutil.Process | None:
    """Return the shell of Katib's wrapper that waits for a process, if the trial has early-stopping rules."""
    with contextlib.suppress(psutil.Error, OSError):
        parent = process.parent()
        if parent is not None and is_shell(parent.cmdline()) and EARLY_STOPPED in parent.cmdline()[-1]:
            return parent
    return None


def _is_training(process: psutil.Process) -> bool:
    """Return whether a process of this container executes the train.py of this installation."""
    with contextlib.suppress(psutil.Error, OSError):
        if process.pid == os.getpid() or not _is_python(process) or not _is_in_container(process):
            return False
        kind, script = _program(process.cmdline())
        return kind == "script" and (Path(process.cwd()) / script).samefile(files.PROJECT / "train.py")
    return False


def _is_python(process: psutil.Process) -> bool:
    return re.match(r"python|pypy", Path(process.exe()).name) is not None


def _is_in_container(process: psutil.Process) -> bool:
    """Return whether a process sees the same file system as this one; containers of a pod may share process ids."""
    this_namespace, namespace = Path("/proc/self/ns/mnt"), Path(f"/proc/{process.pid}/ns/mnt")
    return not this_namespace.exists() or this_namespace.readlink() == namespace.readlink()


def _program(words: Sequence[str]) -> tuple[str, str]:
    """Return what a command line of Python executes: ("script", path), ("module", name) or ("", "").

    The options are those of https://docs.python.org/3/using/cmdline.html.
    """
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            return "script", word
        if word.startswith("--") or word == "-":
            if word == "--check-hash-based-pycs" and rest:
                rest.pop(0)
            continue
        for index, letter in enumerate(word[1:], 2):
            value = word[index:]
            if letter == "m":
                return "module", value or (rest[0] if rest else "")
            if letter == "c":
                return "", ""
            if letter in "XW":
                if not value and rest:
                    rest.pop(0)
                break
    return "", ""


def _launcher_or_itself(process: psutil.Process) -> psutil.Process:
    """Return the torchrun that started a rank, or the process itself."""
    with contextlib.suppress(psutil.Error, OSError):
        parent = process.parent()
        if parent is not None and _is_python(parent) and Path(_program(parent.cmdline())[1]).name in _LAUNCHERS:
            return parent
    return process


def _parent_id(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.ppid())
    return 0


def _run_folder(process: psutil.Process) -> str | None:
    """Return the run folder whose lock a process holds, as its owner's record says."""
    with contextlib.suppress(psutil.Error, OSError):
        for file in process.open_files():
            path = Path(file.path)
            if path.name == folders.LOCK and files.read_json(path.with_name(folders.OWNER)).get("pid") == process.pid:
                return str(path.parent)
    return None
