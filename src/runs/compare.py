"""`python -m runs compare`: compare two or more models on the same evaluation examples."""

import dataclasses
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config import tasks
from config.errors import InputError
from config.numbers import replace_non_finite
from config.terminal import format_table, make_printable
from runs import folder as folders
from runs import prediction_table
from runs.fields import as_mapping
from runs.paired_tests import PairedDifference, paired_difference
from runs.statistics import decimal_places, holm_correction

LEVEL = 0.05
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Run:
    """A run: its folder, record and predictions."""

    folder: Path
    record: Mapping[str, Any]
    table: prediction_table.PredictionTable

    @property
    def name(self) -> str:
        """The folder as printable text."""
        return make_printable(str(self.folder))


@dataclass(frozen=True)
class Side:
    """The runs of one side of a comparison, which differ only in their seeds; most often a single run."""

    name: str
    runs: list[Run]


@dataclass(frozen=True)
class MetricComparison:
    """One side compared with the first in one metric.

    Attributes:
        side: Name of the side.
        metric: Name of the metric, as in run.json.
        higher_is_better: Whether higher values are better; None if the task does not declare it.
        difference: This side minus the first.
        adjusted: p-value corrected for the number of comparisons (Holm 1979).
        verdict: "better", "worse", "no difference shown", or "different" without a declared direction.
        non_inferior: Whether the worse end of the interval lies within the margin; None if the margin is not for this metric.
        worst: That end; None if `non_inferior` is None.
    """

    side: str
    metric: str
    higher_is_better: bool | None
    difference: PairedDifference
    adjusted: float
    verdict: str
    non_inferior: bool | None
    worst: float | None


@dataclass(frozen=True)
class Comparison:
    """Result of `compare_runs`.

    Attributes:
        sides: Run folders by name of the side; the others are compared with the first.
        fingerprint: Fingerprint of the evaluation data.
        examples: Number of examples that all runs have.
        task: Name of the task.
        clustered_by: CLUSTER_NAME of the task (document, class), or example.
        notes: Restrictions, e.g. missing examples, or runs that differ in more than their seed.
        margin: Non-inferiority margin in the metric's unit, if there is one.
        results: By side and metric.
    """

    sides: dict[str, list[str]]
    fingerprint: str
    examples: int
    task: str
    clustered_by: str
    notes: list[str]
    margin: float | None
    results: list[MetricComparison]


def compare_runs(
    names: Sequence[str], metrics: Sequence[str] = (), margin: float | None = None, seed: int = 0, draws: int = 10_000
) -> Comparison:
    """Compare sides with the first one.

    Args:
        names: The sides: a run folder, a folder above several runs, or several folders separated by commas.
        metrics: Metrics to compare; by default all that the predictions of every run have.
        margin: By how much a side may be worse and still count as non-inferior, in the metric's unit. It applies to
            `metrics`; by default to the metrics with the direction of the task's monitor, because a margin for an accuracy
            does not suit a loss.
        seed: Seed of the draws.
        draws: Number of draws.

    Raises:
        InputError: There are fewer than two sides, a folder has no predictions, the runs have different tasks, different
            evaluation data or no common example, or a metric does not exist.
    """
    if len(names) < 2:
        raise InputError("compare needs two runs or more: python -m runs compare outputs/a outputs/b")
    sides = [read_side(name) for name in names]
    _check_distinct(sides)
    runs = [run for side in sides for run in side.runs]
    task, fingerprint = _common_task(runs), _common_fingerprint(runs)
    ids, notes = _common_ids(runs)
    available = [metric for metric in runs[0].table.values if all(metric in run.table.values for run in runs)]
    if unknown := [metric for metric in metrics if metric not in available]:
        raise InputError(f"not all runs have the metric {unknown[0]}; valid: {', '.join(available)}")
    selected = [metric for metric in available if not metrics or metric in metrics]
    clusters, clustered_by = _clusters(runs, ids)
    values = [{metric: _values(side.runs, metric, ids) for metric in selected} for side in sides]
    differences = {
        (side.name, metric): paired_difference(values[0][metric], side_values[metric], clusters, seed, draws)
        for side, side_values in zip(sides[1:], values[1:], strict=True)
        for metric in selected
    }
    adjusted = holm_correction({"\0".join(key): difference.p for key, difference in differences.items()})
    with_margin = _metrics_with_margin(task, selected, metrics) if margin is not None else []
    scales = {metric: _scale(task, metric, [arrays[metric] for arrays in values]) for metric in selected}
    results = [
        _result(
            name,
            metric,
            prediction_table.metric_mode(task, metric),
            difference,
            adjusted[f"{name}\0{metric}"],
            margin if metric in with_margin else None,
            scales[metric],
        )
        for (name, metric), difference in differences.items()
    ]
    notes += [note for side in sides for note in _config_notes(side)]
    notes += [note for run in runs for note in _metric_notes(run, selected)]
    notes += _seed_notes({difference.runs for difference in differences.values()})
    folder_names = {side.name: [str(run.folder) for run in side.runs] for side in sides}
    return Comparison(folder_names, fingerprint, len(ids), task, clustered_by, notes, margin, results)


