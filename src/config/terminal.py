"""Text for a terminal of so many columns, whatever is in the names."""

import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from config.numbers import format_number


def terminal_width() -> int:
    """Width to print to: that of the terminal, 80 where there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def make_printable(value: object) -> str:
    """A value as one line of harmless text: control characters and broken Unicode show as escapes."""
    text = value if isinstance(value, str) else str(value)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def text_width(text: str) -> int:
    """Columns a terminal gives to printable text: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def shorten(text: str, room: int, keep: str = "head") -> str:
    """Text of at most so many columns; what is cut shows as `...`. keep="tail" keeps the end (for paths)."""
    if text_width(text) <= room:
        return text
    if room <= 3:
        return "." * room
    chars = list(text)
    while text_width("".join(chars)) > room - 3:
        chars.pop(0 if keep == "tail" else -1)
    return "..." + "".join(chars) if keep == "tail" else "".join(chars) + "..."


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], room: int, limit: int = 16) -> str:
    """Aligned columns, two blanks apart; the first, a path, gives way where they do not fit.

    Args:
        header: column titles.
        rows: printable cells, as many each as there are titles.
        room: columns of the terminal.
        limit: of each column but the first.
    """
    widths = [max(text_width(row[index]) for row in [header, *rows]) for index in range(len(header))]
    widths = [widths[0], *(min(wide, limit) for wide in widths[1:])]
    widths[0] = max(8, min(widths[0], room - sum(widths[1:]) - 2 * (len(header) - 1)))
    lines = []
    for row in [header, *rows]:
        cells = [
            shorten(cell, wide, "head" if index else "tail")
            for index, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        padded = [cell + " " * (wide - text_width(cell)) for cell, wide in zip(cells, widths, strict=True)]
        lines.append(shorten("  ".join(padded).rstrip(), room))
    return "\n".join(lines)


def format_entry(name: str, text: str, room: int, indent: int = 11) -> str:
    """`name  text`, wrapped under itself."""
    head = f"{name:<{indent - 1}} "
    lines = textwrap.wrap(text, room, initial_indent=head, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(lines) or head.rstrip()


def format_value(value: object) -> str:
    """A metric for people: five significant digits, or as many as a whole number has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return make_printable(value)
    return format_number(value)


def format_duration(seconds: object) -> str:
    """Seconds as `8.1 s`, `3:20` (minutes) or `2:03:20` (hours)."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_timestamp(stamp: object) -> str:
    """A time of ours (UTC) without its fractions."""
    try:
        return datetime.fromisoformat(str(stamp)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return "-"
