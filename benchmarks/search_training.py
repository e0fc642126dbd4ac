"""How many epochs of training asynchronous halving needs to find as good a model as a grid: `python -m katib run --algorithm asha`.

`python -m benchmarks.search_training`: for each task and seed, a grid of 24 points that are all trained in full, and a search
with ASHA in the ranges that the grid spans, until one of its trials is as good as the best of the grid. Both train for real, with
generated data and small networks; epochs are counted, not seconds, so that a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import measure

EPOCHS = 9  # of a training in full; the rungs of ASHA have 1, 3 and 9
STUDENT = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
}  # 97.5 %, by number of seeds
COMMON = "optim.schedule=constant optim.warmup=10 quality=off explain=off"
TASKS = {
    "images": "model=resnet18 model.name=test_resnet model.stem=standard data=shapes data.sample.train=1024 data.sample.val=384",
    "questions": "model=bert_tiny data=squad_sample data.sample.train=512 data.sample.val=128",
}
GRID = {
    "optim.lr": ("discrete", {"list": ["0.0003", "0.001", "0.003", "0.01"]}),
    "data.batch_size": ("discrete", {"list": ["16", "32", "64"]}),
    "optim.weight_decay": ("discrete", {"list": ["0.01", "0.1"]}),
}
RANGES = {
    "optim.lr": ("double", {"min": "0.0003", "max": "0.01", "distribution": "logUniform"}),
    "data.batch_size": ("discrete", {"list": ["16", "32", "64"]}),
    "optim.weight_decay": ("double", {"min": "0.01", "max": "0.1", "distribution": "logUniform"}),
    "trainer.max_epochs": ("int", {"min": "1", "max": str(EPOCHS)}),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--points", type=int, default=24, help="points of the grid that are trained")
    parser.add_argument("--max-trials", type=int, default=80, help="trials of ASHA at most")
    parser.add_argument("--parallel", type=int, default=2)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for task in options.tasks:
            shares, bests = [], []
            for seed in range(options.seeds):
                folder = Path(name) / f"{task}-{seed}"
                folder.mkdir()
                grid = _search(folder, task, seed, "grid", options.points, options.parallel)
                best = min(row["value"] for row in grid if row["value"] is not None)
                halving = _search(folder, task, seed, "asha", options.max_trials, options.parallel, goal=best)
                reached = [row["value"] for row in halving if row["value"] is not None]
                epochs = sum(_epochs(row, halving) for row in halving)
                shares.append(epochs / (EPOCHS * len(grid)) if min(reached) <= best else math.inf)
                bests.append(best)
                text = f"grid {best:.4f}, asha {min(reached):.4f} in {len(halving)} trials, {epochs} epochs"
                measure.progress(f"{task}, seed {seed}: {text}, {shares[-1]:.3f} of the grid's")
            rows.append([task, measure.Sample(tuple(bests)).text(3), *_summary(shares)])
    measure.report(
        "Asynchronous halving and a grid",
        [
            "task",
            "lowest val_loss of the grid",
            "as good",
            "epochs of the grid's, median (range)",
            "mean, 95 % interval",
        ],
        rows,
        f"{options.points} points of {EPOCHS} epochs; ASHA with rungs of 1, 3 and 9 epochs (eta 3), at most {options.max_trials} "
        f"trials, {options.parallel} at a time. {options.seeds} seeds of training and search. Epochs of all trials that were "
        "running when the goal was reached are counted. Goal: a fifth.",
    )


def _summary(shares: list[float]) -> list[str]:
    """Number of searches that were as good, median and range of the shares, and the mean with its interval (Student)."""
    finite = [share for share in shares if share < math.inf]
    count = f"{len(finite)} of {len(shares)}"
    if len(finite) < len(shares) or len(shares) not in STUDENT:
        return [count, measure.Sample(tuple(finite)).text(2) if finite else "", ""]
    mean = statistics.fmean(shares)
    half = STUDENT[len(shares)] * statistics.stdev(shares) / math.sqrt(len(shares))
    return [count, measure.Sample(tuple(shares)).text(2), f"{mean:.2f}, {mean - half:.2f} to {mean + half:.2f}"]


def _epochs(row: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """Epochs that a trial trained itself: without those of the trial that it continues."""
    parent = next((other for other in rows if other["name"] == row["place"].get("parent")), None)
    total = int(row["assignments"].get("trainer.max_epochs", EPOCHS))
    return total - (int(parent["assignments"]["trainer.max_epochs"]) if parent else 0)


def _search(
    folder: Path, task: str, seed: int, algorithm: str, trials: int, parallel: int, goal: float | None = None
) -> list[dict[str, Any]]:
    """Run one search; return the rows of its trials."""
    space = RANGES if algorithm == "asha" else GRID
    line = f"python train.py {TASKS[task]} {COMMON} seed={seed} hydra.run.dir=/runs/${{trialParameters.trialName}}"
    line += "".join(f" {name}=${{trialParameters.{_reference(name)}}}" for name in space)
    line += "" if algorithm == "asha" else f" trainer.max_epochs={EPOCHS}"
    halving = {"r_l": str(EPOCHS), "eta": "3", "resource_name": "trainer.max_epochs", "random_state": str(seed)}
    settings = [{"name": name, "value": value} for name, value in (halving if algorithm == "asha" else {}).items()]
    container = {"name": "main", "image": "none", "command": ["sh", "-c", line]}
    job = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    references = {"trialName": "${trialSpec.Name}"} | {_reference(name): name for name in space}
    spec: dict[str, Any] = {
        "objective": {
            "type": "minimize",
            "objectiveMetricName": "val_loss",
            **({} if goal is None else {"goal": goal}),
        },
        "algorithm": {"algorithmName": algorithm, "algorithmSettings": settings},
        "parallelTrialCount": parallel,
        "maxTrialCount": trials,
        "parameters": [
            {"name": name, "parameterType": kind, "feasibleSpace": text} for name, (kind, text) in space.items()
        ],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": name, "reference": reference} for name, reference in references.items()],
            "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
        },
    }
    file, place = folder / f"{algorithm}.yaml", folder / algorithm
    value = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": algorithm}, "spec": spec}
    file.write_text(yaml.safe_dump(value, width=10_000))
    # The scheduler of this file is ours already: Katib's rules do not know it.
    measure.fresh_command(["katib", "run", str(file), "--folder", str(place), "--no-check", "--warm"])
    rows = [json.loads(text) for text in (place / "trials.jsonl").read_text().splitlines()]
    if bad := [row for row in rows if row["status"] not in ("Succeeded", "Killed")]:
        raise RuntimeError(f"{bad[0]['name']}: {bad[0]['status']} {bad[0]['reason']}")
    return rows


def _reference(name: str) -> str:
    return name.replace(".", "_")


if __name__ == "__main__":
    main()
