"""Explains a sample of the evaluation set, judges it, and writes the report."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from config import files, tasks
from explain import chunks, judgement, report, sample, slices, tables
from explain.judgement import Verdict
from explain.model import Subject
from explain.options import Options
from runs import page

FILE = "verdict.json"
VALUES = "values.npz"
LINES = "explanations.jsonl"


@dataclass(frozen=True)
class SampleResult:
    """An explained sample.

    Attributes:
        ids: of its examples.
        positions: of its examples, in the validation split.
        settings: of the explainer, that were used.
        explained: of the explainer, for each example.
    """

    ids: list[str]
    positions: list[int]
    settings: Any
    explained: chunks.Explanations


def explain_model(subject: Subject, options: Options, folder: Path) -> Verdict:
    """Explains and judges a model, and writes verdict.json, values.npz, explanations.jsonl, report.md and report.html.

    Args:
        subject: the model and its data.
        options: conf/explain.
        folder: where the report goes; what else is there stays.

    Raises:
        InputError: what is wanted cannot be.
    """
    task, explainer = subject.saved.task, subject.explainer
    examples = str(tasks.load_member(task, "EXAMPLES", "explain"))
    result = explain_sample(subject, options)
    explained, positions = result.explained, result.positions
    table = explainer.table(explained)
    lines = explainer.lines(subject.data, positions, explained, table)
    verdict = decide_verdict(task, table, explainer.slices(lines, explained), options, explainer)
    verdict = replace(verdict, about=_about(subject, result))
    parts = explainer.parts(subject, result.settings, options, positions, explained, lines)
    _save(folder / VALUES, [line["id"] for line in lines], explained)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with files.atomic_write(folder / LINES) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    title = f"Explanations: {verdict.status}"
    page.write(folder / "report.html", title, report.html(verdict, parts, explainer, examples))
    files.write_text(folder / "report.md", report.markdown(verdict, examples))
    text_ = json.dumps(_finite(asdict(verdict)), ensure_ascii=False, indent=1, allow_nan=False)
    files.write_text(folder / FILE, text_ + "\n")
    return verdict


def explain_sample(subject: Subject, options: Options) -> SampleResult:
    """Explains a sample of the evaluation set."""
    explainer = subject.explainer
    ids, strata = explainer.examples(subject.data)
    positions = sample.choose_positions(ids, strata, options.examples or explainer.EXAMPLES, options.seed)
    settings = explainer.settings(options, subject.saved.settings.get("model", {}))
    null = explainer.random_network(subject, options.seed + 1)
    job = chunks.Job(subject, null, ids, positions, settings, int(options.own.get("words", 0)))
    with _bar(len(positions)) as (step, done):
        if options.precision == "auto":
            settings = chunks.choose_precision(job, step)
        explained = list(chunks.explain_chunks(job, settings, step, done))
    return SampleResult([ids[at] for at in positions], positions, settings, explained)


def decide_verdict(
    task: str, table: tables.Table, names: slices.SliceNames, options: Options, explainer: ModuleType
) -> Verdict:
    """The verdict on a sample: of its measures, and of its slices if they count."""
    verdict = judgement.judge_sample(task, table, options, explainer)
    blocking = [measure.name for measure in verdict.measures if measure.block]
    compared = slices.compare_slices(table, names, blocking, options.seed)
    if options.slice_gap is not None and (why := slices.describe_worst(compared, options.slice_gap)):
        worse = {"passed": "failed", "warned": "failed"}.get(verdict.status, verdict.status)
        verdict = replace(verdict, status=worse, why=[*verdict.why, why])
    return replace(verdict, slices=compared, calibration=slices.summarise_calibration(table))


def _about(subject: Subject, result: SampleResult) -> dict[str, Any]:
    return {
        "model": subject.digest,
        "data": subject.data.fingerprint("val"),
        "sample": sample.sample_digest(result.ids),
        "settings": chunks.settings_record(result.settings),
        "versions": {name: version(name) for name in ("torch", "shap", "captum")},
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _finite(value: Any) -> Any:
    """The same with null for what is no number: JSON has none for those."""
    if isinstance(value, dict):
        return {name: _finite(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _save(path: Path, ids: Sequence[str], explained: chunks.Explanations) -> None:
    """values.npz: `ids` [N], `offsets` [N + 1] and, one example after another, `values` and `gradients`."""
    offsets = np.cumsum([0, *(len(row["values"]) for row in explained)])
    arrays = {name: np.concatenate([row[name] for row in explained]) for name in ("values", "gradients")}
    with files.atomic_write(path) as file:
        np.savez(file, allow_pickle=False, ids=np.array(ids), offsets=offsets, **arrays)


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """Progress on a terminal: to be called after each example, and with how many are done."""
    from tqdm import tqdm

    with tqdm(total=total, desc="explaining", unit="example", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield lambda: bar.update(1), lambda done: bar.update(done - bar.n)


def summarise_verdict(verdict: Verdict) -> str:
    """A verdict in one line."""
    head = f"the explanations of {verdict.examples} examples: {verdict.status}"
    if verdict.why:
        return f"{head}: {'; '.join(verdict.why)}"
    judged = [measure for measure in verdict.measures if measure.block and measure.mean.examples]
    return f"{head}: {', '.join(f'{measure.name} {measure.mean.value:.3f}' for measure in judged)}"
