"""Comparison of a server's answers with the predictions of a run: `python -m serving replay`."""

import base64
import contextlib
import http.client
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config import tasks
from config.errors import InputError, UnreachableError, first_line
from runs import folder as folders
from runs import predictions

logger = logging.getLogger(__name__)

Row = dict[str, Any]
RETRY_S = 1.0  # until a request that was refused for load is sent again
ATTEMPTS = 60
MAX_DIFFERENCES = 10  # that are shown


@dataclass
class Replay:
    """Outcome of a comparison.

    Attributes:
        count: number of examples.
        seconds: from the first request to the last answer.
        differences: a line for each example whose answer differs.
        largest: largest relative difference of a number, of those that are accepted.
    """

    count: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    largest: float = 0.0


def replay(
    url: str,
    folder: str,
    *,
    batch_size: int = 8,
    clients: int = 4,
    tolerance: float = 1e-3,
    limit: int | None = None,
    wait: float = 60.0,
) -> Replay:
    """Send the validation examples of a run to a server, and compare its answers with the run's predictions.

    Args:
        url: of the server, with http:// or https://.
        folder: the run folder, whose data can be opened on this machine.
        batch_size: inputs of a request.
        clients: requests at a time.
        tolerance: largest difference of a number, relative to its size where that is above 1.
        limit: number of the first examples that are sent; None for all.
        wait: seconds for which the server may be unready.

    Raises:
        InputError: the folder has no predictions, its data is another one, or the server refuses an input.
        UnreachableError: the server does not answer.
    """
    connections = _Connections(url)
    rows, expected = _examples(folder, limit)
    _wait_until_ready(connections, wait)
    outcome, start = Replay(), time.monotonic()
    progress = sys.stderr.isatty()
    with ThreadPoolExecutor(clients) as pool:
        groups = iter(lambda: list(islice(rows, batch_size)), [])
        while window := list(islice(groups, clients * 4)):  # images are large: not all are in memory
            for group, answers in zip(window, pool.map(connections.predict, window), strict=True):
                for row, answer in zip(group, answers, strict=True):
                    outcome.count += 1
                    _compare(outcome, expected[row["id"]], answer, tolerance)
            if progress:
                print(f"\r{outcome.count} examples", end="", file=sys.stderr, flush=True)
    if progress:
        print("\r\033[K", end="", file=sys.stderr)
    outcome.seconds = time.monotonic() - start
    return outcome


def _examples(folder: str, limit: int | None) -> tuple[Iterator[Row], dict[str, Row]]:
    """Return the validation inputs of a run, and its predictions by id.

    Raises:
        InputError: the run has no predictions, or its data has other examples now.
    """
    from trainers import evaluate, saved_model
    from trainers.build import build, check_targets

    path = Path(folder) / folders.PREDICTIONS
    if not folders.is_run(folder) or not path.is_file():
        raise InputError(f"run={folder}: no run folder with {folders.PREDICTIONS}, which the answers are compared with")
    expected = {str(row["id"]): row for row in predictions.read(path)}
    model = saved_model.open_model(folder)
    inputs = tasks.load_member(model.task, "validation_inputs", "python -m serving replay")
    config = evaluate.compose_saved(model, [])
    check_targets(config)
    data = build(config, "data")
    data.prepare_data(("val",))
    data.setup("validate")
    recorded = model.record.get("data", {}).get("fingerprints", {}).get("val")
    if recorded != data.fingerprint("val"):
        raise InputError(
            f"run={folder}: its validation data has changed since it was trained, so that the predictions are of other "
            "examples"
        )
    rows = islice(inputs(data, model.settings), limit)
    return ({**row, "id": str(row["id"])} for row in rows), expected


class _Connections:
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
        encoded = [{name: _encode(value) for name, value in row.items()} for row in rows]
        body = json.dumps(encoded).encode()
        for _ in range(ATTEMPTS):
            status, content = self.request("POST", "/predict", body)
            if status == 200:
                return _answers(self._url, content, len(rows))
            if status not in (429, 503):
                break
            time.sleep(RETRY_S)
        message = f"{self._url} answers {status} to the examples from {rows[0]['id']}: {_message(content)}"
        raise UnreachableError(message) if status >= 500 or status == 429 else InputError(message)


def _encode(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


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


def _wait_until_ready(connections: _Connections, wait: float) -> None:
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


def _compare(outcome: Replay, expected: Row, answer: Row, tolerance: float) -> None:
    """Compare the fields that an answer and a prediction share."""
    differences = []
    for name in sorted((expected.keys() & answer.keys()) | {"id", "prediction"}):
        old, new = expected.get(name), answer.get(name)
        if isinstance(old, float) or isinstance(new, float):
            distance = _distance(old, new)
            if distance <= tolerance:
                outcome.largest = max(outcome.largest, distance)
                continue
        elif old == new:
            continue
        differences.append(f"{name} {_show(new)} instead of {_show(old)}")
    if differences:
        outcome.differences.append(f"{expected['id']}: {', '.join(differences)}")


def _distance(old: Any, new: Any) -> float:
    """Return the difference of two numbers, relative to the first where that is above 1."""
    if not all(isinstance(value, int | float) for value in (old, new)):
        return math.inf
    return abs(float(old) - float(new)) / max(1.0, abs(float(old)))


def _show(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def format_replay(outcome: Replay, url: str, folder: str) -> str:
    """Return what a person reads about a comparison whose answers are equal."""
    rate = outcome.count / max(outcome.seconds, 1e-9)
    return (
        f"{url}: {outcome.count} answers equal the predictions of {folder} (largest difference of a number "
        f"{outcome.largest:.1e}); {rate:.1f} examples/s"
    )


def describe_differences(outcome: Replay, url: str, folder: str) -> str:
    """Return the message about answers that differ."""
    lines = [
        f"{url}: {len(outcome.differences)} of {outcome.count} answers differ from the predictions of {folder}:",
        *(f"  {line}" for line in outcome.differences[:MAX_DIFFERENCES]),
    ]
    if more := len(outcome.differences) - MAX_DIFFERENCES:
        lines += [f"  and {more} more"] if more > 0 else []
    return "\n".join(lines)


def to_mapping(outcome: Replay) -> Mapping[str, Any]:
    """Return a comparison as JSON: count, different, largest, seconds, differences."""
    return {
        "count": outcome.count,
        "different": len(outcome.differences),
        "largest": outcome.largest,
        "seconds": round(outcome.seconds, 3),
        "differences": outcome.differences,
    }
