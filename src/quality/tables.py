"""The tables that contracts speak of, in DuckDB: facts, expected, previous."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import files

MEMORY = "64MB"  # beyond it DuckDB works on the disk


def connect(facts: Path, spill: Path) -> Any:
    """A connection whose view `facts` is a Parquet file; nothing is copied.

    Args:
        facts: the file.
        spill: folder for what does not fit into memory.
    """
    import duckdb

    settings = {"autoinstall_known_extensions": "false", "memory_limit": MEMORY, "temp_directory": str(spill)}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute(f"create view facts as select * from read_parquet({sql_string(str(facts))})")
    return connection


def add_tables(
    connection: Any, facts: Any, expected: Mapping[str, int | None], previous: Sequence[Mapping[str, Any]]
) -> None:
    """The tables beside the facts.

    `expected(split, rows)`: how many examples the configuration says there are, where it does. `previous(split, label,
    rows)`: how many there were when data from the same place was last good, or taken all the same; as now if it never was.
    `classes(label)`: those of a classification.
    """
    connection.execute("create table expected (split varchar, rows bigint)")
    connection.execute("create table previous (split varchar, label varchar, rows bigint)")
    connection.execute("create table classes (label varchar)")
    for split, rows in expected.items():
        if rows is not None:
            connection.execute("insert into expected values (?, ?)", [split, rows])
    for each in previous or facts.counts:
        connection.execute("insert into previous values (?, ?, ?)", [each["split"], each["label"], each["rows"]])
    for each in facts.classes:
        connection.execute("insert into classes values (?)", [each["id"]])


def split_counts(connection: Any) -> list[dict[str, Any]]:
    """Examples by split."""
    return query_rows(
        connection, "select split, null::varchar as label, count(*) as rows from facts group by all order by all"
    )


def class_counts(connection: Any) -> list[dict[str, Any]]:
    """Examples by split and class (column `label`)."""
    return query_rows(
        connection,
        "select split, label, count(*) as rows from facts where number is not null group by all order by all",
    )


def query_rows(connection: Any, query: str) -> list[dict[str, Any]]:
    """A query's rows as mappings."""
    found = connection.execute(query)
    names = [each[0] for each in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def column_types(connection: Any) -> dict[str, str]:
    """The columns of the facts and their types, as DuckDB calls them."""
    return {name: kind for name, kind, *_ in connection.execute("describe facts").fetchall()}


def sql_string(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def write_counts(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Leaves counts for the next data from the same place."""
    files.write_json(path, list(found))


def read_counts(path: Path) -> list[dict[str, Any]]:
    """What `remember` left; nothing if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [{"split": each["split"], "label": each["label"], "rows": int(each["rows"])} for each in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []
