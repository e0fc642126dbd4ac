"""Hyperparameters of runs: the keys of their configurations, and which of them tell runs apart."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # a summary of `runs.listing`

# Sections and keys that say where and how a run is stored, or follow from another choice: no columns by default.
_NO_COLUMNS = ("task", "logger", "quality", "explain", "metrics_file", "push_metrics", "population_dir", "monitor")
_NO_COLUMN_KEYS = {"data.cache_dir", "data.workers", "data.verify", "data.contract", "trainer.threads", "init_from"}
_SECTIONS = ("optim", "model", "data", "trainer")


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration by dotted key; lists, which have no order, as JSON text."""
    flat: dict[str, Any] = {}
    levels = [("", iter(config.items()))]  # no recursion: records may be nested deeply
    while levels:
        prefix, items = levels[-1]
        for name, value in items:
            if isinstance(value, dict):
                levels.append((f"{prefix}{name}.", iter(value.items())))
                break
            flat[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, list) else value
        else:
            levels.pop()
    return flat


def overridden_keys(command: Any) -> list[str]:
    """Return the keys that a command line of train.py sets, in its order."""
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    return [word.partition("=")[0].lstrip("+") for word in words if "=" in word]


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the hyperparameters that all of the runs have, and not with one value.

    Keys that a command line sets come first, then those of optim, model, data and trainer. What follows from
    the choice of a model or data set is left out where a command line chooses it: the choice is a column of its own.

    Args:
        rows: Summaries; those without a configuration are ignored.
    """
    configured = [row for row in rows if row["parameters"]]
    if len(configured) < 2:
        return []
    first = configured[0]["parameters"]
    keys = [key for key in first if all(key in row["parameters"] for row in configured) and _is_column(key)]
    groups = {group for group in ("model", "data") if len({row[group] for row in configured}) > 1}
    set_by_user = {key: None for row in configured for key in row["overridden"]}
    keys = [key for key in keys if key.partition(".")[0] not in groups or key in set_by_user]
    keys = [key for key in keys if len({text(row["parameters"][key]) for row in configured}) > 1]
    order = list(set_by_user)

    def rank(key: str) -> tuple[int, int]:
        section = key.partition(".")[0]
        index = order.index(key) if key in set_by_user else len(order)
        return (index, _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS))

    return sorted(keys, key=rank)


def text(value: Any) -> str:
    """Return a value as a command line writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_column(key: str) -> bool:
    return key.partition(".")[0] not in _NO_COLUMNS and key not in _NO_COLUMN_KEYS and not key.endswith("_target_")
