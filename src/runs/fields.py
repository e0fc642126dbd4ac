"""Access to nested fields of a record. Foreign records may lack a field, or have another type of value in it."""

from collections.abc import Mapping
from typing import Any


def as_mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Return whether the value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`.

    Args:
        tree: Nested mappings. Lists and empty mappings are values.
        prefix: Prefix of every key.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
