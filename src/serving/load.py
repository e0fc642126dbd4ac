"""Load on an HTTP server: requests of several clients, or at a rate, over connections that stay open."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Load:
    """What a server did under a load.

    Attributes:
        seconds: how long it lasted.
        latencies: of the requests that were answered, in seconds, ascending.
        failures: number of requests that failed, by status; 0 for no answer.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds within which a share of the requests was answered; NaN if none was."""
        if not self.latencies:
            return math.nan
        return 1e3 * self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


class _Client:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.path = str(parts.hostname), parts.path
        self.ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.ssl else 80)
        self.reader: asyncio.StreamReader | None = None

    async def post(self, body: bytes) -> int:
        """Status of the answer; 0 for none. A connection that the server has closed meanwhile is opened again."""
        is_reused = self.reader is not None
        status = await self._post(body)
        return status or (await self._post(body) if is_reused else 0)

    async def _post(self, body: bytes) -> int:
        try:
            if self.reader is None:
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port, ssl=self.ssl)
            head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
            self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await self.reader.readuntil(b"\r\n\r\n")
            length = answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await self.reader.readexactly(int(length))
            if b"connection: close" in answer.lower():
                self.close()
            return int(answer.split(b" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError, IndexError):
            self.close()
            return 0

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.reader = None


def closed_loop(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Let clients send one request after the other for some seconds; those under way at the end count, too."""
    return asyncio.run(_closed_loop(url, bodies, clients, seconds))


async def _closed_loop(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    load, numbers, start = Load(), iter(range(10**9)), time.perf_counter()

    async def run() -> None:
        client = _Client(url)
        while time.perf_counter() < start + seconds:
            await _send(client, bodies[next(numbers) % len(bodies)], load, time.perf_counter())
        client.close()

    await asyncio.gather(*(run() for _ in range(clients)))
    return _end(load, start)


def open_loop(url: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Load:
    """Send requests at random moments of a rate, whether earlier ones have been answered or not.

    Latencies count from the moment at which a request was due.
    """
    return asyncio.run(_open_loop(url, bodies, rate, seconds, seed))


async def _open_loop(url: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int) -> Load:
    generator, load, start = random.Random(seed), Load(), time.perf_counter()
    idle: list[_Client] = []

    async def send(body: bytes, due: float) -> None:
        client = idle.pop() if idle else _Client(url)
        await _send(client, body, load, due)
        idle.append(client)

    tasks: list[asyncio.Task[None]] = []
    due = start
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(bodies[len(tasks) % len(bodies)], due)))
        due += generator.expovariate(rate)
    await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return _end(load, start)


async def _send(client: _Client, body: bytes, load: Load, due: float) -> None:
    status = await client.post(body)
    if status == 200:
        load.latencies.append(time.perf_counter() - due)
    else:
        load.failures[status] = load.failures.get(status, 0) + 1


def _end(load: Load, start: float) -> Load:
    load.seconds = time.perf_counter() - start
    load.latencies.sort()
    return load
