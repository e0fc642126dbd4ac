"""One measurement of benchmarks.quality in a process of its own; prints JSON.

`python -m benchmarks.one_verdict gate OVERRIDE ...`          seconds of a verdict, and of looking at the files' times
`python -m benchmarks.one_verdict verify CONTRACT FILE SPILL` seconds of a verification of a Parquet file, and peak memory
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def gate(overrides: list[str]) -> dict[str, float]:
    """A verdict, cold or warm, as the cache says."""
    from datamodules import factory
    from quality.verification import verify_data

    config = factory.compose_config(overrides, any_model=True)
    data = factory.build(config.data)
    began = time.perf_counter()
    for split in ("train", "val"):
        data.fingerprint(split)
    files = time.perf_counter() - began
    found, _ = verify_data(data, str(config.task.name), str(config.quality.contract))
    seconds = time.perf_counter() - began
    return {"files": files, "seconds": seconds, "rows": sum(each["rows"] for each in found.counts)}


def verify(name: str, file: str, spill: str) -> dict[str, float]:
    """A contract's verification; Soda is imported before."""
    from datamodules.storage import cache
    from quality import contract, soda, tables

    chosen = contract.read(name, cache.root())
    connection = tables.connect(Path(file), Path(spill))
    for table, columns in (("expected", "split varchar, rows bigint"), ("classes", "label varchar")):
        connection.execute(f"create table {table} ({columns})")
    connection.execute("create table previous as select 'train' as split, null::varchar as label, 1::bigint as rows")
    if "label" in tables.column_types(connection):
        connection.execute("insert into classes select distinct label from facts")
    soda.verify("dataset: data/main/previous\ncolumns: [{name: split, checks: [{missing: {}}]}]", connection)
    began = time.perf_counter()
    found = soda.verify(chosen.text, connection)
    seconds = time.perf_counter() - began
    if found.errors or len(found.outcomes) != len(chosen.checks):
        raise RuntimeError(found.errors)
    return {"seconds": seconds, "memory": _peak()}


def _peak() -> float:
    """MiB. Not of getrusage, which tells the parent's until this process has more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    which, *given = sys.argv[1:]
    print(json.dumps(gate(given) if which == "gate" else verify(*given)))
