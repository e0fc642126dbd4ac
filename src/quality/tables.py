"""The DuckDB tables that contracts are verified on: facts, expected, previous, classes."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import checked_json

logger = logging.getLogger(__name__)

MEMORY = "64MB"  # DuckDB spills to the disk beyond it


def connect(facts: Path, spill: Path) -> Any:
    """Open a connection whose view `facts` is a Parquet file; nothing is copied.

    Args:
        facts: the file.
        spill: folder for data that exceeds the memory limit.
    """
    import duckdb

    settings = {"autoinstall_known_extensions": "false", "memory_limit": MEMORY, "temp_directory": str(spill)}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute(f"create view facts as select * from read_parquet({sql_string(str(facts))})")
    return connection


def add_tables(
    connection: Any, facts: Any, expected: Mapping[str, int | None], previous: Sequence[Mapping[str, Any]]
) -> None:
    """Create the tables `expected(split, rows)`, `previous(split, label, rows)` and `classes(label)`.

    Args:
        connection: of `connect`.
        facts: the facts, with their classes and counts.
        expected: number of examples of each split by the configuration; None where it has none.
        previous: counts of the last accepted data of the same source; empty for the counts of the facts themselves.
    """
    for table, columns, rows in (
        ("expected", "split varchar, rows bigint", [item for item in expected.items() if item[1] is not None]),
        (
            "previous",
            "split varchar, label varchar, rows bigint",
            [(row["split"], row["label"], row["rows"]) for row in previous or facts.counts],
        ),
        ("classes", "label varchar", [(entry["id"],) for entry in facts.classes]),
    ):
        connection.execute(f"create table {table} ({columns})")
        for row in rows:
            connection.execute(f"insert into {table} values ({', '.join('?' * len(row))})", list(row))


def split_counts(connection: Any) -> list[dict[str, Any]]:
    """Count the rows of each split."""
    return query_rows(
        connection, "select split, null::varchar as label, count(*) as rows from facts group by all order by all"
    )


def class_counts(connection: Any) -> list[dict[str, Any]]:
    """Count the examples of each split and class (column `label`)."""
    return query_rows(
        connection,
        "select split, label, count(*) as rows from facts where number is not null group by all order by all",
    )


def query_rows(connection: Any, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query as mappings."""
    result = connection.execute(query)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def column_types(connection: Any) -> dict[str, str]:
    """Return DuckDB's types of the columns of the facts."""
    return {name: kind for name, kind, *_ in connection.execute("describe facts").fetchall()}


def sql_string(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def read_counts(path: Path) -> list[dict[str, Any]]:
    """Read the counts of an earlier verification of the same source; empty if there are none or the file is damaged."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
        if not isinstance(rows, list):  # earlier versions wrote the list alone
            rows = checked_json.read(path)
        return [{"split": row["split"], "label": row["label"], "rows": int(row["rows"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("%s is damaged (%s): the data is not compared with earlier data of its source", path, error)
        return []
