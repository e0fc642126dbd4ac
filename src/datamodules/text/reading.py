"""Reader of rows of CSV and Parquet files, local ones and fsspec URLs; errors name the file and the line or row."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from config.errors import InputError
from datamodules.sources.files import open_file, open_parquet, rows_per_batch

MAX_TEXT = 1 << 28  # characters of a line, or of a field of CSV
BATCH = 512  # rows of Parquet read at a time
_SURROGATE = re.compile("[\ud800-\udfff]")
TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    list: "a list",
    dict: "an object",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def type_name(value: Any) -> str:
    """Return the name of a JSON value's type for messages."""
    return TYPE_NAMES.get(type(value), type(value).__name__)


def replace_surrogates(text: str) -> str:
    """Replace each unpaired surrogate, which UTF-8 cannot encode, by one character, so that offsets stay valid."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def csv_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV file with a header, in UTF-8.

    Args:
        file: local path or fsspec URL.
        columns: required columns.

    Yields:
        The row's location ("data.csv: line 3") and the row, with all of its columns.

    Raises:
        InputError: a column is missing, or the file is not CSV.
    """
    csv.field_size_limit(MAX_TEXT)  # the default is 131,072 characters
    with open_file(file) as stream:
        try:
            lines = limited_lines(io.TextIOWrapper(stream, "utf-8-sig", newline=""), file)
            rows = csv.DictReader(lines, strict=True)
            require_columns(file, columns, rows.fieldnames or ())
            for row in rows:
                location = f"{file}: line {rows.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{location}: {'more' if None in row else 'fewer'} columns than in the first line")
                yield location, row
        except csv.Error as error:
            raise InputError(f"{file}: not readable as CSV near line {rows.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 text: {error.reason}") from error


def parquet_rows(
    file: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file, batch by batch.

    Args:
        file: local path or fsspec URL.
        columns: to read.
        optional: those of them that may be missing.

    Yields:
        The row's location ("data.parquet: row 3") and the row.

    Raises:
        InputError: a column is missing, or the file is not Parquet.
    """
    with open_parquet(file) as table:
        names = table.schema_arrow.names
        require_columns(file, [name for name in columns if name not in optional], names)
        number = 0
        size = rows_per_batch(table, columns, BATCH)
        for batch in table.iter_batches(batch_size=size, columns=[name for name in columns if name in names]):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", row


def limited_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a text file.

    Raises:
        InputError: a line that is too long to be in memory.
    """
    number = 0
    while line := stream.readline(MAX_TEXT + 1):
        number += 1
        if len(line) > MAX_TEXT:
            raise InputError(f"{name}: line {number} has more than {MAX_TEXT:,} characters; is it a text file?")
        yield line


def require_columns(file: str, columns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a file that lacks a column.

    Args:
        file: for the message.
        columns: required columns.
        names: the file's columns.

    Raises:
        InputError: a column is missing; the message lists the file's columns.
    """
    for column in columns:
        if column not in names:
            raise InputError(f"{file}: the column {column!r} is missing; found {', '.join(names) or 'none'}")
