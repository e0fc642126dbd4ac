"""Reads texts with their labels from CSV, JSON Lines and Parquet files, row by row, as leniently as can be.

What is wrong with a row stands in the record: a data contract counts it, `datamodules.text.labelled_texts` refuses it.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import balanced, class_order, declared_names
from datamodules.text import reading
from datamodules.text.json_stream import Scanner

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet", ".csv.gz", ".jsonl.gz", ".ndjson.gz")


@dataclass(frozen=True)
class Columns:
    """Which column is what.

    Attributes:
        text: the text.
        text_pair: a second text that belongs to it; None: there is none.
        label: the class: text, a whole number, or true or false.
        id: unique in a split; None: the column `id` if there is one, else file and row.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    id: str | None = None


class Record(NamedTuple):
    """One row.

    Attributes:
        id: as its column says, else file and row.
        text: None where there is none.
        pair: the second text, "" where there is none.
        label: id of its class; None where there is none, or none that can be.
        place: file and line or row, for messages.
        problem: what keeps it from being an example; "" for nothing.
    """

    id: str
    text: str | None
    pair: str
    label: str | None
    place: str
    problem: str


@dataclass(frozen=True)
class Listing:
    """The labels of all rows.

    Attributes:
        classes: ids, in the order of labels: as declared, else sorted (numbers in their own order).
        labels: int64 [N] positions in `classes`; len(classes) where a row has no label.
        declared: whether the files declare their classes, as Parquet files of the Hub do.
    """

    classes: list[str]
    labels: npt.NDArray[np.int64]
    declared: bool

    def rows(self, limit: int | None) -> npt.NDArray[np.int64]:
        """Positions of the rows that count: at most `limit`, evenly over the classes, ascending."""
        return balanced(self.labels, limit)

    @property
    def present(self) -> list[str]:
        """The classes that occur."""
        return [self.classes[position] for position in np.unique(self.labels) if position < len(self.classes)]


def parse_columns(settings: Mapping[str, Any] | None) -> Columns:
    """The columns of a configuration.

    Args:
        settings: those that are named otherwise than by default.

    Raises:
        InputError: an unknown key, or a name that is no text.
    """
    names = [field.name for field in fields(Columns)]
    for key, value in (settings or {}).items():
        if key not in names:
            raise InputError(f"data.columns has no key {key}; it has {', '.join(names)}")
        optional = key in ("text_pair", "id")
        if not (isinstance(value, str) and value) and not (optional and value is None):
            raise InputError(f"data.columns.{key}={value} must be the name of a column{' or null' if optional else ''}")
    return Columns(**(settings or {}))


def survey(files: Sequence[str], columns: Columns) -> Listing:
    """Reads the labels of all rows.

    Args:
        files: local paths or fsspec URLs.
        columns: which column is what.

    Raises:
        InputError: files that cannot be read, or that lack the column.
    """
    numbers: dict[str, int] = {}
    found = array("q")
    declared: list[str] | None = None
    for file in files:
        names = _declared(file, columns.label)
        declared = names or declared
        for _, row in _rows(file, [columns.label], [columns.label]):
            label, _ = _label(row.get(columns.label), names)
            found.append(-1 if label is None else numbers.setdefault(label, len(numbers)))
    classes = [*(declared or []), *sorted(set(numbers) - set(declared or []), key=class_order)]
    position = {name: index for index, name in enumerate(classes)}
    mapping = np.array([*(position[name] for name in numbers), len(classes)], np.int64)  # the last is "no label"
    return Listing(classes, mapping[np.frombuffer(found, np.int64)], declared is not None)


