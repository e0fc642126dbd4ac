"""Reader of texts with labels from CSV, TSV, JSON Lines and Parquet files, row by row.

A defect of a row is noted in its record: a data contract counts it, `datamodules.text.labelled_texts` refuses it.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import class_sort_key, declared_names, select_balanced
from datamodules.sources.files import open_file, open_parquet
from datamodules.text import columns as column_names
from datamodules.text.json_stream import Scanner
from datamodules.text.reading import TABLE, csv_rows, parquet_rows, replace_surrogates, type_name

PLAIN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SUFFIXES = (*PLAIN_SUFFIXES, ".parquet", *(f"{suffix}.gz" for suffix in PLAIN_SUFFIXES))


@dataclass(frozen=True)
class Columns:
    """Names of the columns.

    Attributes:
        text: of the text.
        text_pair: of a second text that belongs to it; None: there is none.
        label: of the class: text, a whole number, or true or false.
        id: of ids that are unique in a split; None: the column `id` if there is one, else file and row.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    id: str | None = None


class Record(NamedTuple):
    """One row.

    Attributes:
        id: from its column, else file and row.
        text: None if missing.
        pair: the second text; "" without one.
        label: id of its class; None if missing or invalid.
        location: file and line or row, for messages.
        problem: why the row is not a valid example; "" if it is.
        group: value of the column by which examples are split, if there is one.
    """

    id: str
    text: str | None
    pair: str
    label: str | None
    location: str
    problem: str
    group: str = ""


@dataclass(frozen=True)
class LabelSurvey:
    """The labels of all rows.

    Attributes:
        classes: ids, in the order of labels: as declared, else sorted (numbers by value).
        labels: int64 [N] positions in `classes`; len(classes) for a row without a label.
        declared: whether the files declare their classes, as Parquet files of the Hub do.
        selected: bool [N] the rows that count; None: all.
    """

    classes: list[str]
    labels: npt.NDArray[np.int64]
    declared: bool
    selected: npt.NDArray[np.bool_] | None = None

    def rows(self, limit: int | None) -> npt.NDArray[np.int64]:
        """Return the positions of at most `limit` rows, spread evenly over the classes, ascending."""
        if self.selected is None:
            return select_balanced(self.labels, limit)
        positions = np.flatnonzero(self.selected)
        return positions[select_balanced(self.labels[positions], limit)]

    @property
    def present(self) -> list[str]:
        """The classes that occur in the rows."""
        labels = self.labels if self.selected is None else self.labels[self.selected]
        return [self.classes[position] for position in np.unique(labels) if position < len(self.classes)]


def survey(files: Sequence[str], columns: Columns) -> LabelSurvey:
    """Read the labels of all rows.

    Args:
        files: local paths or fsspec URLs.
        columns: names of the columns.

    Raises:
        InputError: files that cannot be read, or that lack the column.
    """
    numbers: dict[str, int] = {}
    label_numbers = array("q")
    declared: list[str] | None = None
    for file in files:
        names = _declared(file, columns.label)
        declared = names or declared
        for _, row in _rows(file, [columns.label], [columns.label], columns):
            label, _ = _label(row.get(columns.label), names)
            label_numbers.append(-1 if label is None else numbers.setdefault(label, len(numbers)))
    classes = [*(declared or []), *sorted(set(numbers) - set(declared or []), key=class_sort_key)]
    position = {name: index for index, name in enumerate(classes)}
    mapping = np.array([*(position[name] for name in numbers), len(classes)], np.int64)  # the last is "no label"
    return LabelSurvey(classes, mapping[np.frombuffer(label_numbers, np.int64)], declared is not None)


