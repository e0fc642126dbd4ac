"""The benchmark gate: published results of a model on a data set, and the floor that a run must reach."""

from collections.abc import Mapping
from typing import Any

import yaml

from config.tasks import CONF
from pipelines.verdict import Verdict

KNOWN_RESULTS = CONF / "known_results.yaml"
_DATA_KEYS = ("path", "train_file", "val_file", "max_train", "max_val")  # with any of these it is other data


def check_benchmark(record: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Compare a run with the floor for its model and data.

    Args:
        record: The record of the run.

    Returns:
        The verdict (status `none` without a known result), and the source of the result.
    """
    choices: Mapping[str, Any] = record.get("choices") or {}
    model, data = choices.get("model"), choices.get("data")
    settings = dict(dict(record.get("config") or {}).get("data") or {})
    if changed := [key for key in _DATA_KEYS if settings.get(key) is not None]:
        return Verdict("none", f"results are known of {data}, but not with data.{changed[0]}"), ""
    for row in yaml.safe_load(KNOWN_RESULTS.read_text(encoding="utf-8")):
        if (row["model"], row["data"]) == (model, data):
            value = float(record["metrics"][row["metric"]])
            reason = f"{row['metric']} {value:.1f}, floor {row['floor']:g}, published {row['published']:g}"
            return Verdict("passed" if value >= row["floor"] else "failed", reason), f"Source: {row['source']}."
    return Verdict("none", f"{KNOWN_RESULTS.name} has no result of {model} on {data}"), ""
