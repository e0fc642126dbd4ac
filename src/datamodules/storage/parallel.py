"""Parallel map over all cores, with results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from config.process import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], processes: bool = False, ahead: int = 4
) -> Iterator[Result]:
    """Yield the results of a function in the order of its items.

    The calling thread works too while it would wait, also during the start of processes.

    Args:
        function: of one item; for processes, one of a module.
        items: read as they are needed.
        processes: use processes instead of threads, for a function that holds the interpreter lock most of the time.
        ahead: results of the calling thread that may be held back until their turn, besides two per core.

    Raises:
        Exception: of the function.
    """
    workers = available_cores()
    if workers == 1:
        yield from map(function, items)
        return
    queue: deque[Future[Result]] = deque()
    pool = (
        ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn"))
        if processes
        else ThreadPoolExecutor(workers - 1)
    )
    with pool:
        try:
            for item in items:
                if sum(not future.done() for future in queue) < 2 * workers:
                    queue.append(pool.submit(function, item))
                else:
                    finished: Future[Result] = Future()
                    finished.set_result(function(item))
                    queue.append(finished)
                while queue and (queue[0].done() or len(queue) >= 2 * workers + ahead):
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()
