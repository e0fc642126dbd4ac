"""Reader of rows of CSV, TSV and Parquet files, local ones and fsspec URLs; errors name the file and the line or row."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TextIO

from config.errors import InputError
from datamodules.sources.files import open_file, open_parquet, rows_per_batch
from datamodules.text import columns as column_names

MAX_TEXT = 1 << 28  # characters of a line, or of a field of CSV
BATCH = 512  # rows of Parquet read at a time
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
TABLE = re.compile(r"\.(csv|tsv)(\.gz)?$")
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


def csv_rows(file: str, required: Sequence[str], columns: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV or TSV file with a header, in UTF-8.

    Args:
        file: local path or fsspec URL.
        required: names of required columns.
        columns: the names of columns by field, for messages.

    Yields:
        The row's location ("data.csv: line 3") and the row, with all of its columns.

    Raises:
        InputError: a column is missing, or the file is not such a table.
    """
    csv.field_size_limit(MAX_TEXT)  # the default is 131,072 characters
    with open_file(file) as stream:
        line_number = 1
        try:
            lines = limited_lines(io.TextIOWrapper(stream, "utf-8-sig", newline=""), file)
            header = next(lines, "")
            delimiter = "\t" if re.search(r"\.tsv(\.gz)?$", file) else _find_delimiter(file, header, required)
            rows = csv.DictReader(chain([header], lines), strict=True, delimiter=delimiter)
            column_names.require(file, required, rows.fieldnames or (), columns)
            for row in rows:
                line_number = rows.line_num
                location = f"{file}: line {line_number}"
                if None in row or None in row.values():
                    raise InputError(f"{location}: {'more' if None in row else 'fewer'} columns than in the first line")
                yield location, row
        except csv.Error as error:
            raise InputError(f"{file}: not readable as CSV near line {line_number}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 text: {error.reason}") from error


def _find_delimiter(file: str, header: str, required: Sequence[str]) -> str:
    """Return the delimiter of a CSV file: the one that separates the names of the required columns in its first line.

    Raises:
        InputError: no name of a required column is found in the same way by two delimiters.
    """
    names = {delimiter: next(csv.reader([header], delimiter=delimiter), []) for delimiter in DELIMITERS}
    present = [delimiter for delimiter in DELIMITERS if len(names[delimiter]) > 1] or [","]
    fitting = [delimiter for delimiter in present if set(required) <= set(names[delimiter])]
    if fitting:
        return fitting[0]  # with two of them, the required columns are separated by the same characters
    counts = {delimiter: len(names[delimiter]) for delimiter in present}
    most = [delimiter for delimiter, count in counts.items() if count == max(counts.values())]
    if len(most) > 1:
        kinds = " and ".join(DELIMITERS[delimiter] for delimiter in most)
        raise InputError(
            f"{file}: the first line has as many {kinds}, and none of them separates the columns {', '.join(required)}: "
            f"{header.strip()[:200]}"
        )
    return most[0]


def parquet_rows(
    file: str, requested: Sequence[str], required: Sequence[str], columns: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file, batch by batch.

    Args:
        file: local path or fsspec URL.
        requested: names of the columns to read, as far as the file has them.
        required: names of those that it must have.
        columns: the names of columns by field, for messages.

    Yields:
        The row's location ("data.parquet: row 3") and the row.

    Raises:
        InputError: a column is missing, or the file is not Parquet.
    """
    with open_parquet(file) as table:
        names = table.schema_arrow.names
        column_names.require(file, required, names, columns)
        number = 0
        size = rows_per_batch(table, requested, BATCH)
        for batch in table.iter_batches(batch_size=size, columns=[name for name in requested if name in names]):
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
