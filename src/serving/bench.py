"""Answers per second and latencies of a server: `python -m serving bench`."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from config import terminal
from config.errors import InputError, UnreachableError
from serving import load
from serving.client import Connections, to_body, wait_until_ready
from serving.replay import validation_rows

logger = logging.getLogger(__name__)

_QUANTILES = {"median_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_WARM_UP_S = 1.0


def run(
    url: str,
    folder: str,
    *,
    clients: Sequence[int],
    rates: Sequence[float],
    seconds: float,
    batch_size: int,
    limit: int,
    wait: float,
) -> list[dict[str, Any]]:
    """Measure a server under several loads, one after the other.

    Args:
        url: of the server.
        folder: the run folder whose validation examples are sent, again and again.
        clients: numbers of clients, each of which sends a request when the one before is answered.
        rates: requests per second at random moments; their latencies count from the moment at which they were due.
        seconds: of each load.
        batch_size: inputs of a request.
        limit: number of different examples.
        wait: seconds for which the server may be unready.

    Returns:
        For each load: clients or rate, seconds, requests (answered), answers_per_second (inputs), median_ms, p95_ms,
        p99_ms (None without an answer), failed: number of requests by status, "none" for those without an answer.

    Raises:
        InputError: the run has no examples for a request, or the server refuses them.
        UnreachableError: the server does not answer.
    """
    from trainers import saved_model

    connections = Connections(url)
    rows, _ = validation_rows(saved_model.open_model(folder), "bench")
    examples = list(islice(rows, limit))
    if not examples:
        raise InputError(f"run={folder}: its validation data has no examples")
    bodies = [to_body(examples[i : i + batch_size]) for i in range(0, len(examples), batch_size)]
    wait_until_ready(connections, wait)
    connections.predict(examples[:batch_size])  # names what is wrong with the examples
    address = f"{url.rstrip('/')}/predict"
    load.closed_loop(address, bodies, max(clients, default=1), min(_WARM_UP_S, seconds))
    measured: list[dict[str, Any]] = []
    planned: list[dict[str, Any]] = [*({"clients": count} for count in clients), *({"rate": rate} for rate in rates)]
    for row in planned:
        logger.info("%s for %g s", _name(row), seconds)
        if "clients" in row:
            outcome = load.closed_loop(address, bodies, int(row["clients"]), seconds)
        else:
            outcome = load.open_loop(address, bodies, row["rate"], seconds)
        if not outcome.latencies and set(outcome.failures) <= {0}:
            raise UnreachableError(f"{url} does not answer any more")
        measured.append({**row, **_to_mapping(outcome, len(examples) / len(bodies))})
    return measured


def _to_mapping(outcome: load.Load, inputs: float) -> dict[str, Any]:
    count = len(outcome.latencies)
    return {
        "seconds": round(outcome.seconds, 3),
        "requests": count,
        "answers_per_second": round(inputs * outcome.rate, 3),
        **{name: round(outcome.quantile(share), 3) if count else None for name, share in _QUANTILES.items()},
        "failed": {str(status) if status else "none": number for status, number in sorted(outcome.failures.items())},
    }


def _name(row: Mapping[str, Any]) -> str:
    if "rate" in row:
        return f"{row['rate']:g} requests/s"
    return f"{row['clients']} client{'s' if row['clients'] > 1 else ''}"


def format_rows(rows: Sequence[Mapping[str, Any]], batch_size: int, width: int) -> str:
    """Return the measurements as a table for a terminal of a width."""
    header = ["load", "answers/s", "ms: 50 %", "95 %", "99 %", "failed, by status"]
    cells = []
    for row in rows:
        latencies = ["-" if row[name] is None else f"{row[name]:.1f}" for name in _QUANTILES]
        failed = ", ".join(
            f"{number} x {status.replace('none', 'no answer')}" for status, number in row["failed"].items()
        )
        cells.append([_name(row), f"{row['answers_per_second']:.1f}", *latencies, failed or "0"])
    note = f"\n{batch_size} inputs in a request" if batch_size > 1 else ""
    return terminal.format_table(header, cells, width, limit=20, flexible=5) + note
