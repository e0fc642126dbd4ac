"""A client of a server: requests over connections that are kept open."""

import base64
import contextlib
import http.client
import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from config.errors import InputError, UnreachableError, first_line

logger = logging.getLogger(__name__)

Row = dict[str, Any]
RETRY_S = 1.0  # until a request that was refused for load is sent again
ATTEMPTS = 60


class Connections:
    """HTTP connections to a server, one for each thread, which are kept open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url}: name the server as http://HOST:PORT")
        try:
            self._port = parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}") from None
        self._url, self._host, self._path = url, parts.hostname, parts.path.rstrip("/")
        self._class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._local = threading.local()

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of an answer.

        Raises:
            UnreachableError: there is none.
        """
        for attempt in (1, 2):  # the server may have closed a connection that was idle
            connection = getattr(self._local, "connection", None)
            fresh = connection is None
            if connection is None:
                connection = self._local.connection = self._class(self._host, self._port, timeout=120)
            try:
                connection.request(method, self._path + path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                if fresh or attempt == 2:
                    raise UnreachableError(f"{self._url} does not answer: {first_line(error)}") from None
        raise AssertionError

    def predict(self, rows: Sequence[Row]) -> list[Row]:
        """Return the answers to some inputs.

        Raises:
            InputError: the server refuses an input.
            UnreachableError: it does not answer, or has no time for an answer.
        """
        body = to_body(rows)
        for _ in range(ATTEMPTS):
            status, content = self.request("POST", "/predict", body)
            if status == 200:
                return _answers(self._url, content, len(rows))
            if status not in (429, 503):
                break
            time.sleep(RETRY_S)
        message = f"{self._url} answers {status} to the examples from {rows[0]['id']}: {_message(content)}"
        raise UnreachableError(message) if status >= 500 or status == 429 else InputError(message)


def to_body(rows: Sequence[Row]) -> bytes:
    """Return the body of a request of /predict for some inputs; contents of files are sent as base64."""
    encode = base64.b64encode
    return json.dumps(
        [
            {name: encode(value).decode() if isinstance(value, bytes) else value for name, value in row.items()}
            for row in rows
        ]
    ).encode()


def _message(content: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(content)["error"])[:500]
    return content[:200].decode(errors="replace")


def _answers(url: str, content: bytes, count: int) -> list[Row]:
    answers: Any = None
    with contextlib.suppress(ValueError):
        answers = json.loads(content)
    if not isinstance(answers, list) or len(answers) != count or not all(isinstance(row, dict) for row in answers):
        raise InputError(f"{url}/predict does not answer with {count} predictions: it is no server of isotrain")
    return answers


def wait_until_ready(connections: Connections, wait: float) -> None:
    """Wait until a server is ready.

    Raises:
        UnreachableError: it is not in time.
    """
    end, announced = time.monotonic() + wait, False
    while True:
        try:
            status, content = connections.request("GET", "/v2/health/ready")
            if status == 200:
                return
            reason = f"it answers {status} to /v2/health/ready: {_message(content)}"
        except UnreachableError as error:
            reason = str(error)
        if time.monotonic() >= end:
            raise UnreachableError(f"the server was not ready within {wait:g} s: {reason}")
        if not announced:
            logger.info("waiting until the server is ready")
            announced = True
        time.sleep(min(1.0, max(0.01, end - time.monotonic())))
