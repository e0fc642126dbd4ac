"""Classes of labelled examples: their order, their declared names, and limits that are even over them."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt


def class_order(identity: str) -> tuple[int, int, str]:
    """The sorting key of a class's id: numbers in their own order, so that class "10" is label 10; then all else, as text."""
    return (0, int(identity), "") if identity.isdecimal() and str(int(identity)) == identity else (1, 0, identity)


def declared_names(schema: Any, column: str = "label") -> list[str] | None:
    """The names of a ClassLabel column, as the `datasets` library writes them beside the schema.

    Args:
        schema: of pyarrow.
        column: its name.
    """
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names") if isinstance(feature, dict) else None


def balanced(labels: npt.NDArray[np.int64], limit: int | None) -> npt.NDArray[np.int64]:
    """Positions of at most `limit` examples: the first of each class, then the second of each, and so on.

    Args:
        labels: [N] class of each example.
        limit: how many to take; None takes all.

    Returns:
        int64 [min(N, limit)], ascending.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    turn = np.empty(len(labels), np.int64)  # how many of its class come before each
    turn[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(np.lexsort((labels, turn))[:limit])


def listed(names: list[str]) -> str:
    """Names for a message: the first five, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
