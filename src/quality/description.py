"""The description of a task's table of facts: the module that its `facts()` returns, with defaults for optional names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from quality.tables import split_counts

REQUIRED = ("FORMAT", "SCHEMA", "tables")
OPTIONAL = (
    *("finish", "classes", "counts", "pictures"),
    *("GROUP", "USABLE", "CATEGORIES", "CAPTION", "TEXTS", "SPANS", "PICTURED"),
)
RENAMED = {"ALIKE": "GROUP", "SAID": "CAPTION"}


@dataclass(frozen=True)
class Description:
    """The table of facts of a task.

    Attributes:
        task: name of the task.
        examples: plural noun for its examples, such as "questions".
        format: version of the rows, part of the cache key.
        schema: pyarrow schema of the table, with `split`, `number` (null for a file that is not an example) and `id`.
        tables: (data, split) to pyarrow tables of the rows of the split.
        finish: (rows, final) writes the final Parquet file from that of all rows.
        classes: (data) to [{"id", "name"}, ...]; empty if examples have no classes.
        counts: (connection) to the number of rows by split and class: mappings with split, label and rows.
        group: column whose equal values mark dependent rows; statistics of independent rows take one of each group.
        usable: SQL condition for rows that a model can take.
        categories: text columns with few values, whose shares are counted.
        caption: text column displayed beside an extreme value; None for none.
        texts: columns of running text, which a report may wrap.
        spans: text column to the columns of a span in it and of its start; a report highlights the span.
        pictured: columns whose extreme values are displayed as pictures.
        pictures: (data, rows) to an object whose `thumbnail(row)` is a small JPEG or None; None without pictures.
    """

    task: str
    examples: str
    format: int
    schema: Any
    tables: Callable[[Any, str], Iterator[Any]]
    finish: Callable[[Path, Path], Any] = Path.replace
    classes: Callable[[Any], list[dict[str, str]]] = lambda data: []
    counts: Callable[[Any], list[dict[str, Any]]] = split_counts
    group: str = "number"
    usable: str = "true"
    categories: Sequence[str] = ()
    caption: str | None = None
    texts: Sequence[str] = ()
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    pictured: Sequence[str] = ()
    pictures: Callable[[Any, Iterable[Mapping[str, Any]]], Any] | None = None


def describe(task: str) -> Description:
    """Return the description of a task's table of facts.

    Raises:
        InputError: the task has no table of facts, or its module lacks a required name or has an old one.
    """
    module = tasks.load_member(task, "facts", "a data contract (quality=off trains without one)")()
    if missing := [name for name in REQUIRED if not hasattr(module, name)]:
        raise InputError(
            f"the facts of the task {task} need {missing[0]}, but {module.__name__} does not define it (see docs/quality.md)"
        )
    if renamed := [name for name in RENAMED if hasattr(module, name)]:
        raise InputError(f"{module.__name__}: {renamed[0]} is now {RENAMED[renamed[0]]} (docs/quality.md)")
    values = {name.lower(): getattr(module, name) for name in (*REQUIRED, *OPTIONAL) if hasattr(module, name)}
    return Description(task, str(getattr(tasks.load_module(task), "EXAMPLES", "examples")), **values)
