"""What is known of each request, and the line that is logged of it."""

import contextlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

LOG_FORMATS = ("text", "json", "none")
_HEADER = b"x-request-id"
_ID = re.compile(r"[!-~]{1,128}")  # what may stand in a header and in a line of a log
_MAX_TEXT = 200  # characters of a path or an error in the log
_PROBE = re.compile(r"/v2/health/\w+|/v2/models/.*/ready|/metrics")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class RequestInfo:
    """What is known of a request.

    Attributes:
        id: that of the header X-Request-Id, else that of the body, else a new one.
        method: HTTP method; `other` for one that is not HTTP's, so that clients cannot make labels.
        path: path of the address, as it was sent.
        time: when it came, in UTC.
        handler: address that answers it, with {name}; `none` where there is none.
        status: HTTP status of the answer; 499 without one, because the client left.
        error: message of an answer that is an error.
        seconds: time until the answer was sent.
        queue_seconds: part of it in the queue; None if it never waited.
        model, version: name and version of the model that answers.
        rows: inputs.
        predictions: a prediction for each row; empty without an answer.
    """

    id: str
    method: str
    path: str
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    handler: str = "none"
    status: int = 499
    error: str = ""
    seconds: float = 0.0
    queue_seconds: float | None = None
    model: str = ""
    version: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    predictions: Sequence[Mapping[str, Any]] = ()
    has_header: bool = False

    def take_id(self, value: str | None) -> None:
        """Take the id of the body, unless the header has one."""
        if value is not None and not self.has_header and _ID.fullmatch(value):
            self.id = value

    def note_queue(self, seconds: float) -> None:
        """Note the time in the queue."""
        self.queue_seconds = seconds


def follow_requests(
    app: Application,
    on_start: Callable[[], None],
    on_end: Callable[[RequestInfo], None],
    closes: Callable[[], bool],
) -> Application:
    """Return an application whose requests have a `RequestInfo`, as `request.state.info`, and whose answers have its id.

    Args:
        app: the application.
        on_start: called when a request comes.
        on_end: called when its answer is sent, or the client has left.
        closes: whether the connection ends with the answer, so that the client's next request goes to another server.
    """

    async def followed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        info = _begin(scope)
        scope.setdefault("state", {})["info"] = info
        start = time.monotonic()

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, info.id.encode())]
                if closes():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        on_start()
        try:
            await app(scope, receive, send_with_id)
        finally:
            info.seconds = time.monotonic() - start
            route = scope.get("route")
            info.handler = getattr(route, "path", "none")
            on_end(info)

    return followed


def _begin(scope: Scope) -> RequestInfo:
    value = next((value for name, value in scope["headers"] if name == _HEADER), b"").decode("latin-1")
    has_header = _ID.fullmatch(value) is not None
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    return RequestInfo(value if has_header else uuid.uuid4().hex, method, path, has_header=has_header)


def log_request(info: RequestInfo, form: str) -> None:
    """Print a line about a request on stdout: `name=value` words, or a JSON object. Probes and /metrics are left out.

    A line that cannot be written, because nobody reads or the disk is full, is lost: it must not cost the answer.

    Args:
        info: the request.
        form: text, json or none.
    """
    if form == "none" or _PROBE.fullmatch(info.path):
        return
    line = (_format_json if form == "json" else _format_text)(_values(info))
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stdout.fileno(), line.encode("ascii") + b"\n")


def _values(info: RequestInfo) -> dict[str, Any]:
    values: dict[str, Any] = {
        "time": info.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "status": info.status,
        "method": info.method,
        "path": info.path[:_MAX_TEXT],
        "rows": len(info.rows),
        "seconds": round(info.seconds, 6),
    }
    if info.queue_seconds is not None:
        values["queue_seconds"] = round(info.queue_seconds, 6)
    if info.model:
        values |= {"model": info.model, "version": info.version}
    values["id"] = info.id
    if info.error:
        values["error"] = info.error[:_MAX_TEXT]
    return values


def _format_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values)


def _format_text(values: Mapping[str, Any]) -> str:
    words = [f"{name}={_quote(value)}" for name, value in values.items() if name != "time"]
    return " ".join([values["time"], *words])


def _quote(value: Any) -> str:
    """A value as a word; a text with blanks, quotes or what a terminal would obey as JSON."""
    text = str(value)
    return text if re.fullmatch(r"[!#-~]+", text) else json.dumps(text)
