"""Repeating a training in place after a plain failure, in trials of a search.

Kubernetes cannot do it for every kind of trial: torchrun and Katib's wrapper for early stopping turn every exit code into
1, and the training operator counts no restarts.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator

from config.errors import InputError

RETRIES = "ISOTRAIN_RETRIES"  # failures that are still forgiven; set in all pods whose restarts nothing else counts
RESTARTED = "ISOTRAIN_RESTARTED"  # set by `repeat_failures` for the next attempt, in the same pod
# Exit codes: a bug, an unreachable server, no memory or disk. Others would come again, or ask to end.
PLAIN_FAILURES = (1, 7, 8)
_ELASTIC_COUNT = "TORCHELASTIC_RESTART_COUNT"  # prefix of torchrun's key-value store


def retries() -> int | None:
    """Return the number of failures that are still forgiven; None where it is not set.

    Raises:
        InputError: It is not a number.
    """
    text = os.environ.get(RETRIES)
    if text is not None and not text.isdecimal():
        raise InputError(f"{RETRIES}={text}: must be a number, 0 or more")
    return None if text is None else int(text)


@contextlib.contextmanager
def repeat_failures() -> Iterator[None]:
    """Start this program again if the block ends with a plain failure and ISOTRAIN_RETRIES is not used up.

    All ranks end with the same exit code, so all of them start again. The process keeps its id, which its shell and its
    launcher know.
    """
    try:
        yield
    except SystemExit as request:
        left = retries() or 0
        if request.code not in PLAIN_FAILURES or not left:
            raise
        print(f"isotrain: starting again after exit code {request.code}; retries left: {left - 1}", file=sys.stderr)
        for child in multiprocessing.active_children():  # data-loading workers, which watch this process's id
            child.terminate()
            child.join(5)
        sys.stdout.flush()
        sys.stderr.flush()
        environment = {**os.environ, RETRIES: str(left - 1), RESTARTED: "1"}
        if _ELASTIC_COUNT in environment:
            environment[_ELASTIC_COUNT] = str(int(environment[_ELASTIC_COUNT]) + 1)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
