"""`python -m runs compare`: two or more models on the same evaluation examples, pair by pair."""

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
from config.terminal import format_table, make_printable
from runs import folder as folders
from runs import prediction_table
from runs.fields import as_mapping
from runs.paired_tests import PairedDifference, paired_difference
from runs.statistics import decimal_places, holm_correction

LEVEL = 0.05
UNSHOWN = "no difference shown"


@dataclass(frozen=True)
class Run:
    """One run: its folder, run.json and predictions."""

    folder: Path
    record: Mapping[str, Any]
    columns: prediction_table.PredictionTable


@dataclass(frozen=True)
class Side:
    """Runs that differ by their seed; most often one."""

    name: str
    runs: list[Run]


@dataclass(frozen=True)
class Compared:
    """One side against the first, in one metric.

    Attributes:
        side: its name.
        metric: as in run.json.
        higher_is_better: whether higher values are better; None where the task's YAML does not declare it.
        difference: of the side less the first.
        adjusted: p-value corrected over all of this comparison's (Holm 1979).
        verdict: better, worse, "no difference shown", or "different" where no direction is declared.
        non_inferior: whether the interval's worse end lies within the margin; None where the margin is not of this metric.
        worst: that end, in the metric's unit; None where `non_inferior` is.
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
    """What `compare` found.

    Attributes:
        sides: names, the first the one that the others are compared with, and their folders.
        fingerprint: of the evaluation data.
        examples: that all runs have.
        task: its name.
        clustered_by: the task's CLUSTER_NAME (document, class), or example.
        notes: what a reader must know: missing examples, runs that differ by more than their seed.
        margin: of non-inferiority, in the metric's unit; None if it was not asked.
        results: by side and metric.
    """

    sides: dict[str, list[str]]
    fingerprint: str
    examples: int
    task: str
    clustered_by: str
    notes: list[str]
    margin: float | None
    results: list[Compared]


def compare_runs(
    names: Sequence[str], metrics: Sequence[str] = (), margin: float | None = None, seed: int = 0, draws: int = 10_000
) -> Comparison:
    """Compares sides with the first.

    Args:
        names: of each side: a run's folder, a folder with several runs, or several with commas between.
        metrics: those to compare; all that the predictions tell, if none is given.
        margin: how much worse a side may be and count as no worse, in the metric's unit. It holds for the metrics that are
            named; if none is, for those of the direction of the task's monitor: a margin of points is none of a loss.
        seed: of the draws.
        draws: how many.

    Raises:
        InputError: fewer than two sides, a folder without predictions, runs of different tasks or evaluation data or of no
            common example, a task without `scores`, or a metric that is not there.
    """
    if len(names) < 2:
        raise InputError("compare takes two runs or more: python -m runs compare outputs/a outputs/b")
    sides = [side(name) for name in names]
    _apart(sides)
    every = [run for each in sides for run in each.runs]
    task = _task(every)
    fingerprint = _fingerprint(every)
    ids, notes = _common(every)
    known = list(every[0].columns.values)
    for run in every[1:]:
        known = [metric for metric in known if metric in run.columns.values]
    if unknown := [metric for metric in metrics if metric not in known]:
        raise InputError(f"there is no {unknown[0]} in all of them; there is {', '.join(known)}")
    wanted = [metric for metric in known if not metrics or metric in metrics]
    clusters, by = _clusters(every, ids)
    arrays = [{metric: _values(each.runs, metric, ids) for metric in wanted} for each in sides]
    found: list[tuple[str, str, PairedDifference]] = []
    for each, values in zip(sides[1:], arrays[1:], strict=True):
        found += [
            (each.name, metric, paired_difference(arrays[0][metric], values[metric], clusters, seed, draws))
            for metric in wanted
        ]
    adjusted = holm_correction({f"{name}\0{metric}": one.p for name, metric, one in found})
    with_margin = _with_margin(task, wanted, metrics) if margin is not None else []
    scales = {metric: _scale(task, metric, [values[metric] for values in arrays]) for metric in wanted}
    results = [
        _result(
            name,
            metric,
            prediction_table.metric_mode(task, metric),
            one,
            adjusted[f"{name}\0{metric}"],
            margin if metric in with_margin else None,
            scales[metric],
        )
        for name, metric, one in found
    ]
    for each in sides:
        notes += _beyond_seeds(each)
    notes += [note for run in every for note in _unlike_record(run, wanted)]
    runs = {one.runs for _, _, one in found}
    if (1, 1) in runs:
        one = "One run a side" if len(runs) == 1 else "Where a side is one run against one"
        notes.append(f"{one}: this holds for other examples, not for other seeds.")
    if any(1 in each and each != (1, 1) for each in runs):
        notes.append("One run against several: its seeds are taken to spread as much as the others'.")
    about = {each.name: [str(run.folder) for run in each.runs] for each in sides}
    return Comparison(about, fingerprint, len(ids), task, by, notes, margin, results)


def side(name: str) -> Side:
    """The runs that a name stands for.

    Raises:
        InputError: there are none, or one has no predictions.
    """
    found: list[Path] = []
    # Path raises where a name is longer than a file system allows.
    for part in [name] if os.path.exists(name) else name.split(","):  # noqa: PTH110
        path = Path(part)
        if not part or not os.path.isdir(part):  # noqa: PTH112
            raise InputError(f"there is no folder {make_printable(part)}")
        inside = [path] if (path / folders.PREDICTIONS).exists() else sorted(
            each.parent for each in path.glob(f"*/{folders.PREDICTIONS}")
        )  # fmt: skip
        if not inside:
            raise InputError(
                f"{make_printable(part)} holds no {folders.PREDICTIONS}: a finished run does, or a folder of such runs"
            )
        found += inside
    return Side(name, [_run(path) for path in found])


def _run(folder: Path) -> Run:
    record = folders.read_record(folder)
    tasks.load_member(tasks.task_from_record(record), "scores", "python -m runs compare")
    return Run(folder, record, prediction_table.read_table(folder, record))


def _task(runs: Sequence[Run]) -> str:
    """The name of the task, which all must share."""
    first = runs[0]
    for run in runs[1:]:
        if run.columns.task != first.columns.task:
            raise InputError(
                f"{make_printable(str(first.folder))} is of the task {first.columns.task} and {make_printable(str(run.folder))} of "
                f"{run.columns.task}: compare runs of one task"
            )
    return first.columns.task


def _fingerprint(runs: Sequence[Run]) -> str:
    """The evaluation data's, which all must share."""
    marks = []
    for run in runs:
        prints = as_mapping(as_mapping(run.record.get("data")).get("fingerprints"))
        if not isinstance(mark := prints.get("val"), str):
            raise InputError(
                f"{run.folder} does not say which data it was evaluated on (data.fingerprints.val in {folders.RECORD})"
            )
        marks.append(mark)
    for run, mark in zip(runs, marks, strict=True):
        if mark != marks[0]:
            raise InputError(
                f"{runs[0].folder} and {run.folder} were evaluated on different data ({marks[0][:24]} and {mark[:24]}): "
                "score one on the other's data first, python -m trainers evaluate run=RUN data=NAME --output FOLDER"
            )
    return marks[0]


