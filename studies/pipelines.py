"""Do pipelines accelerate model development? From a changed file to an evaluated model."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

from studies import common
from studies.common import Done, Row, Settings

TITLE = "Do pipelines accelerate model development?"
HYPOTHESIS = (
    "A single command that verifies, trains, scores, explains and reports replaces several commands and takes less time than they do, because "
    "data and models are opened once. A pipeline also takes one command, but more time, because each step is a process. "
    "After a change of the model alone, the data is not prepared again."
)


def run(settings: Settings, folder: Path) -> list[Row]:
    """One row for each arm, seed and state of the caches: commands and seconds from a changed file to a judged model."""
    rows = []
    for seed in settings["seeds"]:
        for arm, judge in (("by hand", _by_hand), ("train.py alone", _alone), ("the pipeline", _pipeline)):
            for state in ("cold", "warm"):

                def compute(judge=judge, seed: int = seed, arm: str = arm, state: str = state) -> Row:  # type: ignore[no-untyped-def]
                    place = folder / "runs" / f"{arm.replace(' ', '-')}-{seed}"
                    if state == "cold":
                        shutil.rmtree(place, ignore_errors=True)
                    shutil.rmtree(place / state, ignore_errors=True)  # of a study that was killed
                    done: list[Done] = judge(place, state, seed, settings)
                    for each in done:
                        if each.code not in (0, 5, 6):  # a gate said no, which is a judgement, too
                            raise common.failed(each)
                    return {"commands": len(done), "seconds": sum(each.seconds for each in done)}

                found = common.unit(folder, f"{arm.replace(' ', '-')}-{state}-{seed}", compute)
                rows.append({"arm": arm, "state": state, "seed": seed, **found})
    return rows


def _data(place: Path, seed: int) -> list[str]:
    return ["data=squad_sample", "data.sample.train=2000", "data.sample.val=200", f"data.cache_dir={place / 'cache'}"]


def _model(seed: int, state: str, settings: Settings) -> list[str]:
    """The change between cold and warm is one of the model: its learning rate."""
    rate = "optim.lr=1e-3" if state == "cold" else "optim.lr=2e-3"
    return [
        "model=bert_tiny",
        rate,
        f"seed={seed}",
        f"trainer.max_steps={settings['pipelines']['steps']}",
        f"trainer.threads={settings['threads']}",
    ]


_EXPLAIN = ["explain.examples=32", "explain.min_correct=1"]


def _by_hand(place: Path, state: str, seed: int, settings: Settings) -> list[Done]:
    """Each part by its own command, as people do who have scripts: verify, train, score, explain, look."""
    data, run = _data(place, seed), place / state
    return [
        common.run("-m", "quality", *data, "--folder", place / f"quality-{state}"),
        common.run("train.py", *data, *_model(seed, state, settings), "quality=off", f"hydra.run.dir={run}"),
        common.run("-m", "trainers", "evaluate", f"run={run}", "--output", place / f"scored-{state}"),
        common.run("-m", "explain", f"run={run}", *_EXPLAIN),
        common.run("-m", "runs", "report", run),
    ]


def _alone(place: Path, state: str, seed: int, settings: Settings) -> list[Done]:
    """One command."""
    return [
        common.run(
            "train.py",
            *_data(place, seed),
            *_model(seed, state, settings),
            "explain=enforce",
            *_EXPLAIN,
            f"hydra.run.dir={place / state}",
        )
    ]


def _pipeline(place: Path, state: str, seed: int, settings: Settings) -> list[Done]:
    """One command, and all that a cluster would do: a process for each step, gates, and the registry."""
    asked = [*_data(place, seed), *_model(seed, state, settings), *_EXPLAIN]
    done = common.run("-m", "pipelines", "run", *asked, "--root", place / "pipeline", "--name", state)
    steps = json.loads((place / "pipeline" / "pipelines" / state / "pipeline.json").read_text())["steps"]
    if not any(each["step"] == "explain" and each["state"] == "done" for each in steps):
        raise common.failed(done)  # it ended before the model was judged
    return [done]


def report(rows: list[Row], figures: Path) -> str:
    """The section."""
    cells, values = [], {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for state in ("cold", "warm"):
            of = [row for row in rows if (row["arm"], row["state"]) == (arm, state)]
            seconds = sorted(row["seconds"] for row in of)
            cells.append(
                [
                    f"{arm}, caches {state}",
                    of[0]["commands"],
                    f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})",
                ]
            )
            values[f"{arm}, {state}"] = (statistics.median(seconds), seconds[0], seconds[-1])
    return "\n\n".join([
        common.table(["arm", "commands", "seconds"], cells),
        common.bars(figures / "pipelines.svg", "From a changed file to an evaluated model", values, "seconds, smallest to largest"),
        "Warm: only the learning rate changed since the cold run. Training is short on purpose, so that everything else is measured. "
        "\"By hand\" runs the separate commands one after another without pauses. The pipeline runs as on a cluster, without the time that pods "
        "take to start; it also compares with the last model and registers the new one.",
    ])  # fmt: skip
