"""How often the explanation gate errs, over seeds: `python -m benchmarks.explain_gate [--seeds 10] [--tasks images questions]`.

For each seed it trains a model without a shortcut, one on data with a planted shortcut, and one with random weights, and explains
each: until the gate stops, and the whole sample. Images take about 2 minutes per seed on two cores, questions 6. `--keep FOLDER`
keeps finished runs and reuses them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from studies.common import wilson

from benchmarks import measure, planted

IMAGES = [
    *("model=resnet18", "model.name=resnet10t", "model.stem=standard", "data=tiny_imagenet", "data.image_size=32"),
    *("data.augment.crop_padding=2", "data.augment.flip=false", "data.augment.label_smoothing=0", "data.batch_size=32"),
    *("data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", "trainer.max_epochs=8"),
]
TEXTS = [
    *("model=bert_tiny_classifier", "model.architecture.num_hidden_layers=2", "data=text_folder", "data.max_length=48"),
    *("model.architecture.layer_types=[full_attention,full_attention]", "trainer.max_epochs=2"),
]
UNTRAINED = ["trainer.max_epochs=null", "trainer.max_steps=1", "optim.lr=1e-9"]
EXPLAINED = {
    "images": ["explain.image_classification.grid=4", "explain.image_classification.pictures=0"],
    "questions": ["explain.question_answering.words=0"],
    "texts": ["explain.text_classification.words=0"],
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", choices=tuple(EXPLAINED), default=list(EXPLAINED))
    parser.add_argument("--keep", type=Path, help="folder for data and runs")
    parser.add_argument("overrides", nargs="*", help="of every training, trainer.threads=1 say")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        for task in options.tasks:
            kinds = models(task, folder)
            found: dict[str, list[Result]] = {name: [] for name in kinds}
            for seed in range(options.seeds):
                for name, overrides in kinds.items():
                    of = folder / f"{task}-{name.replace(' ', '-')}-{seed}"
                    found[name].append(one(task, of, [*overrides, f"seed={seed}", *options.overrides]))
                    measure.progress(f"{task}, {name}, seed {seed}: {found[name][-1]}")
            for name, results in found.items():
                passed, whole = (
                    sum(status in ("passed", "warned") for status in statuses)
                    for statuses in ([row.status for row in results], [row.whole for row in results])
                )
                scores = measure.Sample(tuple(row.score for row in results))
                explained = measure.Sample(tuple(100 * row.explained for row in results))
                low, high = wilson(passed, len(results))
                share = f"{low:.0%} to {high:.0%}"
                rows.append(
                    [
                        f"{task}: {name}",
                        scores.text(1),
                        f"{passed} of {len(results)}",
                        share,
                        f"{whole}",
                        explained.text(0),
                    ]
                )
    measure.report(
        "Explanations: how often the gate errs", ["model", "accuracy or F1", "passed", "95 % interval", "passed, looks=1", "explained, %"], rows,
        "Required: models without shortcut pass, the others do not. Intervals are Wilson's. Explained: of the sample, until the gate "
        "stopped.",
    )  # fmt: skip


def models(task: str, folder: Path) -> dict[str, list[str]]:
    """Overrides by kind of model."""
    if task == "images":
        honest, marked = folder / "shapes", folder / "marked"
        for made in (honest, marked):
            if not made.exists():
                planted.marked_shapes(made, 1600, 400, 4, 32, mark=made == marked)
        return {
            "without shortcut": [*IMAGES, f"data.path={honest}"],
            "a marker in the corner": [*IMAGES, f"data.path={marked}"],
            "random weights": [*IMAGES, f"data.path={honest}", *UNTRAINED],
        }
    if task == "texts":
        honest, blind = folder / "texts", folder / "blind-texts"
        for made in (honest, blind):
            if not made.exists():
                planted.texts(made, 2_000, 400, blind=made == blind)
        return {
            "without shortcut": [*TEXTS, f"data.path={honest}"],
            "trained without texts": [*TEXTS, f"data.path={blind}"],
            "random weights": [*TEXTS, f"data.path={honest}", *UNTRAINED],
        }
    first, blind = folder / "first", folder / "blind"
    if not first.exists():
        planted.questions(first, 16_000, 1_200, first=True)
    if not blind.exists():
        planted.questions(blind, 4_000, 600, blind=True)
    return {
        "without shortcut": [],
        "answers come first": [f"data.path={first}", "trainer.max_epochs=3"],
        "trained without questions": [f"data.path={blind}"],
        "random weights": [f"data.path={blind}", *UNTRAINED],
    }


class Result(NamedTuple):
    """What the gate says of a model: until it stops, and from the whole sample."""

    score: float
    status: str
    whole: str
    explained: float


def one(task: str, folder: Path, overrides: list[str], examples: int = 96) -> Result:
    """Trains and explains, unless that was done."""
    few = ["explain=warn", f"explain.examples={examples}", "explain.min_correct=1", *EXPLAINED[task]]
    if not _recorded(folder):
        _command("train.py", *overrides, "quality=off", *few, f"hydra.run.dir={folder}")
    record, whole = _recorded(folder), folder / "whole" / "verdict.json"
    if not whole.exists():
        threads = [word for word in overrides if word.startswith("trainer.threads=")]
        _command("-m", "explain", f"run={folder}", *few, *threads, "explain.looks=1", "--folder", str(whole.parent))
    stop, status = record["explain"]["stop"], json.loads(whole.read_text())["status"]
    score = record["metrics"][record["config"]["monitor"]]
    return Result(score, record["explain"]["status"], status, stop["examples"] / stop["sample"])


def _command(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=measure.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def _recorded(folder: Path) -> dict[str, Any]:
    """The record of a finished run; empty if there is none."""
    path = folder / "run.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record if record.get("status") == "finished" else {}


if __name__ == "__main__":
    main()