def _common(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Ids that all runs have, in the first's order, and what is said of the others."""
    shared = set(runs[0].columns.ids).intersection(*(run.columns.ids for run in runs[1:]))
    if not shared:
        raise InputError(f"{runs[0].folder} and the others have no example in common")
    every = {each for run in runs for each in run.columns.ids}
    notes = []
    for run in runs:
        if missing := every.difference(run.columns.ids):
            some = ", ".join(make_printable(each) for each in sorted(missing)[:3])
            notes.append(f"{run.folder} has not {len(missing)} of {len(every)} examples ({some}{', …' if len(missing) > 3 else ''}); "
                         "they are left out everywhere.")  # fmt: skip
    return [each for each in runs[0].columns.ids if each in shared], notes


def _apart(sides: Sequence[Side]) -> None:
    """Refuses a run that is there twice: compared with itself, or counted as two seeds."""
    seen: dict[Path, str] = {}
    for each in sides:
        for run in each.runs:
            place = run.folder.resolve()
            if place in seen:
                raise InputError(
                    f"{make_printable(str(run.folder))} is in {make_printable(seen[place])} and in {make_printable(each.name)}: a run is compared once"
                )
            seen[place] = each.name


def _clusters(runs: Sequence[Run], ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """What is drawn again: clusters of the ids, by the first run that tells them, or None for single examples."""
    run = next((each for each in runs if each.columns.clusters), runs[0])
    of = dict(zip(run.columns.ids, run.columns.clusters, strict=False))
    found = prediction_table.usable_clusters(of[each] for each in ids if each in of)
    return found, run.columns.by if found else "example"


def _values(runs: Sequence[Run], metric: str, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """[R, N] of the ids."""
    found = []
    for run in runs:
        place = {each: number for number, each in enumerate(run.columns.ids)}
        found.append(run.columns.values[metric][[place[each] for each in ids]])
    return np.stack(found)


def _with_margin(task: str, wanted: Sequence[str], named: Sequence[str]) -> list[str]:
    """Metrics that a margin holds for."""
    directed = {metric: direction for metric in wanted if (direction := prediction_table.metric_mode(task, metric))}
    if undirected := [metric for metric in named if metric not in directed]:
        raise InputError(
            f"--margin: conf/task/{task}.yaml does not declare whether higher values of {undirected[0]} are better: "
            f"add {undirected[0]}: {{mode: max}} or {{mode: min}} to its metrics"
        )
    if named:
        return list(directed)
    monitored = prediction_table.metric_mode(task, str(tasks.load_settings(task).get("monitor")))
    return [metric for metric, direction in directed.items() if direction == monitored]


def _scale(task: str, metric: str, values: Sequence[npt.NDArray[np.float64]]) -> float:
    """By how much two values of one example can differ: the range of all [R, N] values.

    Where all are one value, the distance from the worst one that the task declares, for an example might have had that;
    infinite where nothing is known.
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
    found: PairedDifference,
    adjusted: float,
    margin: float | None,
    scale: float,
) -> Compared:
    """A difference with its verdicts.

    Args:
        name: of the side.
        metric: that it is of.
        mode: the metric's direction, max or min; None if it is not declared.
        found: the difference.
        adjusted: its corrected p-value.
        margin: of non-inferiority; None without one.
        scale: by how much values of one example can differ.
    """
    higher = None if mode is None else mode == "max"
    gain = found.value if higher is not False else -found.value
    verdict = UNSHOWN
    if adjusted <= LEVEL and gain:
        verdict = "different" if higher is None else "better" if gain > 0 else "worse"
    if higher is not True:  # McNemar's counts are of what is right, not of errors
        found = dataclasses.replace(found, mcnemar=None)
    if margin is None or higher is None:
        return Compared(name, metric, higher, found, adjusted, verdict, None, None)
    # Where nothing differs by more or less, three in so many might (the rule of three).
    unseen = scale * 3 / found.clusters if found.low == found.high else 0.0
    worst = found.low - unseen if higher else found.high + unseen
    non_inferior = worst > -margin if higher else worst < margin
    return Compared(name, metric, higher, found, adjusted, verdict, non_inferior, worst)


def _unlike_record(run: Run, metrics: Sequence[str]) -> list[str]:
    """Metrics whose mean over the predictions is not what run.json says: then the task's `scores` is another metric."""
    recorded = as_mapping(run.record.get("metrics"))
    notes = []
    for metric in metrics:
        mean, value = float(run.columns.values[metric].mean()), recorded.get(metric)
        if isinstance(value, int | float) and not math.isclose(mean, value, rel_tol=1e-3, abs_tol=1e-3):
            notes.append(
                f"{metric} of {run.folder} is {value:.6g} in {folders.RECORD} and {mean:.6g} over its predictions, which are "
                "compared here."
            )
    return notes


def _beyond_seeds(one: Side) -> list[str]:
    """What runs of one side differ by, beside their seed."""
    keys: set[str] = set()
    first = as_mapping(one.runs[0].record.get("config"))
    for run in one.runs[1:]:
        found = folders.config_differences(first, as_mapping(run.record.get("config")))
        keys |= {key for key, _, _ in found if key.rpartition(".")[2] != "seed"}
    if not keys:
        return []
    return [f"The runs of {one.name} differ by more than their seed: {', '.join(sorted(keys)[:5])}."]


def comparison_to_json(found: Comparison) -> dict[str, Any]:
    """For machines; numbers that are not finite are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return dict(plain(dataclasses.asdict(found)))


def format_comparison(found: Comparison, room: int) -> str:
    """For people.

    Args:
        found: of `compare`.
        room: columns of the terminal.
    """
    names = list(found.sides)
    first = _named(found, names[0])
    lines = [_wrapped(f"A is {first}.", room)]
    for place, name in enumerate(names[1:]):
        lines.append(_wrapped(f"{_letter(place)} is {_named(found, name)}.", room))
    of = "each on its own" if found.clustered_by == "example" else f"drawn by {found.clustered_by}"
    lines.append(_wrapped(f"{found.examples:,} examples that all have, {of}; data {found.fingerprint[:24]}.", room))
    lines += [_wrapped(note, room) for note in found.notes]
    cells = []
    for each in found.results:
        one, letter = each.difference, _letter(names.index(each.side) - 1)
        digits = decimal_places(one.a, one.b)
        cells.append([
            each.metric, letter, f"{one.a:.{digits}f}", f"{one.b:.{digits}f}", f"{one.value:+.{digits}f}",
            f"{one.low:+.{digits}f} to {one.high:+.{digits}f}", _p(each.adjusted), each.verdict.replace(UNSHOWN, "not shown"),
        ])  # fmt: skip
    header = ["metric", "", "A", "it", "it - A", "95 % interval", "p", "verdict"]
    lines += ["", format_table(header, cells, room, limit=24), ""]
    for each in found.results:
        lines.append(
            _wrapped(f"{each.metric}, {_letter(names.index(each.side) - 1)}: {_said(each, found.margin)}", room)
        )
    lines.append(
        _wrapped(f"p is corrected for {len(found.results)} comparisons (Holm)." if len(found.results) > 1 else "", room)
    )
    return "\n".join(lines).rstrip()


def _letter(place: int) -> str:
    return "BCDEFGHIJKLMNOPQRSTUVWXYZ"[place] if place < 25 else f"side {place + 2}"


def _named(found: Comparison, name: str) -> str:
    runs = found.sides[name]
    return f"{make_printable(name)}" + (f" ({len(runs)} runs)" if len(runs) > 1 else "")


def _wrapped(text: str, room: int) -> str:
    return textwrap.fill(text, room, break_on_hyphens=False, break_long_words=False)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _said(each: Compared, margin: float | None) -> str:
    one = each.difference
    digits = decimal_places(one.a, one.b)
    parts = [f"effect size {one.effect:+.3f}"]
    if 0 < one.detectable < math.inf:
        parts.append(f"a difference of {one.detectable:.{digits}f} would have been shown four times in five")
    if one.mcnemar is not None:
        parts.append(
            f"it alone is right on {one.mcnemar.only_b:,}, A alone on {one.mcnemar.only_a:,} (McNemar p {_p(one.mcnemar.p)}, each example on its own)"
        )
    if each.worst is not None:
        at_worst = f" (at worst {each.worst:+.{digits}f})" if math.isfinite(each.worst) else ""
        parts.append(
            f"{'no worse than A' if each.non_inferior else 'not shown to be no worse than A'} by a margin of {margin:g}"
            f"{at_worst}"
        )
    return "; ".join(parts) + "."
