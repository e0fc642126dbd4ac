"""Explains a sample of the evaluation set, judges it, and writes the report."""

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from config import files
from explain import chunks, image_pages, images, judge, lines, question_pages, report, sample, slices
from explain.chunks import Explained
from explain.judge import Verdict
from explain.model import Subject, random

FILE = "verdict.json"
VALUES = "values.npz"
LINES = "explanations.jsonl"
EXAMPLES = {"question_answering": 128, "image_classification": 256}


def run(subject: Subject, asked: Mapping[str, Any], folder: Path) -> Verdict:
    """Explains and judges a model, and writes verdict.json, values.npz, explanations.jsonl, report.md and report.html.

    Args:
        subject: the model and its data.
        asked: conf/explain.
        folder: where the report goes; what else is there stays.

    Raises:
        Refused: what is asked cannot be.
    """
    task, data = subject.saved.task, subject.data
    bounds = calibrated(asked, task)
    ids, strata = _examples(data, task)
    chosen = sample.choose(ids, strata, asked["examples"] or EXAMPLES[task], asked["seed"])
    settings = chunks.settings(subject, asked)
    words = asked[task]["words"] if task == "question_answering" else 0
    job = chunks.Job(subject, random(subject, asked["seed"] + 1), ids, chosen, settings, words)
    with _bar(len(chosen)) as (step, done):
        if asked["precision"] == "auto":
            settings = chunks.precise(job, step)
        explained = list(chunks.all_of(job, settings, step, done))
    if task == "image_classification":
        table = judge.of_images(explained)
        told = lines.of_images(data, chosen, explained, table)
        names = slices.of_images([each["label"] for each in told], np.array([each["area"] for each in explained]))
    else:
        table = judge.of_questions(explained)
        told = lines.of_questions(data.examples, chosen, explained)
        names = slices.of_questions(
            [each["question"] for each in told], [(each["answers"] or [""])[0] for each in told]
        )
    verdict = judge.judge(task, table, bounds)
    blocking = [each.name for each in verdict.measures if each.block]
    compared = slices.compared(table, names, blocking, asked["seed"])
    if asked["slice_gap"] is not None and (why := slices.worst(compared, asked["slice_gap"])):
        worse = {"passed": "failed", "warned": "failed"}.get(verdict.status, verdict.status)
        verdict = replace(verdict, status=worse, why=[*verdict.why, why])
    about = {
        "model": subject.digest,
        "data": data.fingerprint("val"),
        "sample": sample.digest([ids[at] for at in chosen]),
        "settings": asdict(settings),
        "versions": {name: version(name) for name in ("torch", "shap", "captum")},
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    verdict = replace(verdict, about=about, slices=compared, calibration=slices.calibrated(table))
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / VALUES, [each["id"] for each in told], explained)
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told)
    (folder / LINES).write_text(text, encoding="utf-8", errors="backslashreplace")
    if isinstance(settings, images.Settings):
        count = asked[task]["pictures"]
        parts = image_pages.parts(subject, settings, chosen, explained, told, count)
    else:
        parts = question_pages.parts(told)
    report.write(folder, verdict, parts)
    text = json.dumps(_finite(asdict(verdict)), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    return verdict


def _finite(value: Any) -> Any:
    """The same with null for what is no number: JSON has none for those."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def calibrated(asked: Mapping[str, Any], task: str) -> dict[str, Any]:
    """conf/explain with the bounds of its file of thresholds, if it names one."""
    settings: dict[str, Any] = copy.deepcopy(dict(asked))
    if asked["thresholds"] is not None:
        from explain import calibrate

        for name, bound in calibrate.read(str(asked["thresholds"]), task).items():
            if name in settings[task]["measures"]:
                settings[task]["measures"][name]["bound"] = bound
    return settings


def _examples(data: Any, task: str) -> tuple[list[str], list[Any]]:
    """Ids and strata of the validation split: an image's class, a question's document."""
    if task == "image_classification":
        return [data.names[at] for at in range(len(data.val))], data.val.labels.tolist()
    examples = data.examples
    count = range(len(examples))
    return [examples.id(at) for at in count], [examples.document(at) for at in count]


def _save(path: Path, ids: Sequence[str], explained: Explained) -> None:
    """values.npz: `ids` [N], `offsets` [N + 1] and, one example after another, `values` and `gradients`."""
    offsets = np.cumsum([0, *(len(each["values"]) for each in explained)])
    parts = {name: np.concatenate([each[name] for each in explained]) for name in ("values", "gradients")}
    with files.replacing(path) as file:
        np.savez(file, allow_pickle=False, ids=np.array(ids), offsets=offsets, **parts)


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """Progress on a terminal: to be called after each example, and with how many are done."""
    from tqdm import tqdm

    with tqdm(total=total, desc="explaining", unit="example", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield lambda: bar.update(1), lambda done: bar.update(done - bar.n)


def text(verdict: Verdict) -> str:
    """A verdict in one line."""
    said = f"the explanations of {verdict.examples} examples: {verdict.status}"
    if verdict.why:
        return f"{said}: {'; '.join(verdict.why)}"
    means = (f"{each.name} {each.mean.value:.3f}" for each in verdict.measures if each.block and each.mean.examples)
    return f"{said}: {', '.join(means)}"