def read_side(name: str) -> Side:
    """Read the runs of a side.

    Raises:
        InputError: There is no run, or one has no predictions.
    """
    paths: list[Path] = []
    # Path raises if a name is longer than the file system allows.
    for part in [name] if os.path.exists(name) else name.split(","):  # noqa: PTH110
        if not part or not os.path.isdir(part):  # noqa: PTH112
            raise InputError(f"there is no folder {make_printable(part)}")
        path = Path(part)
        has_predictions = (path / folders.PREDICTIONS).exists()
        run_paths = [path] if has_predictions else [file.parent for file in path.glob(f"*/{folders.PREDICTIONS}")]
        if not run_paths:
            raise InputError(
                f"{make_printable(part)} has no {folders.PREDICTIONS}: name a finished run, or a folder above such runs"
            )
        paths += sorted(run_paths)
    return Side(name, [_read_run(path) for path in paths])


def _read_run(folder: Path) -> Run:
    record = folders.read_record(folder)
    tasks.load_member(tasks.task_from_record(record), "scores", "python -m runs compare")
    return Run(folder, record, prediction_table.read_table(folder, record))


def _common_task(runs: Sequence[Run]) -> str:
    first = runs[0]
    for run in runs[1:]:
        if run.table.task != first.table.task:
            raise InputError(
                f"{first.name} has the task {first.table.task} and {run.name} has {run.table.task}: compare runs of one task"
            )
    return first.table.task


def _common_fingerprint(runs: Sequence[Run]) -> str:
    """Fingerprint of the evaluation data."""
    fingerprints = []
    for run in runs:
        fingerprint = as_mapping(as_mapping(run.record.get("data")).get("fingerprints")).get("val")
        if not isinstance(fingerprint, str):
            raise InputError(
                f"{folders.RECORD} of {run.folder} has no fingerprint of the evaluation data (data.fingerprints.val)"
            )
        fingerprints.append(fingerprint)
    for run, fingerprint in zip(runs, fingerprints, strict=True):
        if fingerprint != fingerprints[0]:
            raise InputError(
                f"{runs[0].folder} and {run.folder} were evaluated on different data ({fingerprints[0][:24]} and "
                f"{fingerprint[:24]}): evaluate one on the other's data first, "
                "python -m trainers evaluate run=RUN data=NAME --output FOLDER"
            )
    return fingerprints[0]


