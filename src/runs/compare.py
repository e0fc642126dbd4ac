"""`python -m runs compare`: two or more models on the same evaluation examples, pair by pair."""

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import Refused
from runs import folder as folders
from runs import rows
from runs.fields import mapping
from runs.paired import Difference, difference
from runs.statistics import holm
from runs.terminal import printable, table

LEVEL = 0.05
UNSHOWN = "no difference shown"


@dataclass(frozen=True)
class Run:
    """One run: its folder, run.json and predictions."""

    folder: Path
    record: Mapping[str, Any]
    columns: rows.Columns


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
        higher_is_better: whether higher values are better.
        difference: of the side less the first.
        adjusted: p-value corrected over all of this comparison's (Holm 1979).
        verdict: better, worse, or "no difference shown".
        non_inferior: whether the interval's lower end lies within the margin; None without one, and of losses.
    """

    side: str
    metric: str
    higher_is_better: bool
    difference: Difference
    adjusted: float
    verdict: str
    non_inferior: bool | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        sides: names, the first the one that the others are compared with, and their folders.
        fingerprint: of the evaluation data.
        examples: that all runs have.
        clustered_by: document, class, or example.
        notes: what a reader must know: missing examples, runs that differ by more than their seed.
        margin: of non-inferiority, in the metric's unit; None if it was not asked.
        results: by side and metric.
    """

    sides: dict[str, list[str]]
    fingerprint: str
    examples: int
    clustered_by: str
    notes: list[str]
    margin: float | None
    results: list[Compared]


def compare(
    names: Sequence[str], metrics: Sequence[str] = (), margin: float | None = None, seed: int = 0, draws: int = 10_000
) -> Comparison:
    """Compares sides with the first.

    Args:
        names: of each side: a run's folder, a folder with several runs, or several with commas between.
        metrics: those to compare; all that the predictions tell, if none is given.
        margin: how much worse a side may be and count as no worse, in the metric's unit (percent points).
        seed: of the draws.
        draws: how many.

    Raises:
        Refused: fewer than two sides, a folder without predictions, runs of different evaluation data or of no common
            example, or a metric that is not there.
    """
    if len(names) < 2:
        raise Refused("compare takes two runs or more: python -m runs compare outputs/a outputs/b")
    sides = [side(name) for name in names]
    _apart(sides)
    every = [run for each in sides for run in each.runs]
    fingerprint = _fingerprint(every)
    ids, notes = _common(every)
    known = list(every[0].columns.values)
    for run in every[1:]:
        known = [metric for metric in known if metric in run.columns.values]
    if unknown := [metric for metric in metrics if metric not in known]:
        raise Refused(f"there is no {unknown[0]} in all of them; there is {', '.join(known)}")
    wanted = [metric for metric in known if not metrics or metric in metrics]
    clusters, by = _clusters(every, ids)
    arrays = [{metric: _values(each.runs, metric, ids) for metric in wanted} for each in sides]
    found: list[tuple[str, str, Difference]] = []
    for each, values in zip(sides[1:], arrays[1:], strict=True):
        found += [
            (each.name, metric, difference(arrays[0][metric], values[metric], clusters, seed, draws))
            for metric in wanted
        ]
    adjusted = holm({f"{name}\0{metric}": one.p for name, metric, one in found})
    results = [_judged(name, metric, one, adjusted[f"{name}\0{metric}"], margin) for name, metric, one in found]
    for each in sides:
        notes += _beyond_seeds(each)
    runs = {one.runs for _, _, one in found}
    if (1, 1) in runs:
        one = "One run a side" if len(runs) == 1 else "Where a side is one run against one"
        notes.append(f"{one}: this holds for other examples, not for other seeds.")
    if any(1 in each and each != (1, 1) for each in runs):
        notes.append("One run against several: its seeds are taken to spread as much as the others'.")
    about = {each.name: [str(run.folder) for run in each.runs] for each in sides}
    return Comparison(about, fingerprint, len(ids), by, notes, margin, results)


def side(name: str) -> Side:
    """The runs that a name stands for.

    Raises:
        Refused: there are none, or one has no predictions.
    """
    found: list[Path] = []
    # Path raises where a name is longer than a file system allows.
    for part in [name] if os.path.exists(name) else name.split(","):  # noqa: PTH110
        path = Path(part)
        if not part or not os.path.isdir(part):  # noqa: PTH112
            raise Refused(f"there is no folder {printable(part)}")
        inside = [path] if (path / folders.PREDICTIONS).exists() else sorted(
            each.parent for each in path.glob(f"*/{folders.PREDICTIONS}")
        )  # fmt: skip
        if not inside:
            raise Refused(
                f"{printable(part)} holds no {folders.PREDICTIONS}: a finished run does, or a folder of such runs"
            )
        found += inside
    return Side(name, [Run(path, folders.read_record(path), rows.read(path)) for path in found])


