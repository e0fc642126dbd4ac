"""What a task says of its table of facts: the module that its `facts()` gives, with defaults for what it leaves out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from quality import tables

REQUIRED = ("FORMAT", "SCHEMA", "tables")


@dataclass(frozen=True)
class Description:
    """A task's table of facts.

    Attributes:
        task: its name.
        examples: what the examples are called: "questions".
        format: part of the cache's key; raised when the rows change.
        schema: pyarrow schema of the table; `split`, `number` (null for a file that is no example) and `id` are in it.
        tables: (data, split) to pyarrow tables of the split's rows.
        finish: (rows, final) writes the final Parquet file once all rows are known.
        classes: (data) to [{"id", "name"}, ...]; empty where examples have no classes.
        counts: (connection) to the number of rows by split and class: mappings with split, label and rows.
        alike: column; of rows that share its value, statistics that need independent rows take one.
        usable: SQL condition on the rows that a model can take.
        categories: columns of text that have few values, whose shares are counted.
        said: column of text that is shown beside an extreme value; None for none.
        texts: columns of running text, which may break in a report.
        spans: by column of text, the columns of a part of it and of where that begins; the part is marked in it.
        pictured: columns whose extremes are shown as pictures.
        pictures: (data, rows) to an object whose `thumbnail(row)` is a small JPEG, or None; None where there are no pictures.
    """

    task: str
    examples: str
    format: int
    schema: Any
    tables: Callable[[Any, str], Iterator[Any]]
    finish: Callable[[Path, Path], Any]
    classes: Callable[[Any], list[dict[str, str]]]
    counts: Callable[[Any], list[dict[str, Any]]]
    alike: str
    usable: str
    categories: tuple[str, ...]
    said: str | None
    texts: tuple[str, ...]
    spans: Mapping[str, tuple[str, str]]
    pictured: tuple[str, ...]
    pictures: Callable[[Any, Iterable[Mapping[str, Any]]], Any] | None


def describe(task: str) -> Description:
    """The description of a task's table of facts.

    Args:
        task: name of the task.

    Raises:
        InputError: the task has no table of facts, or its module lacks what it must have.
    """
    module = tasks.load_member(task, "facts", "a data contract (quality=off trains without one)")()
    if missing := [name for name in REQUIRED if not hasattr(module, name)]:
        raise InputError(
            f"the facts of the task {task} need {missing[0]}, which {module.__name__} lacks: "
            "write it as docs/quality.md says"
        )
    return Description(
        task=task,
        examples=str(getattr(tasks.load_module(task), "EXAMPLES", "examples")),
        format=module.FORMAT,
        schema=module.SCHEMA,
        tables=module.tables,
        finish=getattr(module, "finish", Path.replace),
        classes=getattr(module, "classes", lambda data: []),
        counts=getattr(module, "counts", tables.split_counts),
        alike=getattr(module, "ALIKE", "number"),
        usable=getattr(module, "USABLE", "true"),
        categories=tuple(getattr(module, "CATEGORIES", ())),
        said=getattr(module, "SAID", None),
        texts=tuple(getattr(module, "TEXTS", ())),
        spans=getattr(module, "SPANS", {}),
        pictured=tuple(getattr(module, "PICTURED", ())),
        pictures=getattr(module, "pictures", None),
    )
