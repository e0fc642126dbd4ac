"""The table of facts: what a contract speaks of, one row for each example, made once for each content."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.storage import cache
from quality import tables
from quality.description import describe

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Facts:
    """A data set's table of facts.

    Attributes:
        path: its Parquet file, whose columns SCHEMA describes in the module that the task's `facts()` gives.
        fingerprint: of what it was made from.
        task: name of the data set's task.
        classes: [{"id", "name"}, ...]; empty where examples have no classes.
        counts: examples by split and class.
    """

    path: Path
    fingerprint: str
    task: str
    classes: list[dict[str, str]]
    counts: list[dict[str, Any]]


def load_facts(data: Any, task: str) -> Facts:
    """The facts of a data module's content, from the cache or made now.

    Args:
        data: a data module, nothing of it prepared yet.
        task: name of its task.

    Raises:
        InputError: files that cannot be read as a data set at all.
    """
    description = describe(task)
    source = [data.fingerprint(split) for split in SPLITS]
    # Files that are no examples are not in the examples' fingerprint.
    problems = [[problem.split, problem.name, problem.what, problem.label] for problem in getattr(data, "problems", [])]
    key = {
        "format": description.format,
        "task": task,
        "source": source,
        "problems": problems,
        "columns": description.schema.names,
    }
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def build(folder: Path) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(folder / "rows.parquet", description.schema, compression="zstd") as writer:
            for split in SPLITS:
                for table in description.tables(data, split):
                    writer.write_table(table)
        description.finish(folder / "rows.parquet", folder / "facts.parquet")
        connection = tables.connect(folder / "facts.parquet", folder / "spill")
        counts = description.counts(connection)
        connection.close()
        about = {"classes": description.classes(data), "counts": counts}
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    folder = cache.entry(data.root, "facts", key, build)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Facts(folder / "facts.parquet", fingerprint, task, **about)
