"""The data contract: the whole gate cold and warm, verification by rows, and looking at images against decoding alone.

`python -m benchmarks.quality --data FOLDER --images FOLDER`; without them on generated data.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

ROWS = (10_000, 100_000, 1_000_000)
IMAGES = 6_000  # decoded in each turn


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/")
    parser.add_argument("--images", type=Path, help="tiny-imagenet-200")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    questions = (
        ["data=squad", f"data.path={options.data / 'squad'}"]
        if options.data
        else ["data=squad_sample", "data.sample.train=8000"]
    )
    images = ["data=tiny_imagenet", f"data.path={options.images}"] if options.images else ["data=shapes"]
    _gate({"questions": questions, "images": images}, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        _verification({"questions": questions, "images": images}, Path(folder), options.repeats)
    _looking(images, options.repeats)


def _gate(data: dict[str, list[str]], repeats: int) -> None:
    rows = []
    for name, overrides in data.items():
        cold, warm, files, examples = [], [], [], 0
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as root:
                given = [*overrides, f"data.cache_dir={root}"]
                if not any("path=" in each for each in overrides):
                    _judge(given)  # generates it
                first = _judge(given)
                second = _judge(given)
                cold.append(first["seconds"])
                warm.append(1000 * (second["seconds"] - second["files"]))
                files.append(second["files"])
                examples = first["rows"]
            measure.progress(f"{name}: cold {cold[-1]:.2f} s, warm {warm[-1]:.1f} ms, files {files[-1]:.2f} s")
        rows.append([name, f"{examples:,}", *(measure.Sample(tuple(each)).text(2) for each in (cold, warm, files))])
    head = ["the whole gate", "rows", "cold, s", "warm beyond the files' times, ms", "looking at the files' times, s"]
    measure.report(
        "Data contracts: the gate", head, rows, "In fresh processes, imports left out. Required: warm under 50 ms."
    )


def _judge(overrides: list[str]) -> dict[str, Any]:
    """One verdict in a fresh process: seconds of all, and of looking at the files."""
    return measure.fresh("benchmarks.one_verdict", "gate", *overrides)


def _verification(data: dict[str, list[str]], folder: Path, repeats: int) -> None:
    import duckdb

    from datamodules import factory
    from quality import contract, facts

    rows = []
    for name, overrides in data.items():
        config = factory.compose_config([*overrides, f"data.cache_dir={folder}"], any_model=True)
        module = factory.build(config.data)
        made = facts.load_facts(module, str(config.task.name))
        chosen = contract.read(str(config.quality.contract), module.root)
        copies: dict[int, Path] = {}
        for count in ROWS:
            copies[count] = folder / f"{name}-{count}.parquet"
            duckdb.sql(
                f"copy (select * replace (concat(id, '-', copy) as id) from '{made.path}', range(400) as c(copy) limit {count}) "
                f"to '{copies[count]}' (format parquet, compression zstd)"
            )
        found: dict[int, list[dict[str, float]]] = {count: [] for count in ROWS}
        for turn in range(repeats):
            for count in ROWS if turn % 2 == 0 else reversed(ROWS):
                found[count].append(
                    measure.fresh("benchmarks.one_verdict", "verify", chosen.name, str(copies[count]), str(folder))
                )
                measure.progress(f"{name}, {count} rows: {found[count][-1]}")
        for count in ROWS:
            seconds, memory = (
                measure.Sample(tuple(each[what] for each in found[count])) for what in ("seconds", "memory")
            )
            rate = measure.Sample(tuple(count / each for each in seconds.values))
            rows.append([name, f"{count:,}", seconds.text(2), f"{rate.median:,.0f}", memory.text(0)])
    head = ["verification of", "rows", "seconds", "rows/s", "peak memory, MiB"]
    measure.report(
        "Data contracts: verification",
        head,
        rows,
        "Soda's checks alone. Required: under 1 s, and flat memory, at a million rows.",
    )


def _looking(overrides: list[str], repeats: int) -> None:
    """All that the facts take from images on all cores, against decoding alone on one core times the cores."""
    from datamodules import factory
    from datamodules.images import decoder
    from quality import image_facts

    with tempfile.TemporaryDirectory() as root:
        data = factory.build(factory.compose_config([*overrides, f"data.cache_dir={root}"], any_model=True).data)
        split = data.survey.splits["train"]
        places = list(itertools.islice(split.images(), IMAGES))
        cores = len(os.sched_getaffinity(0))

        def decoding() -> float:
            began = time.perf_counter()
            for place in places:
                decoder.decode(Path(place).read_bytes(), data.image_size)
            return cores * len(places) / (time.perf_counter() - began)

        def looking() -> float:
            began = time.perf_counter()
            rows = sum(table.num_rows for table in image_facts.tables(data, "train"))
            return rows / (time.perf_counter() - began)

        found = measure.alternate({"looking": looking, "decoding": decoding}, repeats, warm_up=1)
    share = measure.ratio(found["looking"], found["decoding"])
    measure.report(
        "Data contracts: looking at images",
        ["", "images/s"],
        [
            ["the table of facts, all cores", found["looking"].text(0)],
            [f"decoding alone on one core, times {cores}", found["decoding"].text(0)],
            ["share", share.text(2)],
        ],
        "Required: a share of 0.8.",
    )


if __name__ == "__main__":
    main()
