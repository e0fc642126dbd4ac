"""The table of facts that a contract is verified on: one row per example, cached by the content of the data."""

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
    """The table of facts of a data set.

    Attributes:
        path: Parquet file; its columns are described by SCHEMA in the module that the task's `facts()` returns.
        fingerprint: of the content.
        task: name of the data set's task.
        classes: [{"id", "name"}, ...]; empty if examples have no classes.
        counts: examples by split and class.
    """

    path: Path
    fingerprint: str
    task: str
    classes: list[dict[str, str]]
    counts: list[dict[str, Any]]


def load_facts(data: Any, task: str) -> Facts:
    """Return the facts of a data module, from the cache or built.

    Args:
        data: a data module, not prepared yet.
        task: name of its task.

    Raises:
        InputError: the files cannot be read as a data set.
    """
    description = describe(task)
    # Files that are not examples are not part of the fingerprint of the examples.
    problems = [[problem.split, problem.name, problem.kind, problem.label] for problem in getattr(data, "problems", [])]
    key = {
        "format": description.format,
        "task": task,
        "source": [data.fingerprint(split) for split in SPLITS],
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
        with tables.connect(folder / "facts.parquet", folder / "spill") as connection:
            fields = {"classes": description.classes(data), "counts": description.counts(connection)}
        (folder / "about.json").write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")

    def read(folder: Path) -> Facts:
        fields = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        return Facts(folder / "facts.parquet", fingerprint, task, **fields)

    def check(folder: Path) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetFile(read(folder).path) as file:
            for _ in file.iter_batches():
                pass

    return read(cache.entry(data.root, "facts", key, build, getattr(data, "verify", "fast"), check))
