"""A search with and without `--warm`: wall time, and seconds from the start of a trial to its first line.

`python -m benchmarks.search_warm`: twenty trainings of about ten seconds, one at a time, cold and warm in turns. All trials
must report the same metrics in both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks import measure


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a trial")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    starts: dict[str, list[float]] = {"cold": [], "warm": []}
    curves: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = _experiment(folder, options.trials, options.steps, options.parallel)
        _search(file, Path(tempfile.mkdtemp(dir=folder)), ["--max-trials", "1"])  # prepares the data

        def contestant(mode: str) -> float:
            place = Path(tempfile.mkdtemp(dir=folder))
            elapsed, times, results = _search(file, place, ["--warm"] if mode == "warm" else [])
            starts[mode] += times
            curves.append(results)
            if results != curves[0]:
                raise RuntimeError("the trials of two searches reported other metrics")
            return elapsed

        seconds = measure.alternate({mode: lambda mode=mode: contestant(mode) for mode in starts}, options.repeats)
    shares = measure.ratio(seconds["warm"], seconds["cold"])
    rows = [
        [
            f"`katib run{' --warm' * (mode == 'warm')}`",
            seconds[mode].text(),
            f"{seconds[mode].median / options.trials * options.parallel:.1f}",
            f"{statistics.median(starts[mode]):.2f} ({min(starts[mode]):.2f} to {max(starts[mode]):.2f})",
            shares.text(2) if mode == "warm" else "",
        ]
        for mode in ("cold", "warm")
    ]
    measure.report(
        "Searches that fork their trials",
        ["", "seconds", "seconds per trial", "seconds to a trial's first line", "relative to a search without it"],
        rows,
        f"{options.trials} trials of {options.steps} steps, {options.parallel} at a time; equal metrics. The first trial of a warm search "
        "waits for the imports. Goal: 0.6 of the cold search, first lines within 0.5 s.",
    )


def _search(file: Path, place: Path, options: list[str]) -> tuple[float, list[float], list[Any]]:
    """One search; its seconds, those of each trial from its process's start to its first line, and the reported values."""
    folder = place / "search"
    starts: dict[str, float] = {}
    lines: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            with contextlib.suppress(OSError, ValueError):  # a row that is being written
                for path in folder.glob("trials/*/katib/metrics.log"):
                    if path.parts[-3] not in lines and path.stat().st_size:
                        lines[path.parts[-3]] = time.time()
                for row in map(json.loads, (folder / "trials.jsonl").read_text().splitlines()):
                    if row["processes"]:  # while it runs
                        starts[row["name"]] = row["processes"][0][1]

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        measure.fresh_command(["katib", "run", str(file), "--folder", str(folder), "--no-check", *options])
    finally:
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    if bad := [row for row in rows if row["status"] != "Succeeded"]:
        raise RuntimeError(f"{bad[0]['name']}: {bad[0]['status']} {bad[0]['reason']}")
    results = [[row["assignments"], [value for _, value in row["curve"]]] for row in rows]
    return seconds, [lines[name] - start for name, start in starts.items() if name in lines], results


def _experiment(folder: Path, trials: int, steps: int, parallel: int) -> Path:
    line = (
        "python train.py model=bert_tiny data=squad_sample data.sample.train=512 data.sample.val=64 data.batch_size=16 "
        f"trainer.max_steps={steps} trainer.max_epochs=100 trainer.val_check_interval=null explain=off "
        "seed=${trialParameters.seed} hydra.run.dir=/runs/${trialParameters.trialName}"
    )
    container = {"name": "main", "image": "none", "command": ["sh", "-c", line]}
    job = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    references = {"trialName": "${trialSpec.Name}", "seed": "seed"}
    spec = {
        "objective": {"type": "minimize", "objectiveMetricName": "val_loss"},
        "algorithm": {"algorithmName": "grid"},
        "parallelTrialCount": parallel,
        "maxTrialCount": trials,
        "parameters": [
            {
                "name": "seed",
                "parameterType": "int",
                "feasibleSpace": {"min": "1", "max": str(trials), "step": "1"},
            }
        ],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": name, "reference": reference} for name, reference in references.items()],
            "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
        },
    }
    path = folder / "search-warm.yaml"
    value = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "warm"}, "spec": spec}
    path.write_text(yaml.safe_dump(value, width=10_000))
    return path


if __name__ == "__main__":
    main()
