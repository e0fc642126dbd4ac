"""Work on all cores, its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], processes: bool = False, ahead: int = 4
) -> Iterator[Result]:
    """The results of a function, one item after another.

    The caller's own thread works too where it would only wait, and so from the first moment on, while processes start.

    Args:
        function: of one item; a module's own, if processes are to find it.
        items: read as they are needed.
        processes: instead of threads, for a function that holds the interpreter's lock for much of its time.
        ahead: results of the caller's own work that may wait for their turn; memory is that of these and of two for each
            core.

    Raises:
        Exception: the function's.
    """
    workers = cores()
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = (
        ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn"))
        if processes
        else ThreadPoolExecutor(workers - 1)
    )
    with pool:
        try:
            for item in items:
                if sum(not each.done() for each in waiting) < 2 * workers:
                    waiting.append(pool.submit(function, item))
                else:
                    mine: Future[Result] = Future()
                    mine.set_result(function(item))
                    waiting.append(mine)
                while waiting and (waiting[0].done() or len(waiting) >= 2 * workers + ahead):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
