"""Reads rows of CSV and Parquet files, local ones and fsspec URLs; errors name the file and the place in it."""

import csv
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from config.errors import InputError

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
    """What a value of JSON is called in messages."""
    return TYPE_NAMES.get(type(value), type(value).__name__)


def clean(text: str) -> str:
    """A text that UTF-8 can hold: half of a surrogate pair is no character. One for one, so that offsets stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


@contextmanager
def opened(file: str, compression: str | None = "infer") -> Iterator[IO[bytes]]:
    """A file as a stream of bytes.

    Args:
        file: local path or fsspec URL.
        compression: "infer" decompresses `.gz`; None leaves bytes as they are.

    Raises:
        InputError: it cannot be opened, or not read to its end.
    """
    import fsspec

    try:
        with fsspec.open(file, "rb", compression=compression) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, ImportError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def csv_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, in UTF-8.

    Args:
        file: local path or fsspec URL.
        columns: that must be there.

    Yields:
        The row's place ("data.csv: line 3") and the row, all of its columns.

    Raises:
        InputError: a column is missing, or the file is no CSV.
    """
    csv.field_size_limit(2**31 - 1)  # else no field may have more than 131,072 characters
    with opened(file) as stream:
        try:
            rows = csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), strict=True)
            require(file, columns, rows.fieldnames or ())
            for row in rows:
                place = f"{file}: line {rows.line_num}"
                if None in row or None in row.values():
                    raise InputError(
                        f"{place}: it has {'more' if None in row else 'fewer'} columns than the first line"
                    )
                yield place, row
        except csv.Error as error:
            raise InputError(f"{file}: not readable as CSV near line {rows.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 text: {error.reason}") from error


def parquet_rows(
    file: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file, batch by batch.

    Args:
        file: local path or fsspec URL.
        columns: to read.
        optional: those of them that may be missing.

    Yields:
        The row's place ("data.parquet: row 3") and the row.

    Raises:
        InputError: a column is missing, or the file is no Parquet.
    """
    with parquet(file) as table:
        names = table.schema_arrow.names
        require(file, [name for name in columns if name not in optional], names)
        number = 0
        for batch in table.iter_batches(batch_size=BATCH, columns=[name for name in columns if name in names]):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", row


@contextmanager
def parquet(file: str) -> Iterator[Any]:
    """A Parquet file, opened with pyarrow.

    Raises:
        InputError: it cannot be read as one.
    """
    import pyarrow
    import pyarrow.parquet

    with opened(file, compression=None) as stream:
        try:
            yield pyarrow.parquet.ParquetFile(stream)
        except pyarrow.ArrowException as error:
            raise InputError(f"{file}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def require(file: str, columns: Sequence[str], names: Sequence[str]) -> None:
    """Refuses a file that lacks a column.

    Args:
        file: for the message.
        columns: that must be there.
        names: of the columns that are.

    Raises:
        InputError: the message lists those that are.
    """
    for column in columns:
        if column not in names:
            raise InputError(f"{file}: the column {column!r} is missing; found {', '.join(names) or 'none'}")
