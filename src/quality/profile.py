"""Statistics of a data set: what a person wants to see of it, and what other data is later compared with."""

import json
from pathlib import Path
from typing import Any

import pyarrow.types as types

from quality import tables
from quality.description import Description
from quality.facts import SPLITS

FILE, SAMPLE = "profile.json", "sample.parquet"
BINS = 24
SAMPLED = 2_000  # rows of each split that are kept: 256 KiB and no text
MOST = 200  # values of a category that are told apart
EXTREMES = 4
IDENTIFIERS = ("_hash", "_group")  # how names of columns end whose numbers only tell rows apart


def column_kinds(description: Description) -> dict[str, str]:
    """The columns that have statistics: "number", "flag" or "category" by name."""
    found = {}
    for column in description.schema:
        if column.name in description.categories:
            found[column.name] = "category"
        elif types.is_boolean(column.type):
            found[column.name] = "flag"
        elif not types.is_string(column.type) and column.name != "number" and not column.name.endswith(IDENTIFIERS):
            found[column.name] = "number"
    return found


def write(folder: Path, connection: Any, description: Description) -> dict[str, Any]:
    """Writes profile.json and sample.parquet: no texts, no names, no pictures.

    The sample is the rows with the smallest hashes of their ids, one of those that are alike: the same ones every time, and a
    random choice all the same.

    Args:
        folder: where to.
        connection: of `tables.connect`.
        description: of the task's table of facts.

    Returns:
        What profile.json has, and `extremes`, which have ids: for the report alone.
    """
    columns = column_kinds(description)
    profile: dict[str, Any] = {
        "task": description.task,
        "rows": {each["split"]: each["rows"] for each in _by_split(connection, "count(number) as rows")},
        "columns": {name: _column(connection, name, kind) for name, kind in columns.items()},
    }
    (folder / FILE).write_text(json.dumps(profile, ensure_ascii=False), encoding="utf-8")
    listed = ", ".join(f'"{name}"' for name in columns)
    # One of those that are alike, so that rows are independent of each other.
    connection.execute(
        f"copy (select split, {listed} from "
        f"(select * from facts where number is not null qualify row_number() over (partition by split, {description.alike} "
        f"order by hash(id), id) = 1) qualify row_number() over (partition by split order by hash(id), id) <= {SAMPLED}) "
        f"to {tables.sql_string(str(folder / SAMPLE))} (format parquet)"
    )
    numbers = [name for name, kind in columns.items() if kind == "number"]
    return {**profile, "extremes": {name: _extremes(connection, name, description.said) for name in numbers}}


def _by_split(connection: Any, what: str) -> list[dict[str, Any]]:
    return tables.query_rows(
        connection, f"select split, {what} from facts where split in {SPLITS} group by split order by split"
    )


def _column(connection: Any, name: str, kind: str) -> dict[str, Any]:
    if kind == "number":
        return _number(connection, name)
    value = f'"{name}"::varchar'
    counted = tables.query_rows(
        connection,
        f"select split, {value} as value, count(*) as n from facts where number is not null group by all order by n desc, value",
    )
    found: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    missing = dict.fromkeys(SPLITS, 0)
    for each in counted:
        if each["value"] is None:
            missing[each["split"]] = each["n"]
        elif len(found[each["split"]]) < MOST:
            found[each["split"]][each["value"]] = each["n"]
        else:
            found[each["split"]]["other"] = found[each["split"]].get("other", 0) + each["n"]
    return {"kind": kind, "missing": missing, "counts": found}


def _number(connection: Any, name: str) -> dict[str, Any]:
    column = f'"{name}"'
    numbers = _by_split(
        connection,
        f"count(number) - count({column}) as missing, min({column})::double as min, max({column})::double as max, "
        f"avg({column}) as mean, coalesce(stddev_samp({column}), 0) as std, "
        f"quantile_cont({column}, [0.05, 0.25, 0.5, 0.75, 0.95])::double[] as quantiles",
    )
    low, high = connection.execute(
        f"select quantile_disc({column}, 0.005)::double, quantile_disc({column}, 0.995)::double from facts"
    ).fetchone()
    found: dict[str, Any] = {
        "kind": "number",
        "missing": {each["split"]: max(0, each.pop("missing")) for each in numbers},
        "numbers": {each.pop("split"): each for each in numbers},
    }
    if low is None:
        return found | {"edges": [], "bars": {split: [] for split in SPLITS}}
    whole = connection.execute(f"select bool_and({column} = floor({column})) from facts").fetchone()[0]
    if whole and high - low < BINS:
        bins, low, high = int(high - low) + 1, low - 0.5, high + 0.5
    else:
        bins, high = BINS, high if high > low else low + 1.0
    place = f"greatest(0, least({bins - 1}, floor(({column} - {low!r}) / {(high - low) / bins!r})))::int"
    bars = {split: [0] * bins for split in SPLITS}
    counted = tables.query_rows(
        connection, f"select split, {place} as bin, count(*) as n from facts where {column} is not null group by all"
    )
    for each in counted:
        bars[each["split"]][each["bin"]] += each["n"]
    return found | {"edges": [low + index * (high - low) / bins for index in range(bins + 1)], "bars": bars}


def _extremes(connection: Any, name: str, said: str | None) -> dict[str, list[dict[str, Any]]]:
    query = (
        f'select split, number, id, {said or "null"} as said, "{name}" as value from facts '
        f'where "{name}" is not null and number is not null order by "{name}" {{}}, split, number limit {EXTREMES}'
    )
    return {
        which: tables.query_rows(connection, query.format(order))
        for which, order in (("least", "asc"), ("most", "desc"))
    }


def read(folder: Path) -> dict[str, Any]:
    """A profile from its folder."""
    found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return found
