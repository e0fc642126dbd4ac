"""The table of facts: what a contract speaks of, one row for each example, made once for each content."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.storage import cache
from quality import tables

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Facts:
    """A data set's table of facts.

    Attributes:
        path: its Parquet file, whose columns `quality.questions.SCHEMA` or `quality.images.SCHEMA` describe.
        fingerprint: of what it was made from.
        task: "question_answering" or "image_classification".
        classes: of images, [{"id", "name"}, ...]; empty for questions.
        counts: examples by split and, of images, by class.
    """

    path: Path
    fingerprint: str
    task: str
    classes: list[dict[str, str]]
    counts: list[dict[str, Any]]


def of(data: Any, task: str) -> Facts:
    """The facts of a data module's content, from the cache or made now.

    Args:
        data: a data module, nothing of it prepared yet.
        task: its task.

    Raises:
        Refused: files that cannot be read as a data set at all.
    """
    kind = module(task)
    source = [data.fingerprint(split) for split in SPLITS]
    # Files that are no examples are not in the examples' fingerprint.
    problems = [[each.split, each.name, each.what, each.label] for each in getattr(data, "problems", [])]
    key = {"format": kind.FORMAT, "task": task, "source": source, "problems": problems, "columns": kind.SCHEMA.names}
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def build(folder: Path) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(folder / "rows.parquet", kind.SCHEMA, compression="zstd") as writer:
            for split in SPLITS:
                for table in kind.tables(data, split):
                    writer.write_table(table)
        kind.finish(folder / "rows.parquet", folder / "facts.parquet")
        classes = data.survey.classes if task == "image_classification" else []
        connection = tables.connect(folder / "facts.parquet", folder / "spill")
        counts = tables.counts(connection, task)
        connection.close()
        about = {"classes": classes, "counts": counts}
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    folder = cache.entry(data.root, "facts", key, build)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Facts(folder / "facts.parquet", fingerprint, task, **about)


def module(task: str) -> ModuleType:
    """What makes the rows of a task."""
    if task == "question_answering":
        from quality import questions

        return questions
    from quality import images

    return images
