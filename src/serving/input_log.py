"""A sample of inputs and answers, written to a folder or an object store."""

import base64
import contextlib
import json
import logging
import os
import queue
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.files import atomic_write
from datamodules.sources.files import file_system
from serving.request_log import RequestInfo

logger = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20
PART_SECONDS = 60.0
PENDING_BYTES = 64 * 2**20  # of inputs that wait to be written
_WARNING_SECONDS = 60.0  # between two warnings
_PART = re.compile(r"\d{8}T\d{12}Z-[\w.-]+\.jsonl")  # a file of ours; others are never removed


class InputLog:
    """Writes a sample of the requests that were answered, on a thread, as JSON Lines.

    A part is written whole, when it has 8 MiB or its first row is a minute old; the oldest parts are removed when all have
    more than the limit. What cannot be written in time, or at all, is dropped and counted: no request waits for it.

    Attributes:
        on_rows: called with `written` or `dropped`, and a number of rows.
    """

    def __init__(self, folder: str, sample: float, max_bytes: int, seed: int | None = None) -> None:
        """Start it.

        Args:
            folder: path or URL of a folder (fsspec).
            sample: share of the requests, up to 1.
            max_bytes: size of all parts in the folder, those of other servers included.
            seed: of the sample, for tests.

        Raises:
            InputError: nothing can be written there.
        """
        self.on_rows: Callable[[str, int], None] = lambda result, rows: None
        self._sample, self._random, self._max_bytes = sample, random.Random(seed), max_bytes
        self._part_bytes = max(1, min(PART_BYTES, max_bytes // 8))
        self._system, self._path = file_system(folder)
        self._is_local = "file" in _protocols(self._system)
        self._writer = re.sub(r"[^\w.-]", "-", f"{socket.gethostname()}-{os.getpid()}")
        self._queue: queue.SimpleQueue[tuple[RequestInfo, int] | None] = queue.SimpleQueue()
        self._pending, self._lock = 0, threading.Lock()
        self._next_warning = 0.0
        self._check(folder)
        self._thread = threading.Thread(target=self._run, name="input-log", daemon=True)
        self._thread.start()

    def add(self, info: RequestInfo) -> None:
        """Take a request that was answered, if it is in the sample."""
        if not info.predictions or self._random.random() >= self._sample:
            return
        size = sum(len(value) for row in info.rows for value in row.values() if isinstance(value, str | bytes))
        with self._lock:
            is_full = self._pending + size > PENDING_BYTES
            self._pending += 0 if is_full else size
        if is_full:
            self.on_rows("dropped", len(info.rows))
            return
        self._queue.put((info, size))

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits; give up after `timeout` seconds."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _check(self, folder: str) -> None:
        """Write and remove a file, before a request finds out."""
        name = f"{self._path}/.isotrain-{self._writer}"
        try:
            if self._is_local:
                Path(self._path).mkdir(mode=0o700, parents=True, exist_ok=True)  # they may be about people
            self._system.pipe_file(name, b"isotrain")
            self._system.rm_file(name)
        except Exception as error:  # of any object store
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(f"--log-inputs {folder}: cannot be written: {reason}") from error

    def _run(self) -> None:
        lines: list[bytes] = []
        size, deadline = 0, 0.0
        while True:
            entry: tuple[RequestInfo, int] | None = None
            ended = timed_out = False
            try:
                entry = self._queue.get(timeout=max(0.0, deadline - time.monotonic()) if lines else None)
                ended = entry is None
            except queue.Empty:
                timed_out = True
            if entry is not None:
                deadline = deadline if lines else time.monotonic() + PART_SECONDS
                for line in self._lines(*entry):
                    if size and size + len(line) > self._part_bytes:
                        self._write(lines)
                        lines, size, deadline = [], 0, time.monotonic() + PART_SECONDS
                    lines.append(line)
                    size += len(line)
            if lines and (ended or timed_out or size >= self._part_bytes or time.monotonic() >= deadline):
                self._write(lines)
                lines, size = [], 0
            if ended:
                return

    def _lines(self, info: RequestInfo, size: int) -> list[bytes]:
        with self._lock:
            self._pending -= size
        return [_format_row(info, number) + b"\n" for number in range(len(info.rows))]

    def _write(self, lines: list[bytes]) -> None:
        content = b"".join(lines)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{self._writer}.jsonl"
        try:
            if len(content) > self._max_bytes:
                raise OSError("a row is larger than the limit of all")
            self._make_room(len(content))
            if self._is_local:
                Path(self._path).mkdir(mode=0o700, parents=True, exist_ok=True)
                with atomic_write(Path(self._path) / name) as file:
                    file.write(content)
            else:
                self._system.pipe_file(f"{self._path}/{name}", content)
        except Exception as error:  # of any object store; the server goes on
            self.on_rows("dropped", len(lines))
            if time.monotonic() >= self._next_warning:
                self._next_warning = time.monotonic() + _WARNING_SECONDS
                logger.warning("inputs and answers cannot be logged, %d rows are lost: %s", len(lines), error)
        else:
            self.on_rows("written", len(lines))

    def _make_room(self, size: int) -> None:
        """Remove the oldest parts until all, with a new one of `size` bytes, have at most the limit."""
        self._system.invalidate_cache()
        try:
            entries = self._system.ls(self._path, detail=True)
        except FileNotFoundError:
            return
        parts = sorted(
            (entry["name"].rpartition("/")[2], int(entry["size"] or 0))
            for entry in entries
            if _PART.fullmatch(entry["name"].rpartition("/")[2])
        )
        total = size + sum(part for _, part in parts)
        for name, part in parts:
            if total <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):  # another server has removed it
                self._system.rm_file(f"{self._path}/{name}")
            total -= part


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _format_row(info: RequestInfo, number: int) -> bytes:
    """Return a row and its answer as JSON; the content of a file as base64."""
    row = {name: value for name, value in info.rows[number].items() if name != "id"}
    value: Mapping[str, Any] = {
        "time": info.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "id": info.id,
        "row": number,
        "model": info.model,
        "version": info.version,
        "inputs": {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in row.items()
        },
        "prediction": info.predictions[number],
    }
    return json.dumps(value, ensure_ascii=False).encode()
