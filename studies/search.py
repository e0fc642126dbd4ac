"""Does Katib's search yield effective models? Its algorithms and the default configuration at equal compute."""

from __future__ import annotations

import json
import shutil
import statistics
from functools import partial
from pathlib import Path

from studies import common
from studies.common import Row, Settings

TITLE = "Does Katib's search yield effective models?"
HYPOTHESIS = (
    "At equal compute, a search finds a better configuration than the default of an untuned model; TPE is at least as good as "
    "random search, and grid search is no better; early stopping finds at least as much with the same steps."
)
# Without n_startup_trials the first ten trials of TPE are random search's.
ARMS = {
    "random": ["--algorithm", "random"],
    "grid": ["--algorithm", "grid"],
    "tpe": ["--algorithm", "multivariate-tpe", "--setting", "n_startup_trials=3"],
    "tpe, stopped early": ["--algorithm", "multivariate-tpe", "--setting", "n_startup_trials=3", "--stop-early"],
}
TASKS = {
    "images": (
        ["model=resnet18", "model.name=resnet10t", "model.stem=standard", "data=shapes", "data.image_size=32", "data.augment.crop_padding=2",
         "data.augment.flip=false", "data.batch_size=32"],
        "val_accuracy",
    ),
    "questions": (["model=bert_tiny", "data=squad_sample"], "val_f1"),
}  # fmt: skip
# Grid search takes its points from steps; the same range for all.
SPACE = ["optim.lr=loguniform(1e-4,3e-2)", "optim.weight_decay=uniform(0.001,0.2)", "optim.warmup=uniform(0.02,0.4)"]
GRID = [
    "optim.lr=choice(0.0003,0.001,0.003,0.01)",
    "optim.weight_decay=choice(0.01,0.1)",
    "optim.warmup=choice(0.1,0.3)",
]


def run(settings: Settings, folder: Path) -> list[Row]:
    """One row for each task, arm and seed: the best metric, the steps that it took, and the course."""
    own, rows = settings["search"], []
    for task in own["tasks"]:
        base, monitor = TASKS[task]
        size = [
            f"data.sample.train={own['train']}",
            f"data.sample.val={own['val']}",
            f"trainer.max_epochs={own['epochs']}",
        ]
        fixed = [*base, *size, f"trainer.threads={settings['threads']}", "quality=off"]
        for seed in settings["seeds"]:
            for arm in ("default", *ARMS):
                name = f"{task}-{arm}-{seed}".replace(", ", "-").replace(" ", "-")
                if arm == "default":
                    compute = partial(_default, folder / "runs" / name, fixed, seed, monitor)
                else:
                    compute = partial(_searched, folder, name, fixed, ARMS[arm], seed, own)
                rows.append({"task": task, "arm": arm, "seed": seed, **common.unit(folder, name, compute)})
    return rows


def _default(target: Path, fixed: list[str], seed: int, monitor: str) -> Row:
    """Trains the default configuration once."""
    shutil.rmtree(target, ignore_errors=True)  # of a study that was killed: its seconds would not be all
    done = common.run("train.py", *fixed, f"seed={seed}", f"hydra.run.dir={target}")
    if done.code:
        raise common.failed(done)
    value = common.record(target)["metrics"][monitor]
    return {"best": value, "course": [value], "seconds": done.seconds}


def _searched(folder: Path, name: str, fixed: list[str], algorithm: list[str], seed: int, own: Settings) -> Row:
    """Writes an Experiment, runs it here, and reads its trials."""
    file, of = folder / "experiments" / f"{name}.yaml", folder / "searches" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(of, ignore_errors=True)
    stops = "--stop-early" in algorithm
    trials = own["stopped"] if stops else own["trials"]
    seeded = [] if "grid" in algorithm else ["--setting", f"random_state={seed}"]
    space = GRID if "grid" in algorithm else SPACE
    made = common.run(
        "-m", "katib", "new", *fixed, f"seed={seed}", *space, *algorithm, *seeded, "--max-trials", str(trials), "--parallel", "1",
        "--name", "study", "-o", file,
    )  # fmt: skip
    if made.code:
        raise common.failed(made)
    done = common.run("-m", "katib", "run", file, "--folder", of)
    if done.code:
        raise common.failed(done)
    lines = [json.loads(line) for line in (of / "trials.jsonl").read_text().splitlines()]
    course = [float(line["value"]) for line in lines if line.get("value") is not None]
    if not course:
        raise RuntimeError(f"no trial of {of} reported a value: {done.err[-1500:]}")
    return {
        "best": max(course),
        "course": course,
        "seconds": done.seconds,
        "trials": len(lines),
        "stopped": sum(line["status"] == "EarlyStopped" for line in lines),
    }


def report(rows: list[Row], figures: Path) -> str:
    """The section."""
    parts, values = [], {}
    for task in dict.fromkeys(row["task"] for row in rows):
        of = [row for row in rows if row["task"] == task]
        default = {row["seed"]: row["best"] for row in of if row["arm"] == "default"}
        cells = []
        for arm in ("default", *ARMS):
            mine = [row for row in of if row["arm"] == arm]
            best = [row["best"] for row in mine]
            over = [row["best"] - default[row["seed"]] for row in mine]
            mean, low, high = _mean(over)
            until = [_until(row["course"], default[row["seed"]]) for row in mine]
            reached = [each for each in until if each is not None]
            said = (
                f"{statistics.median(reached):g} ({len(reached)} of {len(until)})"
                if reached
                else f"never ({len(until)})"
            )
            between = "" if arm == "default" else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
            cells.append(
                [
                    arm,
                    f"{statistics.mean(best):.2f}",
                    between,
                    "" if arm == "default" else said,
                    f"{statistics.median(row['seconds'] for row in mine):.0f}",
                ]
            )
            if arm != "default":
                values[f"{task}, {arm}"] = (mean, low, high)
        head = [
            task,
            "mean best",
            "difference from the default",
            "trials to reach the default (seeds that do)",
            "seconds",
        ]
        parts.append(common.table(head, cells))
    parts.append(
        common.bars(
            figures / "search.svg",
            "Best of a search minus the default configuration",
            values,
            "points, with 95 % intervals over seeds",
        )
    )
    parts.append(
        '"Best" is the best validation metric of any trial. It is optimistic compared with new data, more so with more trials; this applies to all '
        "searches, not to the default. Intervals are Student's t over seeds, and wide for few seeds. The arm with early stopping runs more trials "
        "with the steps that it saves. TPE starts with three random trials."
    )
    return "\n\n".join(parts)


def _mean(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval; without one of a single value."""
    from scipy import stats

    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, mean, mean
    wide = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - wide, mean + wide


def _until(course: list[float], target: float) -> int | None:
    """How many trials it took to reach a value."""
    return next((number for number, value in enumerate(course, 1) if value >= target), None)