def read(
    files: Sequence[str],
    columns: Columns,
    limit: int | None = None,
    labelled: bool = True,
    labels: LabelSurvey | None = None,
    group: str | None = None,
) -> Iterator[Record]:
    """Yield the rows of some files, in order, valid or not.

    Args:
        files: local paths or fsspec URLs.
        columns: names of the columns.
        limit: maximum number of rows, spread evenly over the classes; None: all.
        labelled: whether labels are required; texts to predict need none.
        labels: of these files, if they were surveyed before, or if only some rows are selected.
        group: column whose values become `Record.group`.

    Raises:
        InputError: files that cannot be read at all, or that lack a column.
    """
    selection = None
    if limit is not None or (labels is not None and labels.selected is not None):
        selection = set((labels or survey(files, columns)).rows(limit).tolist())
    required = [columns.text, *([columns.label] if labelled else [])]
    required += [name for name in (columns.text_pair, columns.id, group) if name is not None]
    requested = list(dict.fromkeys([*required, columns.label, *([] if columns.id else ["id"])]))
    number = 0
    for file in files:
        names = _declared(file, columns.label)
        stem = PurePosixPath(file).name.split(".")[0].split("-of-")[0]
        for row, (location, values) in enumerate(_rows(file, required, requested, columns)):
            if selection is None or number in selection:
                record = _record(values, columns, names, f"{stem}/{row}", location, labelled)
                yield record if group is None else record._replace(group=str(values.get(group)))
            number += 1


def _record(
    values: Mapping[str, Any], columns: Columns, names: list[str] | None, default: str, location: str, labelled: bool
) -> Record:
    identity, id_problem = _identity(values, columns, default)
    text, problem = _text(values, columns.text)
    problems = [id_problem, problem]
    pair: str | None = ""
    if columns.text_pair is not None and values.get(columns.text_pair) is not None:
        pair, problem = _text(values, columns.text_pair)
        problems.append(problem)
    label, problem = _label(values.get(columns.label), names)
    if labelled:
        problems.append(problem)
    return Record(identity, text, pair or "", label, location, next(filter(None, problems), ""))


def _identity(values: Mapping[str, Any], columns: Columns, default: str) -> tuple[str, str]:
    """The id, and its problem."""
    value = values.get(columns.id or "id")
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return replace_surrogates(str(value)), ""
    if columns.id is None:
        return default, ""
    return default, f"the id ({columns.id!r}) must be text or a whole number, not {type_name(value)}"


def _text(values: Mapping[str, Any], column: str) -> tuple[str | None, str]:
    """A text, and its problem."""
    value = values.get(column)
    if isinstance(value, str):
        return replace_surrogates(value), ""
    if column not in values:
        return None, f"the key {column!r} is missing; found {', '.join(map(str, values)) or 'none'}"
    return None, f"{column!r} must be text, not {type_name(value)}"


def _label(value: Any, names: list[str] | None) -> tuple[str | None, str]:
    """The id of a class, and its problem."""
    if value is None or value == "":
        return None, "it has no label"
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, int) and names is not None:
        if 0 <= value < len(names):
            return names[value], ""
        return None, f"the label {value} is out of range (0 to {len(names) - 1})"
    if isinstance(value, str | int):
        return replace_surrogates(str(value)), ""
    return None, f"the label must be text, a whole number, or true or false, not {type_name(value)}"


def _declared(file: str, column: str) -> list[str] | None:
    """The classes that a Parquet file declares."""
    if not file.endswith(".parquet"):
        return None
    with open_parquet(file) as table:
        return declared_names(table.schema_arrow, column)


def _rows(
    file: str, required: Sequence[str], requested: Sequence[str], columns: Columns
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Location and values of the rows of a file, of any layout."""
    if file.endswith(".parquet"):
        return parquet_rows(file, requested, required, columns)
    if re.search(r"\.(jsonl|ndjson)(\.gz)?$", file):
        return _json_lines(file, required, columns)
    if TABLE.search(file):
        return csv_rows(file, required, columns)
    raise InputError(f"{file}: not a supported file of texts; its name must end with {', '.join(SUFFIXES)}")


def _json_lines(file: str, required: Sequence[str], columns: Columns) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with open_file(file) as stream:
        for number, (line, value) in enumerate(Scanner(stream, file).lines()):
            location = f"{file}: {line}"
            if not isinstance(value, dict):
                keys = " and ".join(map(repr, required))
                raise InputError(f"{location}: expected an object with {keys}, found {type_name(value)}")
            if number == 0:  # the configuration has a wrong column name; in a later row, the row is defective
                column_names.require(file, required, list(value), columns)
            yield location, value
