"""What a step does when SIGTERM reaches it: no other step of its run follows, because KFP kills the exit handler, too."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

EXPERIMENTS = "experiments.v1beta1.kubeflow.org"


@contextlib.contextmanager
def on_termination(function: Callable[[], None]) -> Iterator[None]:
    """Call a function when SIGTERM arrives, after the handlers around this one.

    Handlers must be fast: the pod of a terminated step may be killed within seconds. Outside of the main thread, which alone
    receives signals, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            if callable(outer):
                outer(number, frame)
        finally:
            function()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, outer)


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a step, by which others see that its process lives (`is_locked`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("ab") as file:
        with contextlib.suppress(OSError):  # held by an earlier attempt, or a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_locked(path: Path) -> bool:
    """Return whether the process of a step's record lives."""
    try:
        with path.with_suffix(".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def experiment_prefix(run: str) -> str:
    """Return what the names of a pipeline run's Experiments begin with, so that a retry attaches and others find them."""
    return f"tune-{(''.join(char for char in run.lower() if char.isalnum()) or 'run')[:8]}-"


@contextlib.contextmanager
def delete_on_termination(step: dict[str, Any], name: str, namespace: str | None) -> Iterator[None]:
    """Delete an Experiment when SIGTERM reaches the step, inside a pod; elsewhere the same command attaches to it again.

    One request over a connection that is made beforehand: a command would take longer than a terminated pod may have.
    """
    from cluster import api

    # In a pod only: there, no retry could attach to it after a termination.
    connection = api.connect(namespace=namespace) if "KUBERNETES_SERVICE_HOST" in os.environ else None

    def delete() -> None:
        if connection is None:
            return
        try:
            connection.delete(EXPERIMENTS, name)
            step["search_end"] = f"the Experiment {name} was deleted"
        except Exception as error:  # the process ends anyway, and the message must get out
            step["search_end"] = f"the Experiment {name} was not deleted: {error}"
        with contextlib.suppress(OSError):  # not print(), which may be under way
            os.write(2, f"isotrain: tune: {step['search_end']}\n".encode())

    with on_termination(delete):
        yield
