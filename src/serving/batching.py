"""Batches of what waits: requests that come together are predicted together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Predict = Callable[[Sequence[Row]], list[Row]]


class QueueFullError(Exception):
    """More rows wait than may."""


@dataclass(eq=False)
class _Waiting:
    rows: Sequence[Row]
    length: int
    answer: asyncio.Future[list[Row]]
    on_start: Callable[[float], None]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Predicts rows of concurrent requests in batches, on a thread, as long as there are some.

    A batch is taken when the thread is free: the request that waits longest, and those nearest to it in length. It waits up to
    `delay` seconds until there are as many rows as in the last batch, so that a client alone does not wait.

    Attributes:
        waiting: number of rows that wait.
    """

    def __init__(
        self,
        predict: Predict,
        length: Callable[[Row], int],
        batch_size: int,
        delay: float,
        queue_size: int,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
        parallel: int = 1,
    ) -> None:
        """Make a batcher.

        Args:
            predict: a prediction for each of several rows; called on a thread.
            length: length of a row; rows of similar length cost least together.
            batch_size: rows of a batch; a longer request is a batch of its own.
            delay: seconds to wait for as many rows as in the last batch.
            queue_size: rows that may wait.
            on_batch: called with the rows of each batch and its seconds.
            parallel: number of batches that are predicted at a time; what waits is divided among those that are free.
        """
        self._predict, self._length, self._batch_size, self._delay = predict, length, batch_size, delay
        self._queue_size, self._on_batch = queue_size, on_batch
        self._queue: list[_Waiting] = []
        self._arrival = asyncio.Event()
        self._threads = ThreadPoolExecutor(parallel, "predict")
        self._parallel, self._free, self._freed = parallel, parallel, asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_size = 1  # rows of the last batch
        self.waiting = 0

    @property
    def is_busy(self) -> bool:
        """Whether a batch is predicted."""
        return self._free < self._parallel

    async def submit(self, rows: Sequence[Row], on_start: Callable[[float], None] = lambda seconds: None) -> list[Row]:
        """Return the predictions of rows. A cancelled call leaves the queue.

        Args:
            rows: the rows.
            on_start: called when their batch is taken, with the seconds that they have waited.

        Raises:
            QueueFullError: too many rows wait.
        """
        if self.waiting and self.waiting + len(rows) > self._queue_size:
            raise QueueFullError
        length = max(map(self._length, rows))
        entry = _Waiting(rows, length, asyncio.get_running_loop().create_future(), on_start)
        self._queue.append(entry)
        self.waiting += len(rows)
        self._arrival.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._run())
        try:
            return await entry.answer
        finally:
            if entry in self._queue:  # cancelled
                self._queue.remove(entry)
                self.waiting -= len(rows)

    async def _run(self) -> None:
        """Predict what waits, until nothing does."""
        while self._queue:
            await self._wait_for_batch()
            if batch := self._take():
                self._free -= 1
                task = asyncio.get_running_loop().create_task(self._predict_batch(batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            while not self._free:
                self._freed.clear()
                await self._freed.wait()

    async def _predict_batch(self, batch: Sequence[_Waiting]) -> None:
        rows = [row for entry in batch for row in entry.rows]
        self._last_size = len(rows)
        start = time.monotonic()
        try:
            predictions = await asyncio.get_running_loop().run_in_executor(self._threads, self._predict, rows)
        except Exception as error:
            await self._fail(batch, error)
        else:
            self._on_batch(len(rows), time.monotonic() - start)
            self._answer(batch, predictions)
        finally:
            self._free += 1
            self._freed.set()

    async def _wait_for_batch(self) -> None:
        deadline = self._queue[0].since + self._delay
        while self._queue and self.waiting < min(self._batch_size, self._last_size):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), remaining)
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        if not self._queue:
            return []
        first = self._queue[0]
        limit = min(self._batch_size, -(-self.waiting // self._free))
        batch: list[_Waiting] = []
        count = 0
        for entry in sorted(self._queue, key=lambda entry: (entry is not first, abs(entry.length - first.length))):
            if batch and count + len(entry.rows) > limit:
                break
            batch.append(entry)
            count += len(entry.rows)
        for entry in batch:
            self._queue.remove(entry)
            entry.on_start(time.monotonic() - entry.since)
        self.waiting -= count
        return batch

    async def _fail(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Predict the requests of a batch that failed one by one: a wrong input must not fail the others."""
        loop = asyncio.get_running_loop()
        for entry in batch:
            if entry.answer.done():
                continue
            try:
                if len(batch) == 1:
                    raise error
                predictions = await loop.run_in_executor(self._threads, self._predict, entry.rows)
            except Exception as own_error:
                if not entry.answer.done():
                    entry.answer.set_exception(own_error)
            else:
                self._answer([entry], predictions)

    def _answer(self, batch: Sequence[_Waiting], predictions: Sequence[Row]) -> None:
        position = 0
        for entry in batch:
            part = list(predictions[position : position + len(entry.rows)])
            position += len(entry.rows)
            if not entry.answer.done():
                entry.answer.set_result(part)
