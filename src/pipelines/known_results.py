"""The benchmark gate: what is known of a model on a data set, and whether a run reached it."""

from collections.abc import Mapping
from typing import Any

import yaml

from config.tasks import CONF

KNOWN_RESULTS = CONF / "known_results.yaml"


def check_benchmark(found: Mapping[str, Any]) -> tuple[str, str]:
    """Compares a run with the floor for its model and data.

    Args:
        found: its run.json.

    Returns:
        The verdict (`none: …` where nothing is known), and a text about it with the source.
    """
    choices: Mapping[str, Any] = found.get("choices") or {}
    model, data = choices.get("model"), choices.get("data")
    own = dict(dict(found.get("config") or {}).get("data") or {})
    if other := [key for key in ("path", "train_file", "val_file", "max_train", "max_val") if own.get(key) is not None]:
        return f"none: results are known of {data} as it is, not with data.{other[0]}", "Other data than the published."
    for each in yaml.safe_load(KNOWN_RESULTS.read_text(encoding="utf-8")):
        if (each["model"], each["data"]) == (model, data):
            value = float(found["metrics"][each["metric"]])
            said = f"{each['metric']} {value:.1f}, floor {each['floor']:g}, published {each['published']:g}"
            status = "passed" if value >= each["floor"] else "failed"
            return f"{status}: {said}", f"{said} ({each['source']})."
    return f"none: nothing is known of {model} on {data}", f"{KNOWN_RESULTS.name} has no row for {model} on {data}."
