"""The explanation of a model: a sample is explained and judged, and the report written."""

import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from config import files, parsing, tasks
from config.numbers import replace_non_finite
from explain import chunks, judgement, looks, report, sample, slices
from explain.judgement import Verdict
from explain.model import Subject
from explain.options import Options
from explain.tables import Table
from runs import folder as folders

FILE = "verdict.json"
VALUES = "values.npz"
LINES = "explanations.jsonl"


def explain_model(subject: Subject, options: Options, folder: Path) -> Verdict:
    """Explain and judge a model, and write verdict.json, values.npz, explanations.jsonl, report.md and report.html.

    Args:
        subject: the model and its data.
        options: conf/explain.
        folder: folder of the report; other files in it stay.

    Raises:
        InputError: the options are not possible for the model, or the folder has such files of another program.
    """
    names = (VALUES, LINES, "report.html", "report.md", FILE)
    files.check_output_folder(folder, names, _is_report, "an explanation report")
    task, explainer = subject.saved.task, subject.explainer
    examples = str(tasks.load_member(task, "EXAMPLES", "explain"))
    positions, settings, explanations, stop = _explain_sample(subject, options)
    table = explainer.table(explanations)
    lines = explainer.lines(subject.data, positions, explanations, table)
    verdict = _decide_verdict(task, table, explainer.slices(lines, explanations), options, explainer, stop["alpha"])
    provenance = _provenance(subject, positions, settings)
    verdict = replace(verdict, provenance=provenance, stop=stop)
    sections = explainer.report_sections(subject, settings, options, positions, explanations, lines)
    _save_values(folder / VALUES, [line["id"] for line in lines], explanations)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with files.atomic_write(folder / LINES) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    report.write(folder / "report.html", verdict, sections, explainer, examples)
    files.write_text(folder / "report.md", report.markdown(verdict, examples))
    fields = replace_non_finite(judgement.verdict_fields(verdict))
    files.write_text(folder / FILE, json.dumps(fields, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return verdict


def _is_report(folder: Path) -> bool:
    """Return whether the folder has a verdict of isotrain, or what a killed process left: values, which are written first.

    In a run folder a report is isotrain's in any case.
    """
    verdict = files.read_json(folder / FILE)
    if verdict or folders.is_run(folder.parent):
        return not verdict or {"task", "measures", "about"} <= verdict.keys()
    parsing.check_regular(folder / VALUES)
    if not zipfile.is_zipfile(folder / VALUES):
        return False
    with zipfile.ZipFile(folder / VALUES) as archive:
        return set(archive.namelist()) == {f"{name}.npy" for name in ("ids", "offsets", "values", "gradients")}


def _explain_sample(subject: Subject, options: Options) -> tuple[list[int], Any, chunks.Explanations, dict[str, Any]]:
    """Explain a sample of the evaluation set, up to the look at which the model passes beyond doubt.

    Returns:
        The positions of the explained examples, ascending, the settings of the explainer, the explanations, and the result of
        `looks.describe_stop`.
    """
    explainer = subject.explainer
    ids, strata = explainer.examples(subject.data)
    order = sample.rank_positions(ids, strata, options.examples or explainer.EXAMPLES, options.seed)
    plan = looks.plan_looks(len(order), explainer.CHUNK, options)
    settings = explainer.settings(options, subject.saved.settings.get("model", {}))
    null = explainer.random_network(subject, options.seed + 1)
    job = chunks.Job(subject, null, ids, sorted(order), order, settings, int(options.section.get("words", 0)))
    explained: dict[int, dict[str, Any]] = {}
    with _progress_bar(len(order)) as (step, done):
        if options.precision == "auto":
            settings = chunks.choose_precision(job, step)
        stream = zip(order, chunks.explain_chunks(job, settings, step, done), strict=True)
        for look in plan:
            explained |= islice(stream, look.examples - len(explained))
            explained = dict(sorted(explained.items()))
            if look is plan[-1]:
                break
            if looks.is_certain(subject.saved.task, explainer.table([*explained.values()]), options, explainer, look):
                break
    return list(explained), settings, list(explained.values()), looks.describe_stop(plan, look)


def _decide_verdict(
    task: str, table: Table, names: slices.SliceNames, options: Options, explainer: ModuleType, alpha: float
) -> Verdict:
    """Return the verdict on the measures of a sample, and on its slices if explain.slice_gap is set."""
    verdict = judgement.judge_sample(task, table, options, explainer, alpha)
    blocking = [measure.name for measure in verdict.measures if measure.block]
    rows = slices.compare_slices(table, names, blocking, options.seed)
    if options.slice_gap is not None and (reason := slices.describe_worst(rows, options.slice_gap)):
        status = "failed" if verdict.accepted else verdict.status
        verdict = replace(verdict, status=status, reasons=[*verdict.reasons, reason])
    return replace(verdict, slices=rows, calibration=slices.summarise_calibration(table))


def _provenance(subject: Subject, positions: Sequence[int], settings: Any) -> dict[str, Any]:
    ids = subject.explainer.examples(subject.data)[0]
    return {
        "model": subject.digest,
        "data": subject.data.fingerprint("val"),
        "sample": sample.sample_digest([ids[position] for position in positions]),
        "settings": chunks.settings_record(settings),
        "versions": {name: version(name) for name in ("torch", "shap", "captum")},
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _save_values(path: Path, ids: Sequence[str], explanations: chunks.Explanations) -> None:
    """Write `ids` [N], `offsets` [N + 1] and the concatenated `values` and `gradients` of the examples."""
    offsets = np.cumsum([0, *(len(row["values"]) for row in explanations)])
    arrays = {name: np.concatenate([row[name] for row in explanations]) for name in ("values", "gradients")}
    with files.atomic_write(path) as file:
        np.savez(file, allow_pickle=False, ids=np.array(ids), offsets=offsets, **arrays)


@contextmanager
def _progress_bar(total: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """Show a progress bar on a terminal; yield functions to call after each example, and with the number of examples."""
    from tqdm import tqdm

    with tqdm(total=total, desc="explaining", unit="example", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield lambda: bar.update(1), lambda done: bar.update(done - bar.n)


def summarise_verdict(verdict: Verdict) -> str:
    """Summarise a verdict in one line."""
    count, size = verdict.examples, verdict.stop.get("sample", verdict.examples)
    head = f"the explanations of {count if count == size else f'{count} of {size}'} examples: {verdict.status}"
    if verdict.reasons:
        return f"{head}: {'; '.join(verdict.reasons)}"
    blocking = [measure for measure in verdict.measures if measure.block and measure.mean.examples]
    return f"{head}: {', '.join(f'{measure.name} {measure.mean.value:.3f}' for measure in blocking)}"
