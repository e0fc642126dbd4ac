"""How old a face looks: a task as somebody else would write it. It leaves out what it has no use for."""

from collections.abc import Mapping
from typing import Any

USE = "Tells how old a face looks."
MISTAKE_COLUMNS = {"face": "i", "age": "n", "it says": "n"}
MISTAKE_ORDER = "the furthest off first"


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    error = row["prediction"] - row["age"]
    return {"val_mae": abs(error), "val_within_5": 100.0 * is_correct(row), "val_bias": error}


def is_correct(row: Mapping[str, Any]) -> bool:
    return bool(abs(row["prediction"] - row["age"]) <= 5)


def mistake_key(row: Mapping[str, Any]) -> Any:
    return -abs(row["prediction"] - row["age"])


def mistake(row: Mapping[str, Any]) -> list[Any]:
    return [row["id"], f"{row['age']:.0f}", f"{row['prediction']:.1f}"]