def _common_ids(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Ids that all runs have, in the order of the first, and notes about missing ones."""
    common = set(runs[0].table.ids).intersection(*(run.table.ids for run in runs[1:]))
    if not common:
        raise InputError(f"{runs[0].folder} and the other runs have no example in common")
    union = {name for run in runs for name in run.table.ids}
    notes = []
    for run in runs:
        if missing := sorted(union.difference(run.table.ids)):
            listing = ", ".join(map(make_printable, missing[:3])) + (", …" if len(missing) > 3 else "")
            notes.append(
                f"{run.folder} lacks {len(missing)} of {len(union)} examples ({listing}); they are left out of all runs."
            )
    return [name for name in runs[0].table.ids if name in common], notes


def _check_distinct(sides: Sequence[Side]) -> None:
    """Check that no run occurs twice: it would be compared with itself, or count as two seeds."""
    side_names: dict[Path, str] = {}
    for side in sides:
        for run in side.runs:
            path = run.folder.resolve()
            if path in side_names:
                first = make_printable(side_names[path])
                raise InputError(
                    f"{run.name} is in {first} and in {make_printable(side.name)}: a run can only be compared once"
                )
            side_names[path] = side.name


def _clusters(runs: Sequence[Run], ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """Clusters of the ids, from the first run that has them, or None to resample examples; and what they are."""
    table = next((run.table for run in runs if run.table.clusters), runs[0].table)
    cluster = dict(zip(table.ids, table.clusters, strict=False))
    clusters = prediction_table.usable_clusters(cluster[name] for name in ids if name in cluster)
    return clusters, table.by if clusters else "example"


def _values(runs: Sequence[Run], metric: str, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Values [R, N] of the ids."""
    rows = []
    for run in runs:
        index = {name: number for number, name in enumerate(run.table.ids)}
        rows.append(run.table.values[metric][[index[name] for name in ids]])
    return np.stack(rows)


def _metrics_with_margin(task: str, metrics: Sequence[str], requested: Sequence[str]) -> list[str]:
    modes = {metric: mode for metric in metrics if (mode := prediction_table.metric_mode(task, metric))}
    if undeclared := [metric for metric in requested if metric not in modes]:
        raise InputError(
            f"--margin: conf/task/{task}.yaml does not declare whether higher values of {undeclared[0]} are better: "
            f"add {undeclared[0]}: {{mode: max}} or {{mode: min}} to its metrics"
        )
    if requested:
        return list(modes)
    monitor_mode = prediction_table.metric_mode(task, str(tasks.load_settings(task).get("monitor")))
    return [metric for metric, mode in modes.items() if mode == monitor_mode]


def _scale(task: str, metric: str, values: Sequence[npt.NDArray[np.float64]]) -> float:
    """The largest possible difference of two values of one example: the range of all values [R, N].

    If all values are equal, it is their distance from the worst value that the task declares; infinite without one.
    """
    low, high = min(float(array.min()) for array in values), max(float(array.max()) for array in values)
    if low < high:
        return high - low
    worst = as_mapping(as_mapping(tasks.load_settings(task).get("metrics")).get(metric)).get("worst")
    return abs(high - float(worst)) or math.inf if isinstance(worst, int | float) else math.inf


def _result(
    name: str,
    metric: str,
    mode: str | None,
    difference: PairedDifference,
    adjusted: float,
    margin: float | None,
    scale: float,
) -> MetricComparison:
    """Judge a difference.

    Args:
        name: Name of the side.
        metric: Name of the metric.
        mode: Direction of the metric, max or min; None if it is not declared.
        difference: The difference.
        adjusted: Its corrected p-value.
        margin: Non-inferiority margin, if it applies.
        scale: The largest possible difference of two values of one example.
    """
    higher = None if mode is None else mode == "max"
    gain = difference.value if higher is not False else -difference.value
    verdict = NO_DIFFERENCE
    if adjusted <= LEVEL and gain:
        verdict = "different" if higher is None else "better" if gain > 0 else "worse"
    if higher is not True:  # McNemar's test counts correct examples, not errors
        difference = dataclasses.replace(difference, mcnemar=None)
    non_inferior = worst = None
    if margin is not None and higher is not None:
        # If no example differs, up to 3 in N may still do (rule of three).
        unobserved = scale * 3 / difference.clusters if difference.low == difference.high else 0.0
        worst = difference.low - unobserved if higher else difference.high + unobserved
        non_inferior = worst > -margin if higher else worst < margin
    return MetricComparison(name, metric, higher, difference, adjusted, verdict, non_inferior, worst)


def _metric_notes(run: Run, metrics: Sequence[str]) -> list[str]:
    """Notes on metrics that differ between run.json and the predictions: then `scores` computes another metric."""
    recorded = as_mapping(run.record.get("metrics"))
    notes = []
    for metric in metrics:
        mean, value = float(run.table.values[metric].mean()), recorded.get(metric)
        if isinstance(value, int | float) and not math.isclose(mean, value, rel_tol=1e-3, abs_tol=1e-3):
            notes.append(
                f"{metric} of {run.folder} is {value:.6g} in {folders.RECORD} but {mean:.6g} over its predictions, which "
                "are compared here."
            )
    return notes


def _config_notes(side: Side) -> list[str]:
    """A note if the runs of a side differ in more than their seed."""
    keys: set[str] = set()
    first = as_mapping(side.runs[0].record.get("config"))
    for run in side.runs[1:]:
        differences = folders.config_differences(first, as_mapping(run.record.get("config")))
        keys |= {key for key, _, _ in differences if key.rpartition(".")[2] != "seed"}
    return [f"The runs of {side.name} differ by more than their seed: {', '.join(sorted(keys)[:5])}."] if keys else []


def _seed_notes(runs: set[tuple[int, int]]) -> list[str]:
    """What the numbers of runs on the two sides mean for the intervals."""
    notes = []
    if (1, 1) in runs:
        subject = "One run per side" if len(runs) == 1 else "Comparisons of one run with one"
        notes.append(f"{subject}: the result holds for other examples, not for other seeds.")
    if any(1 in counts and counts != (1, 1) for counts in runs):
        notes.append("One run against several: its seeds are assumed to have the same variance.")
    return notes


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """Convert a comparison for JSON; numbers that are not finite become null."""
    return dict(replace_non_finite(dataclasses.asdict(comparison)))


def format_comparison(comparison: Comparison, width: int) -> str:
    """Format a comparison: the sides, notes, and for each side a table and details.

    Args:
        comparison: Result of `compare_runs`.
        width: Columns of the terminal.
    """
    letters = {
        name: chr(ord("A") + index) if index < 26 else f"side {index + 1}"
        for index, name in enumerate(comparison.sides)
    }
    texts = [
        *(f"{letter}: {_describe_side(comparison, name)}" for name, letter in letters.items()),
        f"{comparison.examples:,} common examples, resampled by {comparison.clustered_by}; data {comparison.fingerprint[:24]}",
        *comparison.notes,
    ]
    lines = [_wrap(text, width) for text in texts]
    for name in list(letters)[1:]:
        results = [result for result in comparison.results if result.side == name]
        header = ["metric", "A", letters[name], f"{letters[name]} − A", "95 % CI", "p", "verdict"]
        lines += ["", format_table(header, [_cells(result) for result in results], width, limit=24), ""]
        lines += [_wrap(_describe_result(result, letters[name], comparison.margin), width) for result in results]
    legend = "CI: confidence interval"
    if len(comparison.results) > 1:
        legend += f"; p: corrected for {len(comparison.results)} comparisons (Holm)"
    return "\n".join([*lines, "", legend])


def _describe_side(comparison: Comparison, name: str) -> str:
    count = len(comparison.sides[name])
    return make_printable(name) + (f" ({count} runs)" if count > 1 else "")


def _cells(result: MetricComparison) -> list[str]:
    difference = result.difference
    digits = decimal_places(difference.a, difference.b)
    return [
        result.metric,
        f"{difference.a:.{digits}f}",
        f"{difference.b:.{digits}f}",
        f"{difference.value:+.{digits}f}",
        f"{difference.low:+.{digits}f} to {difference.high:+.{digits}f}",
        _format_p(result.adjusted),
        "inconclusive" if result.verdict == NO_DIFFERENCE else result.verdict,
    ]


def _describe_result(result: MetricComparison, letter: str, margin: float | None) -> str:
    difference = result.difference
    digits = decimal_places(difference.a, difference.b)
    parts = [f"effect size {difference.effect:+.3f}"]
    if 0 < difference.detectable < math.inf:
        parts.append(f"minimum detectable difference (80 % power) {difference.detectable:.{digits}f}")
    if counts := difference.mcnemar:
        parts.append(
            f"only {letter} correct: {counts.only_b:,}, only A: {counts.only_a:,} (McNemar p {_format_p(counts.p)})"
        )
    if result.worst is not None:
        worst = f", worst case {result.worst:+.{digits}f}" if math.isfinite(result.worst) else ""
        verdict = "non-inferior" if result.non_inferior else "non-inferiority not shown"
        parts.append(f"{verdict} (margin {margin:g}{worst})")
    return f"{result.metric}: {'; '.join(parts)}"


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False)


def _format_p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
