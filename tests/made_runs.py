"""Finished runs' folders with predictions, made without training: what `python -m runs` reads."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from runs import folder as folders
from runs import metric_lines, predictions, record

MARK = "ab" * 32
OWN_TASK = Path(__file__).resolve().parent / "own_task"  # what somebody else's package and conf may look like
SOURCE = Path(__file__).resolve().parents[1] / "src"


def questions(count: int, rate: float, seed: int, documents: int = 24) -> list[dict[str, Any]]:
    """Rows of answers, a share `rate` of them right; what is hard for one seed is hard for the other."""
    ease = np.random.default_rng(99).random(count)
    generator = np.random.default_rng(seed)
    right = ease * 0.5 + generator.random(count) * 0.5 < rate
    return [
        {
            "id": f"q{number}", "document": f"document {number % documents}", "question": f"What is {number}?",
            "prediction": f"it is {number}" if good else "no", "score": 3.0, "answers": [f"it is {number}"],
            "exact_match": int(good), "f1": 1.0 if good else float(number % 3) / 4, "start": 0, "end": 2,
            "probability": 0.9 if good else 0.4,
        }
        for number, good in enumerate(right)
    ]  # fmt: skip


def images(count: int, rate: float, seed: int, classes: int = 12) -> list[dict[str, Any]]:
    """Rows of classified images."""
    ease = np.random.default_rng(99).random(count)
    generator = np.random.default_rng(seed)
    right = ease * 0.5 + generator.random(count) * 0.5 < rate
    names = [f"n{number:02}" for number in range(classes)]
    rows = []
    for number, good in enumerate(right):
        label = names[number % classes]
        said = label if good else names[(number + 1 + number // classes) % classes]
        rest = [name for name in names if name != said][:4]
        rows.append(
            {
                "id": f"val/images/{number}.JPEG", "label": label, "prediction": said, "probability": 0.8 if good else 0.5,
                "top5": [said, *rest], "correct": label == said, "loss": 0.2 if label == said else 1.5 + number % 7 / 10,
            }
        )  # fmt: skip
    return rows


def ages(count: int, spread: float, seed: int) -> list[dict[str, Any]]:
    """Rows of tests/own_task: a number for each example, off by `spread` years or so."""
    generator = np.random.default_rng(seed)
    return [
        {"id": f"face {number}", "age": 20.0 + number % 50, "prediction": 20.0 + number % 50 + float(off)}
        for number, off in enumerate(generator.normal(0, spread, count))
    ]


def own_task(folder: Path = OWN_TASK) -> dict[str, str]:
    """The environment of a machine that knows tests/own_task, or a copy of it."""
    return {"ISOTRAIN_CONF": str(folder / "conf"), "PYTHONPATH": f"{SOURCE}:{folder}"}


def task_of(rows: list[dict[str, Any]]) -> str:
    """The task that rows of this module are of."""
    keys = {"exact_match": "question_answering", "correct": "image_classification", "age": "age"}
    return next(task for key, task in keys.items() if key in rows[0])


def final(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of a run with these predictions."""

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    task = task_of(rows)
    if task == "question_answering":
        return {"val_exact_match": 100 * mean("exact_match"), "val_f1": 100 * mean("f1"), "val_loss": 1.0}
    if task == "image_classification":
        return {"val_accuracy": 100 * mean("correct"), "val_loss": mean("loss")}
    return {"val_mae": float(np.mean([abs(row["prediction"] - row["age"]) for row in rows]))}


MONITORS = {"question_answering": "val_f1", "image_classification": "val_accuracy", "age": "val_mae"}
CHOICES = {
    "question_answering": {"model": "bert_tiny", "data": "squad_sample"},
    "image_classification": {"model": "resnet18", "data": "shapes"},
    "age": {"model": "resnet18", "data": "faces"},
}


def write(folder: Path, rows: list[dict[str, Any]], mark: str = MARK, **config: Any) -> Path:
    """A finished run with these predictions; `config` overrides the configuration's top level."""
    task, metrics = task_of(rows), final(rows)
    folder.mkdir(parents=True)
    run = record.start_record(
        folder,
        config={"seed": 0, "monitor": MONITORS[task], "task": {"name": task}, "optim": {"lr": 1e-3}, **config},
        seeds={"seed": 0},
        command=["python", "train.py", f"hydra.run.dir={folder}"],
    )
    data = {"fingerprints": {"train": "cd" * 32, "val": mark}}
    run.update(choices=CHOICES[task], data=data, metrics=metrics)
    for epoch in (1, 2, 3):
        values = {name: value * epoch / 3 for name, value in metrics.items()}
        metric_lines.write(values, epoch, epoch * 10, stream=io.StringIO(), jsonl_path=folder / folders.METRICS)
    predictions.write(folder / folders.PREDICTIONS, rows)
    run.end("finished")
    return folder


def read(text: str) -> Any:
    """JSON that has no NaN in it."""
    return json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
