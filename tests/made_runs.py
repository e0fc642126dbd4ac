"""Finished runs' folders with predictions, made without training: what `python -m runs` reads."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from runs import folder as folders
from runs import metric_lines, predictions, record

MARK = "ab" * 32


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


def write(folder: Path, rows: list[dict[str, Any]], mark: str = MARK, **config: Any) -> Path:
    """A finished run with these predictions; `config` overrides the configuration's top level."""
    of_questions = "exact_match" in rows[0]
    task = "question_answering" if of_questions else "image_classification"
    monitor = "val_f1" if of_questions else "val_accuracy"
    mean = lambda key: 100 * float(np.mean([row[key] for row in rows]))  # noqa: E731
    metrics = (
        {"val_exact_match": mean("exact_match"), "val_f1": mean("f1"), "val_loss": 1.0}
        if of_questions
        else {"val_accuracy": mean("correct"), "val_loss": float(np.mean([row["loss"] for row in rows]))}
    )
    folder.mkdir(parents=True)
    run = record.start(
        folder,
        config={"seed": 0, "monitor": monitor, "task": {"name": task}, "optim": {"lr": 1e-3}, **config},
        seeds={"seed": 0},
        choices={"model": "bert_tiny" if of_questions else "resnet18", "data": "squad_sample" if of_questions else "shapes"},
        data={"fingerprints": {"train": "cd" * 32, "val": mark}},
        command=["python", "train.py", f"hydra.run.dir={folder}"],
    )  # fmt: skip
    for epoch in (1, 2, 3):
        values = {name: value * epoch / 3 for name, value in metrics.items()}
        metric_lines.write(values, epoch, epoch * 10, stream=io.StringIO(), jsonl_path=folder / folders.METRICS)
    predictions.write(folder / folders.PREDICTIONS, rows)
    run.end("finished", metrics=metrics)
    return folder


def read(text: str) -> Any:
    """JSON that has no NaN in it."""
    return json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
