"""Statistics of a data set, for its report and for later comparisons."""

import json
from pathlib import Path
from typing import Any

import pyarrow.types as types

from config import parsing
from quality import tables
from quality.description import Description
from quality.facts import SPLITS

FILE, SAMPLE = "profile.json", "sample.parquet"
BINS = 24  # of a histogram
SAMPLE_ROWS = 2_000  # of each split: at most 256 KiB, without texts
MAX_CATEGORIES = 200  # values of a category with counts of their own
EXTREMES = 4  # rows with the lowest and the highest values of a column
IDENTIFIERS = ("_hash", "_group")  # endings of columns whose numbers are identifiers


def column_kinds(description: Description) -> dict[str, str]:
    """Return the kinds of the columns that have statistics: "number", "flag" or "category" by name."""
    kinds = {}
    for column in description.schema:
        if column.name in description.categories:
            kinds[column.name] = "category"
        elif types.is_boolean(column.type):
            kinds[column.name] = "flag"
        elif not types.is_string(column.type) and column.name != "number" and not column.name.endswith(IDENTIFIERS):
            kinds[column.name] = "number"
    return kinds


def write(folder: Path, connection: Any, description: Description) -> dict[str, Any]:
    """Write profile.json and sample.parquet, without texts, file names or pictures.

    The sample has the rows with the smallest hashes of their ids, one of each group: independent rows, always the same.

    Args:
        folder: the folder to write to.
        connection: of `tables.connect`.
        description: of the task's table of facts.

    Returns:
        The content of profile.json, and `extremes`, which have ids and are for the report only.
    """
    kinds = column_kinds(description)
    profile: dict[str, Any] = {
        "task": description.task,
        "rows": {row["split"]: row["rows"] for row in _query_splits(connection, "count(number) as rows")},
        "columns": {
            name: _number_statistics(connection, name) if kind == "number" else _category_counts(connection, name, kind)
            for name, kind in kinds.items()
        },
    }
    (folder / FILE).write_text(json.dumps(profile, ensure_ascii=False), encoding="utf-8")
    names = ", ".join(f'"{name}"' for name in kinds)
    connection.execute(
        f"copy (select split, {names} from "
        f"(select * from facts where number is not null qualify row_number() over (partition by split, {description.group} "
        f"order by hash(id), id) = 1) qualify row_number() over (partition by split order by hash(id), id) <= {SAMPLE_ROWS}) "
        f"to {tables.sql_string(str(folder / SAMPLE))} (format parquet)"
    )
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    return {**profile, "extremes": {name: _extreme_rows(connection, name, description.caption) for name in numbers}}


def _query_splits(connection: Any, columns: str) -> list[dict[str, Any]]:
    return tables.query_rows(
        connection, f"select split, {columns} from facts where split in {SPLITS} group by split order by split"
    )


def _category_counts(connection: Any, name: str, kind: str) -> dict[str, Any]:
    value = f'"{name}"::varchar'
    rows = tables.query_rows(
        connection,
        f"select split, {value} as value, count(*) as n from facts where number is not null group by all order by n desc, value",
    )
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    missing = dict.fromkeys(SPLITS, 0)
    for row in rows:
        split = row["split"]
        if row["value"] is None:
            missing[split] = row["n"]
        elif len(counts[split]) < MAX_CATEGORIES:
            counts[split][row["value"]] = row["n"]
        else:
            counts[split]["other"] = counts[split].get("other", 0) + row["n"]
    return {"kind": kind, "missing": missing, "counts": counts}


def _number_statistics(connection: Any, name: str) -> dict[str, Any]:
    column = f'"{name}"'
    numbers = _query_splits(
        connection,
        f"count(number) - count({column}) as missing, min({column})::double as min, max({column})::double as max, "
        f"avg({column}) as mean, coalesce(stddev_samp({column}), 0) as std, "
        f"quantile_cont({column}, [0.05, 0.25, 0.5, 0.75, 0.95])::double[] as quantiles",
    )
    low, high, integers = connection.execute(
        f"select quantile_disc({column}, 0.005)::double, quantile_disc({column}, 0.995)::double, "
        f"bool_and({column} = floor({column})) from facts"
    ).fetchone()
    statistics: dict[str, Any] = {
        "kind": "number",
        "missing": {row["split"]: max(0, row.pop("missing")) for row in numbers},
        "numbers": {row.pop("split"): row for row in numbers},
    }
    if low is None:
        return statistics | {"edges": [], "bars": {split: [] for split in SPLITS}}
    if integers and high - low < BINS:
        bins, low, high = int(high - low) + 1, low - 0.5, high + 0.5
    else:
        bins, high = BINS, high if high > low else low + 1.0
    index = f"greatest(0, least({bins - 1}, floor(({column} - {low!r}) / {(high - low) / bins!r})))::int"
    bars = {split: [0] * bins for split in SPLITS}
    for row in tables.query_rows(
        connection, f"select split, {index} as bin, count(*) as n from facts where {column} is not null group by all"
    ):
        bars[row["split"]][row["bin"]] += row["n"]
    return statistics | {"edges": [low + number * (high - low) / bins for number in range(bins + 1)], "bars": bars}


def _extreme_rows(connection: Any, name: str, caption: str | None) -> dict[str, list[dict[str, Any]]]:
    query = (
        f'select split, number, id, {caption or "null"} as caption, "{name}" as value from facts '
        f'where "{name}" is not null and number is not null order by "{name}" {{}}, split, number limit {EXTREMES}'
    )
    return {
        end: tables.query_rows(connection, query.format(order)) for end, order in (("least", "asc"), ("most", "desc"))
    }


def read(folder: Path) -> dict[str, Any]:
    """Read the profile in a folder."""
    profile: dict[str, Any] = json.loads(parsing.read_text(folder / FILE))
    return profile
