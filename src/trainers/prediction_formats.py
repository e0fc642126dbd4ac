"""The files of predictions: JSON Lines, CSV or Parquet, by the suffix of the name."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from config import files
from config.errors import InputError
from config.parsing import check_regular, parse_json
from runs import folder as folders

SUFFIXES = (".jsonl", ".csv", ".parquet")
_LINE_BYTES = 16_000_000  # of the first line of a file that is to be replaced
_GROUP_ROWS = 2_048  # rows of a Parquet row group, which are in memory at once
_MARK = {b"isotrain": b"predictions"}  # in the metadata of a Parquet file
_FIRST_KEYS = ["id", "prediction"]  # of a row

Lines = Callable[[], Iterable[bytes]]  # the rows from the first on, as JSON; called once or twice


def check_output(path: Path, inputs: Iterable[str]) -> None:
    """Check the file for predictions, before a model is loaded.

    Args:
        path: The file.
        inputs: Names of the input files and folders.

    Raises:
        InputError: Its suffix is none of `SUFFIXES`, it is an input, it is not isotrain's, or it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--output {path}: the format is chosen by the suffix: {', '.join(SUFFIXES)}")
    if path.exists() and any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise InputError(f"--output {path} is one of the inputs; choose another name")
    files.check_replaceable(path, _has_predictions, "a file of predictions")


def write(path: Path, lines: Lines) -> None:
    """Write predictions atomically, in the format of the suffix.

    Args:
        path: The file. In CSV, lists and mappings are JSON and None is an empty cell.
        lines: The rows.

    Raises:
        InputError: A column of a Parquet file would have values of different types.
    """
    with files.atomic_write(path) as file:
        _WRITERS[path.suffix](file, lines)


def _write_jsonl(file: IO[bytes], lines: Lines) -> None:
    file.writelines(lines())


def _write_csv(file: IO[bytes], lines: Lines) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, _columns(lines), lineterminator="\n")
    if writer.fieldnames:
        writer.writeheader()
    for row in _rows(lines):
        writer.writerow({key: _cell(value) for key, value in row.items()})
    text.detach()  # flushes it; `file` stays open


def _write_parquet(file: IO[bytes], lines: Lines) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _columns(lines)

    def groups() -> Iterator[dict[str, list[Any]]]:
        rows = _rows(lines)
        while group := list(islice(rows, _GROUP_ROWS)):
            yield {name: [row.get(name) for row in group] for name in columns}

    try:
        schemas = [pa.table(group).schema for group in groups()]
        schema = pa.unify_schemas(schemas or [pa.schema([])], promote_options="permissive").with_metadata(_MARK)
        with pq.ParquetWriter(file, schema) as writer:
            for group in groups():
                writer.write_table(pa.table(group, schema=schema))
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"the predictions cannot be written as Parquet ({error}); use --output NAME.jsonl") from None


_WRITERS: dict[str, Callable[[IO[bytes], Lines], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def _columns(lines: Lines) -> list[str]:
    """Return the keys of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in _rows(lines) for key in row))


def _rows(lines: Lines) -> Iterator[dict[str, Any]]:
    for line in lines():
        row = parse_json(line)
        # Half of a UTF-16 pair, which an id may have: neither CSV nor Parquet has it.
        yield _escape(row) if b"\\ud" in line else row


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return {_escape(key): _escape(item) for key, item in value.items()} if isinstance(value, dict) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def _has_predictions(path: Path) -> bool:
    """Return whether a file was written by `write`; the predictions.jsonl of a run was not."""
    if path.name == folders.PREDICTIONS and (path.parent / folders.RECORD).exists():
        return False
    check_regular(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return (pq.read_schema(path).metadata or {}).items() >= _MARK.items()
    with path.open("rb") as file:
        line = file.readline(_LINE_BYTES)
    keys = line.decode().rstrip("\n").split(",") if path.suffix == ".csv" else list(parse_json(line))
    return keys[: len(_FIRST_KEYS)] == _FIRST_KEYS
