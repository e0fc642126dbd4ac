"""Fields of a record, which may be missing, or of another shape, in a run that somebody else wrote."""

from typing import Any


def as_mapping(value: Any) -> dict[str, Any]:
    """A value of a record that should be a mapping; empty if it is not."""
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
