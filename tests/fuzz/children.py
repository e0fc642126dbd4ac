"""Calls in processes of their own: a fork of a process in which a library has started threads may hang."""

import multiprocessing
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def call(function: Callable[..., T], *arguments: Any) -> T:
    """Return a function's result, which can be pickled, from a forked process.

    Raises:
        EOFError: The function raised; the traceback is on stderr.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()
        receiver.close()