def read(
    files: Sequence[str],
    columns: Columns,
    limit: int | None = None,
    labelled: bool = True,
    listing: Listing | None = None,
) -> Iterator[Record]:
    """Yields the rows of some files, in order, whatever is wrong with them.

    Args:
        files: local paths or fsspec URLs.
        columns: which column is what.
        limit: at most so many rows, evenly over the classes.
        labelled: whether there must be labels; texts to predict need none.
        listing: of these files, if it is known already.

    Raises:
        InputError: files that cannot be read at all, or that lack a column.
    """
    chosen = None
    if limit is not None:
        chosen = set((listing or survey(files, columns)).rows(limit).tolist())
    required = [columns.text, *([columns.label] if labelled else [])]
    required += [name for name in (columns.text_pair, columns.id) if name is not None]
    wanted = list(dict.fromkeys([*required, columns.label, *([] if columns.id else ["id"])]))
    number = 0
    for file in files:
        names = _declared(file, columns.label)
        stem = PurePosixPath(file).name.split(".")[0].split("-of-")[0]
        for row, (place, values) in enumerate(_rows(file, required, wanted)):
            if chosen is None or number in chosen:
                yield _record(values, columns, names, f"{stem}/{row}", place, labelled)
            number += 1


def _record(
    values: Mapping[str, Any], columns: Columns, names: list[str] | None, default: str, place: str, labelled: bool
) -> Record:
    identity, problems = _identity(values, columns, default)
    text, problem = _text(values, columns.text)
    problems.append(problem)
    pair: str | None = ""
    if columns.text_pair is not None and values.get(columns.text_pair) is not None:
        pair, problem = _text(values, columns.text_pair)
        problems.append(problem)
    label, problem = _label(values.get(columns.label), names)
    if labelled:
        problems.append(problem)
    return Record(identity, text, pair or "", label, place, next(filter(None, problems), ""))


def _identity(values: Mapping[str, Any], columns: Columns, default: str) -> tuple[str, list[str]]:
    """The id, and what is wrong with it."""
    value = values.get(columns.id or "id")
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return reading.clean(str(value)), []
    if columns.id is None:
        return default, []
    return default, [f"the id ({columns.id!r}) must be text or a whole number, not {reading.type_name(value)}"]


def _text(values: Mapping[str, Any], column: str) -> tuple[str | None, str]:
    """A text, and what is wrong with it."""
    value = values.get(column)
    if isinstance(value, str):
        return reading.clean(value), ""
    if column not in values:
        return None, f"the key {column!r} is missing; found {', '.join(map(str, values)) or 'none'}"
    return None, f"{column!r} must be text, not {reading.type_name(value)}"


def _label(value: Any, names: list[str] | None) -> tuple[str | None, str]:
    """The id of a class, and what is wrong with it."""
    if value is None or value == "":
        return None, "it has no label"
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, int) and names is not None:
        if 0 <= value < len(names):
            return names[value], ""
        return None, f"the label {value} is out of range (0 to {len(names) - 1})"
    if isinstance(value, str | int):
        return reading.clean(str(value)), ""
    return None, f"the label must be text, a whole number, or true or false, not {reading.type_name(value)}"


def _declared(file: str, column: str) -> list[str] | None:
    """The classes that a Parquet file declares."""
    if not file.endswith(".parquet"):
        return None
    with reading.parquet(file) as table:
        return declared_names(table.schema_arrow, column)


def _rows(file: str, required: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, of any layout, each with its place."""
    if file.endswith(".parquet"):
        optional = [name for name in wanted if name not in required]
        return reading.parquet_rows(file, wanted, optional)
    if re.search(r"\.(jsonl|ndjson)(\.gz)?$", file):
        return _json_lines(file, required)
    if re.search(r"\.csv(\.gz)?$", file):
        return reading.csv_rows(file, required)
    raise InputError(f"{file}: not a file of texts; its name must end with {', '.join(SUFFIXES)}")


def _json_lines(file: str, required: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with reading.opened(file) as stream:
        for number, (line, value) in enumerate(Scanner(stream, file).lines()):
            place = f"{file}: {line}"
            if not isinstance(value, dict):
                keys = " and ".join(map(repr, required))
                raise InputError(f"{place}: expected an object with {keys}, found {reading.type_name(value)}")
            if number == 0:  # a column is misnamed in the configuration; in a later row, the row is wrong
                reading.require(file, required, list(value))
            yield place, value
