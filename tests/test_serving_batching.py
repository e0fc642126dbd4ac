"""Batches of concurrent requests: what is together, what leaves the queue, what is refused."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from serving.batching import Batcher, QueueFullError

Row = dict[str, Any]


class Recorder:
    """A model that records its batches and answers when it may."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def predict(self, rows: Sequence[Row]) -> list[Row]:
        assert self.free.wait(10)
        self.batches.append([row["id"] for row in rows])
        if any(row["text"] == "wrong" for row in rows):
            raise ValueError("a wrong text")
        return [{"id": row["id"], "prediction": row["text"].upper()} for row in rows]


def rows(*texts: str) -> list[Row]:
    return [{"id": text, "text": text} for text in texts]


def batcher(model: Recorder, **settings: Any) -> Batcher:
    values = {"batch_size": 4, "delay": 0.0, "queue_size": 100} | settings
    return Batcher(model.predict, lambda row: len(row["text"]), **values)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def occupied(model: Recorder, queue: Batcher) -> "asyncio.Future[list[Row]]":
    """A request that keeps the model's thread, so that others wait."""
    model.free.clear()
    first = asyncio.ensure_future(queue.submit(rows("first")))
    await until(lambda: queue.waiting == 0 and not first.done() and not queue._queue)
    await asyncio.sleep(0.02)
    return first


def test_what_waits_is_predicted_together_by_length() -> None:
    async def main() -> None:
        model = Recorder()
        queue = batcher(model)
        first = await occupied(model, queue)
        texts = ["a", "b" * 100, "c" * 2, "d" * 90, "e" * 3, "f" * 95, "g" * 4]
        requests = [asyncio.ensure_future(queue.submit(rows(text))) for text in texts]
        await until(lambda: queue.waiting == len(texts))
        model.free.set()
        answers = await asyncio.gather(first, *requests)
        assert [answer[0]["prediction"] for answer in answers] == ["FIRST", *(text.upper() for text in texts)]
        together = [sorted(text[0] for text in batch) for batch in model.batches]
        assert together == [["f"], ["a", "c", "e", "g"], ["b", "d", "f"]]

    asyncio.run(main())


def test_a_request_keeps_its_rows_in_order_and_a_long_one_is_alone() -> None:
    async def main() -> None:
        model = Recorder()
        queue = batcher(model)
        first = await occupied(model, queue)
        long = asyncio.ensure_future(queue.submit(rows(*"zyxwvu")))
        short = asyncio.ensure_future(queue.submit(rows("s")))
        await until(lambda: queue.waiting == 7)
        model.free.set()
        answers = await asyncio.gather(first, long, short)
        assert [row["id"] for row in answers[1]] == [*"zyxwvu"]
        assert model.batches == [["first"], [*"zyxwvu"], ["s"]]

    asyncio.run(main())


def test_a_wrong_input_fails_its_own_request_only() -> None:
    async def main() -> None:
        model = Recorder()
        queue = batcher(model)
        first = await occupied(model, queue)
        requests = [asyncio.ensure_future(queue.submit(rows(text))) for text in ("a", "wrong", "b")]
        await until(lambda: queue.waiting == 3)
        model.free.set()
        good, bad, other, _ = await asyncio.gather(*requests, first, return_exceptions=True)
        assert (good[0]["prediction"], other[0]["prediction"]) == ("A", "B")
        assert isinstance(bad, ValueError)
        assert (await queue.submit(rows("c")))[0]["prediction"] == "C"

    asyncio.run(main())


def test_who_leaves_is_not_predicted_and_a_full_queue_refuses() -> None:
    async def main() -> None:
        model = Recorder()
        queue = batcher(model, queue_size=3)
        first = await occupied(model, queue)
        requests = [asyncio.ensure_future(queue.submit(rows(text))) for text in "abc"]
        await until(lambda: queue.waiting == 3)
        with pytest.raises(QueueFullError):
            await queue.submit(rows("d"))
        requests[1].cancel()
        await until(lambda: queue.waiting == 2)
        last = asyncio.ensure_future(queue.submit(rows("e")))
        await until(lambda: queue.waiting == 3)
        model.free.set()
        await asyncio.gather(first, last, requests[0], requests[2])
        assert model.batches == [["first"], ["a", "c", "e"]]
        assert queue.waiting == 0

    asyncio.run(main())


def test_a_batch_waits_until_it_is_as_large_as_the_last() -> None:
    async def main() -> None:
        model = Recorder()
        queue = batcher(model, delay=60.0)
        async with asyncio.timeout(10):  # nobody waits a minute
            for text in "xyz":  # a client alone
                await queue.submit(rows(text))
            await asyncio.gather(*(queue.submit(rows(text)) for text in "abcd"))
        assert [len(batch) for batch in model.batches] == [1, 1, 1, 4]
        lonely = asyncio.ensure_future(queue.submit(rows("e")))
        await asyncio.sleep(0.1)
        assert not lonely.done()
        async with asyncio.timeout(10):
            await asyncio.gather(lonely, *(queue.submit(rows(text)) for text in "fgh"))
        assert len(model.batches) == 5

    asyncio.run(main())


def test_what_waits_is_divided_among_the_threads() -> None:
    async def main() -> None:
        model = Recorder()
        model.free.clear()
        queue = batcher(model, batch_size=8, parallel=2)
        requests = [asyncio.ensure_future(queue.submit(rows(text))) for text in ("a", "b" * 90, "c" * 2, "d" * 91)]
        await asyncio.sleep(0.05)
        assert queue.waiting == 0
        late = asyncio.ensure_future(queue.submit(rows("e")))
        await asyncio.sleep(0.05)
        assert queue.waiting == 1, "both threads are busy"
        model.free.set()
        await asyncio.gather(late, *requests)
        assert sorted(sorted(text[0] for text in batch) for batch in model.batches) == [["a", "c"], ["b", "d"], ["e"]]

    asyncio.run(main())
