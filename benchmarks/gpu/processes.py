"""One measurement in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("lightning.pytorch", "timm.data", "timm.optim", "timm.scheduler", "torch.utils.flop_counter"),
    *("transformers.models.bert.modeling_bert", "transformers.trainer", "transformers.integrations.sdpa_attention"),
    *("trainers.fit", "trainers.image_classification", "trainers.question_answering", "trainers.text_classification"),
)


class Failed(Exception):
    """A process failed, or took too long."""


def load_libraries() -> None:
    """Import what the methods need, so that a fork has it. No CUDA context is made: it would not survive a fork."""
    # `torch.cuda.is_available` asks the driver otherwise.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in LIBRARIES:
        importlib.import_module(name)


def start(target: Callable[..., Any], *arguments: Any, log: Path) -> Process:
    """Call a function in a forked process."""
    return Process(target, arguments, log)


def call(target: Callable[..., Any], *arguments: Any, log: Path, timeout: float) -> Any:
    """Call a function in a forked process, and return its result.

    Raises:
        Failed: it raised an exception, ended, or took too long; its output is in the log.
    """
    return Process(target, arguments, log).result(timeout)


class Process:
    """A forked process that calls a function once; its output goes to a log, its result through a pipe."""

    def __init__(self, target: Callable[..., Any], arguments: tuple[Any, ...], log: Path) -> None:
        """Start it."""
        self.log, self.started = log, time.monotonic()
        self.receiver, sender = multiprocessing.Pipe(duplex=False)
        self.child = os.fork()
        if self.child == 0:
            self.receiver.close()
            os.setsid()  # its own workers end with it
            _end_with_parent()
            _redirect(log)
            code = 0
            try:
                sender.send((True, target(*arguments)))
            except BaseException as error:
                traceback.print_exc()
                sender.send((False, f"{type(error).__name__}: {error}".splitlines()[0][:300]))
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        sender.close()

    def result(self, timeout: float) -> Any:
        """Wait for the result.

        Raises:
            Failed: see `call`.
        """
        answer: tuple[bool, Any]
        try:
            remaining = max(timeout - (time.monotonic() - self.started), 0)
            answer = (
                self.receiver.recv() if self.receiver.poll(remaining) else (False, f"no result after {timeout:.0f} s")
            )
        except EOFError:
            answer = (False, "the process ended without a result")
        finally:
            self.end()
        if not answer[0]:
            raise Failed(f"{answer[1]} (see {self.log.name})")
        return answer[1]

    def end(self) -> None:
        """End the process and its children."""
        self.receiver.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, also by a signal."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl.h
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _redirect(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