def _fingerprint(runs: Sequence[Run]) -> str:
    """The evaluation data's, which all must share."""
    marks = []
    for run in runs:
        prints = mapping(mapping(run.record.get("data")).get("fingerprints"))
        if not isinstance(mark := prints.get("val"), str):
            raise Refused(
                f"{run.folder} does not say which data it was evaluated on (data.fingerprints.val in {folders.RECORD})"
            )
        marks.append(mark)
    for run, mark in zip(runs, marks, strict=True):
        if mark != marks[0]:
            raise Refused(
                f"{runs[0].folder} and {run.folder} were evaluated on different data ({marks[0][:24]} and {mark[:24]}): "
                "score one on the other's data first, python -m trainers evaluate run=RUN data=NAME --output FOLDER"
            )
    return marks[0]


def _common(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Ids that all runs have, in the first's order, and what is said of the others."""
    shared = set(runs[0].columns.ids).intersection(*(run.columns.ids for run in runs[1:]))
    if not shared:
        raise Refused(f"{runs[0].folder} and the others have no example in common")
    every = {each for run in runs for each in run.columns.ids}
    notes = []
    for run in runs:
        if missing := every.difference(run.columns.ids):
            some = ", ".join(printable(each) for each in sorted(missing)[:3])
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
                raise Refused(
                    f"{printable(str(run.folder))} is in {printable(seen[place])} and in {printable(each.name)}: a run is compared once"
                )
            seen[place] = each.name


def _clusters(runs: Sequence[Run], ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """What is drawn again: clusters of the ids, by the first run that tells them, or None for single examples."""
    run = next((each for each in runs if each.columns.clusters), runs[0])
    of = dict(zip(run.columns.ids, run.columns.clusters, strict=False))
    found = rows.clustered(of[each] for each in ids if each in of)
    return found, run.columns.by if found else "example"


def _values(runs: Sequence[Run], metric: str, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """[R, N] of the ids."""
    found = []
    for run in runs:
        place = {each: number for number, each in enumerate(run.columns.ids)}
        found.append(run.columns.values[metric][[place[each] for each in ids]])
    return np.stack(found)


def _judged(name: str, metric: str, found: Difference, adjusted: float, margin: float | None) -> Compared:
    higher = metric not in rows.LOWER_IS_BETTER
    gain = found.value if higher else -found.value
    verdict = UNSHOWN if adjusted > LEVEL or not gain else "better" if gain > 0 else "worse"
    # A margin is in points; of a loss there is none.
    asked = margin is not None and higher
    return Compared(name, metric, higher, found, adjusted, verdict, _worst(found) > -(margin or 0.0) if asked else None)


def _worst(found: Difference) -> float:
    """The interval's lower end; where nothing differs by more or less, three in so many might (the rule of three)."""
    return found.low - (100 * 3 / found.clusters if found.low == found.high else 0.0)


def _beyond_seeds(one: Side) -> list[str]:
    """What runs of one side differ by, beside their seed."""
    keys: set[str] = set()
    first = mapping(one.runs[0].record.get("config"))
    for run in one.runs[1:]:
        found = folders.differences(first, mapping(run.record.get("config")))
        keys |= {key for key, _, _ in found if key.rpartition(".")[2] != "seed"}
    if not keys:
        return []
    return [f"The runs of {one.name} differ by more than their seed: {', '.join(sorted(keys)[:5])}."]


def as_json(found: Comparison) -> dict[str, Any]:
    """For machines; numbers that are not finite are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return dict(plain(asdict(found)))


def as_text(found: Comparison, room: int) -> str:
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
    of = {"example": "each on its own", "document": "drawn by document", "class": "drawn by class"}[found.clustered_by]
    lines.append(_wrapped(f"{found.examples:,} examples that all have, {of}; data {found.fingerprint[:24]}.", room))
    lines += [_wrapped(note, room) for note in found.notes]
    cells = []
    for each in found.results:
        one, letter = each.difference, _letter(names.index(each.side) - 1)
        cells.append([
            each.metric, letter, f"{one.a:.2f}", f"{one.b:.2f}", f"{one.value:+.2f}",
            f"{one.low:+.2f} to {one.high:+.2f}", _p(each.adjusted), each.verdict.replace(UNSHOWN, "not shown"),
        ])  # fmt: skip
    header = ["metric", "", "A", "it", "it - A", "95 % interval", "p", "verdict"]
    lines += ["", table(header, cells, room, limit=24), ""]
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
    return f"{printable(name)}" + (f" ({len(runs)} runs)" if len(runs) > 1 else "")


def _wrapped(text: str, room: int) -> str:
    return textwrap.fill(text, room, break_on_hyphens=False, break_long_words=False)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _said(each: Compared, margin: float | None) -> str:
    one = each.difference
    parts = [f"effect size {one.effect:+.3f}"]
    if 0 < one.detectable < math.inf:
        parts.append(f"a difference of {one.detectable:.2f} would have been shown four times in five")
    if one.mcnemar is not None:
        parts.append(
            f"it alone is right on {one.mcnemar.only_b:,}, A alone on {one.mcnemar.only_a:,} (McNemar p {_p(one.mcnemar.p)}, each example on its own)"
        )
    if each.non_inferior is not None:
        parts.append(
            f"{'no worse than A' if each.non_inferior else 'not shown to be no worse than A'} by a margin of {margin:g} "
            f"(at worst {_worst(one):+.2f})"
        )
    return "; ".join(parts) + "."
