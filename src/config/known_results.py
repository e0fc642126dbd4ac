"""conf/known_results.yaml: published results of a model on a data set, and the floor that a run must reach."""

from collections.abc import Mapping
from typing import Any

import yaml

from config.tasks import CONF

KNOWN_RESULTS = CONF / "known_results.yaml"
# With any of these it is other data.
_DATA_KEYS = ("path", "train_file", "val_file", "split", "test_split", "max_train", "max_val")


def find_known_result(record: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the row of the table for the model and data of a run.

    Args:
        record: The record of the run.

    Returns:
        The row (`metric`, `floor`, `published`, `source`), or None; and why there is none, else "".
    """
    choices: Mapping[str, Any] = record.get("choices") or {}
    model, data = choices.get("model"), choices.get("data")
    settings = dict(dict(record.get("config") or {}).get("data") or {})
    if changed := [key for key in _DATA_KEYS if settings.get(key) is not None]:
        return None, f"results are known of {data}, but not with data.{changed[0]}"
    for row in yaml.safe_load(KNOWN_RESULTS.read_text(encoding="utf-8")):
        if (row["model"], row["data"]) == (model, data):
            return dict(row), ""
    return None, f"{KNOWN_RESULTS.name} has no result of {model} on {data}"
