"""The description of a task's table of facts: the module that its `facts()` returns, with defaults for optional names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from quality import tables

REQUIRED = ("FORMAT", "SCHEMA", "tables")
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
    finish: Callable[[Path, Path], Any]
    classes: Callable[[Any], list[dict[str, str]]]
    counts: Callable[[Any], list[dict[str, Any]]]
    group: str
    usable: str
    categories: tuple[str, ...]
    caption: str | None
    texts: tuple[str, ...]
    spans: Mapping[str, tuple[str, str]]
    pictured: tuple[str, ...]
    pictures: Callable[[Any, Iterable[Mapping[str, Any]]], Any] | None


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
    return Description(
        task=task,
        examples=str(getattr(tasks.load_module(task), "EXAMPLES", "examples")),
        format=module.FORMAT,
        schema=module.SCHEMA,
        tables=module.tables,
        finish=getattr(module, "finish", Path.replace),
        classes=getattr(module, "classes", lambda data: []),
        counts=getattr(module, "counts", tables.split_counts),
        group=getattr(module, "GROUP", "number"),
        usable=getattr(module, "USABLE", "true"),
        categories=tuple(getattr(module, "CATEGORIES", ())),
        caption=getattr(module, "CAPTION", None),
        texts=tuple(getattr(module, "TEXTS", ())),
        spans=getattr(module, "SPANS", {}),
        pictured=tuple(getattr(module, "PICTURED", ())),
        pictures=getattr(module, "pictures", None),
    )
