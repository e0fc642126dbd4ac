"""Latency, throughput and size of two models, measured in turns."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config import tasks
from serving.model import keyed_row
from trainers.saved_model import SavedModel

WARM_UP = 5
BATCH_SIZE = 8
ROUNDS = 3  # of the throughput
SECONDS = 120.0  # after which no further request is made


def measure(models: Sequence[SavedModel], inputs: Sequence[Mapping[str, Any]], requests: int) -> list[dict[str, float]]:
    """Measure the predictors of models, as they are served, in turns.

    Args:
        models: the models.
        inputs: of `validation_inputs`.
        requests: number of requests of one input for each model; less if they take more than `SECONDS`.

    Returns:
        For each model: median_ms, p95_ms and p99_ms of a request, examples_per_second in batches of 8, size_mib, requests.
    """
    predictors = [tasks.load_member(model.task, "predictor", "python -m serving export")(model) for model in models]
    rows = [[keyed_row(predictor, row) for row in inputs] for predictor in predictors]
    latencies: list[list[float]] = [[] for _ in models]
    start = time.monotonic()
    for number in range(WARM_UP + requests):
        # The order changes, so that none is always the one after the other.
        for index in sorted(range(len(models)), reverse=number % 2 == 1):
            seconds = _seconds(predictors[index], [rows[index][number % len(inputs)]], 1)
            if number >= WARM_UP:
                latencies[index].append(1000 * seconds)
        if number >= WARM_UP and time.monotonic() - start > SECONDS:
            break
    rates: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for index in range(len(models)):
            rates[index].append(len(inputs) / _seconds(predictors[index], rows[index], BATCH_SIZE))
    return [
        {
            **{
                name: float(np.percentile(values, q)) for name, q in (("median_ms", 50), ("p95_ms", 95), ("p99_ms", 99))
            },
            "examples_per_second": float(np.median(rate)),
            "size_mib": folder_size(model.folder) / 2**20,
            "requests": len(values),
        }
        for model, values, rate in zip(models, latencies, rates, strict=True)
    ]


def folder_size(folder: Path) -> int:
    """Return the bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _seconds(predictor: Any, rows: Sequence[Mapping[str, Any]], batch_size: int) -> float:
    start = time.perf_counter()
    predictor.predict(rows, batch_size)
    return time.perf_counter() - start
