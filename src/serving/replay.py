"""Comparison of a server's answers with the predictions of a run: `python -m serving replay`."""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from runs import folder as folders
from runs import predictions
from serving.client import Connections, wait_until_ready

Row = dict[str, Any]
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
    connections = Connections(url)
    rows, expected = _examples(folder, limit)
    wait_until_ready(connections, wait)
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
    from trainers import saved_model

    path = Path(folder) / folders.PREDICTIONS
    if not folders.is_run(folder) or not path.is_file():
        raise InputError(f"run={folder}: no run folder with {folders.PREDICTIONS}, which the answers are compared with")
    expected = {str(row["id"]): row for row in predictions.read(path)}
    model = saved_model.open_model(folder)
    rows, fingerprint = validation_rows(model, "replay")
    if model.record.get("data", {}).get("fingerprints", {}).get("val") != fingerprint:
        raise InputError(
            f"run={folder}: its validation data has changed since it was trained, so that the predictions are of other "
            "examples"
        )
    return islice(rows, limit), expected


def validation_rows(model: Any, command: str) -> tuple[Iterator[Row], str]:
    """Return the inputs of the validation data of a run, and its fingerprint.

    Args:
        model: the SavedModel of a run folder, whose data can be opened on this machine.
        command: for the message, if its task cannot be served.
    """
    from trainers import evaluate
    from trainers.build import build, check_targets

    inputs = tasks.load_member(model.task, "validation_inputs", f"python -m serving {command}")
    config = evaluate.compose_saved(model, [])
    check_targets(config)
    data = build(config, "data")
    data.prepare_data(("val",))
    data.setup("validate")
    return ({**row, "id": str(row["id"])} for row in inputs(data, model.settings)), data.fingerprint("val")


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
