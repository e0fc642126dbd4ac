"""Numbers in messages, tables, pages and JSON."""

import math
import re
from typing import Any


def format_number(value: float, digits: int = 5, grouped: bool = False) -> str:
    """Format a number with a limited number of significant digits.

    All digits before the decimal point are kept below 1e15.

    Args:
        value: The number; it need not be finite.
        digits: Number of significant digits.
        grouped: Whether commas separate thousands.
    """
    comma = "," if grouped else ""
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):{comma}d}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:{comma}.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:{comma}.{digits}g}"


def format_count(count: int, noun: str) -> str:
    """Format a number of things: `1 error`, `2 errors`.

    Args:
        count: The number.
        noun: Singular of a noun whose plural ends in -s.
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def is_finite(value: float) -> bool:
    """Whether a number, also a whole number of any size, is a finite 64-bit float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: `90`, `90s`, `10m`, `1h30m` or `2d`.

    Raises:
        ValueError: The text is no duration above 0.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    days, hours, minutes, seconds = (float(number or 0) for number in match.groups()) if match else (0.0,) * 4
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise ValueError(f"{text!r} is not a duration, such as 90s, 10m or 1h30m")
    return total


def replace_non_finite(value: Any) -> Any:
    """Return a copy of nested mappings and lists with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: replace_non_finite(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
