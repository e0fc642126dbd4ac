"""Text for a terminal: tables, wrapped entries, numbers, durations, and names with unprintable characters."""

import contextlib
import io
import logging
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TextIO

from config.numbers import format_number

INDENT = 11  # columns before the text of an entry

_FOLD_INDENT = "    "  # before the further lines of a folded text


def fold(text: str, stream: TextIO) -> str:
    """Break a text at blanks into lines of the terminal's width, the further ones indented; in a pipe it stays whole.

    Text in single quotes is not broken, so that it can be copied.

    Args:
        text: One or several lines.
        stream: Where it is printed.
    """
    if not stream.isatty():
        return text
    return "\n".join(_fold_line(line, terminal_width()) for line in text.split("\n"))


@contextlib.contextmanager
def folded_help() -> Iterator[None]:
    """Fold the lines of Hydra's --help, which lists all choices of a group in one, to the terminal's width."""
    if not {"-h", "--help"} & set(sys.argv[1:]):
        yield
        return
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:  # Hydra exits
        print("\n".join(_fold_line(line, terminal_width()) for line in text.getvalue().rstrip().split("\n")))


def _fold_line(line: str, width: int) -> str:
    quoted = re.sub(r"'[^']*'", lambda match: match[0].replace(" ", "\0"), line)
    if len(line) <= width:
        return line
    lines = textwrap.wrap(quoted, width, subsequent_indent=_FOLD_INDENT, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


class LogFormatter(logging.Formatter):
    """Formats log messages, folded on a terminal (`fold`)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the folded message."""
        return fold(super().format(record), sys.stderr)


def terminal_width() -> int:
    """Return the number of columns of the terminal, at least 40; 80 without a terminal."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def make_printable(value: object) -> str:
    """Return a value as one line of text, with control characters and broken Unicode as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))


def text_width(text: str) -> int:
    """Return the columns that printable text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def shorten(text: str, width: int, keep: str = "head") -> str:
    """Cut text to a number of columns, with `...` in place of the rest.

    Args:
        text: Printable text.
        width: Maximum number of columns.
        keep: "head" cuts the end, "tail" the beginning (for paths).
    """
    if text_width(text) <= width:
        return text
    if width <= 3:
        return "." * width
    chars = list(text)
    while text_width("".join(chars)) > width - 3:
        chars.pop(0 if keep == "tail" else -1)
    return "..." + "".join(chars) if keep == "tail" else "".join(chars) + "..."


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, limit: int = 16, flexible: int = 0
) -> str:
    """Format aligned columns, two blanks apart. Cells of the first column, paths, lose their beginning when shortened.

    Args:
        header: Column titles.
        rows: Printable cells, one for each title.
        width: Columns of the terminal.
        limit: Maximum width of each column except the flexible one.
        flexible: Index of the column that is shortened to fit the terminal.
    """
    widths = [max(text_width(row[index]) for row in [header, *rows]) for index in range(len(header))]
    widths = [size if index == flexible else min(size, limit) for index, size in enumerate(widths)]
    available = width - (sum(widths) - widths[flexible]) - 2 * (len(header) - 1)
    widths[flexible] = max(8, min(widths[flexible], available))
    lines = []
    for row in [header, *rows]:
        cells = [
            shorten(cell, size, "head" if index else "tail")
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        padded = [cell + " " * (size - text_width(cell)) for cell, size in zip(cells, widths, strict=True)]
        lines.append(shorten("  ".join(padded).rstrip(), width))
    return "\n".join(lines)


def format_entry(name: str, text: str, width: int) -> str:
    """Format `name  text`, with the text wrapped and indented by `INDENT` columns.

    Args:
        name: Name in front of the text.
        text: Printable text.
        width: Columns of the terminal.
    """
    head = f"{name:<{INDENT - 1}} "
    lines = textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * INDENT, break_on_hyphens=False)
    return "\n".join(lines) or head.rstrip()


def format_value(value: object) -> str:
    """Format a number with five significant digits, and any other value as printable text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return make_printable(value)
    return format_number(value)


def format_duration(seconds: object) -> str:
    """Format seconds as `8.1 s`, `3:20` (minutes) or `2:03:20` (hours); `-` for anything else."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_timestamp(stamp: object) -> str:
    """Format a time stamp of a record (UTC) without fractions of a second; `-` for anything else."""
    try:
        return datetime.fromisoformat(str(stamp)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return "-"
