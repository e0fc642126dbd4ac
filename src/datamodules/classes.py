"""Classes of labelled examples: their order, their declared names, and limits spread evenly over them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from config.parsing import parse_json


def class_sort_key(identity: str) -> tuple[int, int, str]:
    """Sorting key of a class id: numbers first, by value, so that class "10" is label 10; then other ids as text."""
    return (0, int(identity), "") if identity.isdecimal() and str(int(identity)) == identity else (1, 0, identity)


def declared_names(schema: Any, column: str = "label") -> list[str] | None:
    """Read the names of a ClassLabel column, as the `datasets` library stores them in a schema.

    Args:
        schema: of pyarrow.
        column: its name.

    Returns:
        The names in the order of the labels; None: not declared.

    Raises:
        InputError: The metadata is not that of the library.
    """
    try:
        value = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        for key in ("info", "features", column):
            value = value.get(key) or {}
        names = value.get("names")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("the names of the classes are not a list of texts")
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"the metadata `huggingface` of a Parquet file is damaged: {error}; write it again without"
        ) from error
    return names


def select_balanced(labels: npt.NDArray[np.int64], limit: int | None) -> npt.NDArray[np.int64]:
    """Select at most `limit` examples: the first of each class, then the second of each, and so on.

    Args:
        labels: [N] class of each example.
        limit: maximum number of examples; None: all.

    Returns:
        Positions, int64 [min(N, limit)], ascending.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)  # of each example within its class
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(np.lexsort((labels, rank))[:limit])


def format_names(names: list[str]) -> str:
    """Format names for a message: the first five, and the number of the rest."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
