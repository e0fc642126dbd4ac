"""The one format of numbers for people."""


def format_number(value: float, digits: int = 5, grouped: bool = False) -> str:
    """A number as text: so many significant digits at most, but all those of its whole part (below 1e15).

    Args:
        value: whole or not, finite or not.
        digits: significant digits.
        grouped: a comma between thousands.
    """
    comma = "," if grouped else ""
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):{comma}d}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:{comma}.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:{comma}.{digits}g}"
