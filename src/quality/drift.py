"""`python -m quality drift`: new data beside the data that a model was trained on."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config import files, tasks
from config.command import take_override
from config.errors import InputError
from datamodules import factory
from quality import distances, drift_report, facts, features, notify, profile, tables, verdict
from quality.description import describe
from quality.output import report_folder
from quality.settings import read_settings
from runs import folder as folders
from runs.statistics import holm_correction

DRAWS = 300  # comparisons of the reference with itself
COMPONENTS = 8  # of features
FEW = 20  # values of a number up to which it is tested as a category
Column = npt.NDArray[Any]


@dataclass(frozen=True)
class ColumnDrift:
    """One column of both data sets.

    Attributes:
        name: of the column.
        kind: number or category.
        statistic: which of the two decides: "KS" or "Jensen-Shannon".
        value, threshold: of it; the threshold is what the reference stays below against itself.
        p: corrected for the number of columns.
        effect: of numbers the difference of means in the reference's standard deviations, of categories Cramér's V.
        psi: population stability index.
        jensen_shannon: distance, of numbers over ten bins.
        drifted: beyond its threshold, and p below the level.
        shown: for the plot: edges and bars, or counts.
    """

    name: str
    kind: str
    statistic: str
    value: float
    threshold: float
    p: float
    effect: float
    psi: float
    jensen_shannon: float
    drifted: bool
    shown: dict[str, Any]


def command(args: argparse.Namespace) -> int:
    """Runs `python -m quality drift`.

    Returns:
        0, or 4 if it drifted under enforce.
    """
    refusal = "give one reference=<run folder or fingerprint>"
    reference, overrides = take_override(args.overrides, "reference", refusal)
    if not 0 < args.level < 1:
        raise InputError(f"--level {args.level}: must be above 0 and below 1")
    config = factory.compose_config(overrides, any_model=True)
    settings = read_settings(config)
    data = factory.build(config.data)
    folder = find_reference(reference, data.root)
    trained = profile.read(folder)["task"]
    if trained != settings.task:
        raise InputError(f"the reference is data of {trained}, this is of {settings.task}")
    table, description = facts.load_facts(data, settings.task), describe(settings.task)
    with tempfile.TemporaryDirectory() as spill:
        connection = tables.connect(table.path, Path(spill))
        profile.write(Path(spill), connection, description)
        connection.close()
        old, new = _sample(folder / profile.SAMPLE, "train"), _sample(Path(spill) / profile.SAMPLE, args.split)
        blocks = [(old, new)]
        if args.model:
            blocks.append(_looked(reference, args.model, data, table, args.split, Path(spill)))
    compared = compare_columns(blocks, args.level)
    drifted = [column.name for column in compared if column.drifted]
    result = {
        "status": "drifted" if drifted else "stable",
        "reference": reference,
        "split": args.split,
        "rows": {"reference": _rows(old), "new": _rows(new)},
        "level": args.level,
        "columns": [asdict(column) for column in compared],
    }
    report = report_folder(args.folder, "drift")
    try:
        report.mkdir(parents=True, exist_ok=True)
        files.write_json(report / "drift.json", result)
        drift_report.write(report, result)
    except OSError as error:
        raise InputError(f"the report cannot be written to {report}: {error.strerror or error}") from error
    worst = ", ".join(drifted[:5]) + (f" and {len(drifted) - 5} more" if len(drifted) > 5 else "")
    print(f"{len(drifted)} of {len(compared)} columns drifted{': ' + worst if drifted else ''}")
    print(f"isotrain: {report / 'report.html'}", file=sys.stderr)
    if not drifted:
        return 0
    notify.send_notification(f"data drifted from {reference}: {worst}", report, settings.webhook, settings.summary)
    return 4 if args.action == "enforce" else 0


def find_reference(name: str, root: Path) -> Path:
    """The folder with the profile of a run's data, or of the data with a fingerprint.

    Raises:
        InputError: there is none.
    """
    run = Path(name)
    if run.is_dir():
        for folder in (run / "quality", run):
            if (folder / profile.SAMPLE).exists():
                return folder
        raise InputError(
            f"reference={name} has no quality/{profile.SAMPLE}: train with quality=enforce or quality=warn"
        )
    for path in sorted((root / "verdicts").glob("*/verdict.json")):
        if len(name) >= 8 and path.parent.suffix != ".tmp" and verdict.read(path).fingerprint.startswith(name):
            return path.parent
    raise InputError(
        f"reference={name}: neither a run's folder nor the fingerprint of data whose contract was verified here"
    )


def _sample(path: Path, split: str) -> dict[str, Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, filters=[("split", "==", split)])
    if not table.num_rows:
        raise InputError(f"{path} has no rows of {split}")
    found: dict[str, Column] = {}
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if pa.types.is_string(table.column(name).type) or pa.types.is_boolean(table.column(name).type):
            found[name] = np.array([str(value).lower() if isinstance(value, bool) else str(value) for value in values])
        else:
            found[name] = np.array([np.nan if value is None else value for value in values], float)
    del found["split"]
    return found


def _rows(sample: Mapping[str, Column]) -> int:
    return len(next(iter(sample.values())))


def _looked(
    reference: str, model: str, data: Any, table: facts.Facts, split: str, spill: Path
) -> tuple[dict[str, Column], dict[str, Column]]:
    """What the model makes of both data sets; the reference's is opened again, as its run had it."""
    run = Path(reference)
    if not (run / folders.RECORD).exists():
        raise InputError("--model needs a run's folder as the reference: what it was trained on is looked at, too")
    before = factory.build(factory.compose_recorded(folders.read_record(run), table.task), cache_dir=str(data.root))
    then = facts.load_facts(before, table.task)
    trained = verdict.read(find_reference(reference, data.root) / verdict.FILE).fingerprint
    if then.fingerprint != trained:
        raise InputError(
            f"the data that {reference} was trained on has changed since: --model cannot look at it any more"
        )
    look = tasks.load_member(table.task, "look", "python -m quality drift --model")
    old = look(model, before, "train", features.sample_rows(then, "train", spill))
    new = look(model, data, split, features.sample_rows(table, split, spill))
    components = features.principal_components(old.features, new.features, COMPONENTS)
    columns: tuple[dict[str, Column], dict[str, Column]] = ({}, {})
    for block, seen, projected in zip(columns, (old, new), components, strict=True):
        block["model: prediction"] = seen.predicted
        block["model: confidence"] = seen.confidence
        for index in range(projected.shape[1]):
            block[f"model: feature {index + 1}"] = projected[:, index]
    return columns


def compare_columns(
    blocks: Sequence[tuple[Mapping[str, Column], Mapping[str, Column]]], level: float
) -> list[ColumnDrift]:
    """Compares columns of a reference and of new data.

    Args:
        blocks: (reference, new) columns by name; rows of one block belong together.
        level: false alarms of one comparison of all columns.
    """
    prepared = [_prepared(old, new) for old, new in blocks]
    p: dict[str, float] = {}
    limits: dict[str, float] = {}
    for old, new in prepared:
        statistics = {name: _statistic(old[name], new[name]) for name in old}
        limits |= distances.null_thresholds(old, statistics, _rows(new), level / len(prepared), DRAWS)
        p |= {name: _p(old[name], new[name]) for name in old}
    p = holm_correction(p)
    found = []
    for old, new in prepared:
        for name in old:
            value = _statistic(old[name], new[name])(old[name], new[name])
            found.append(_compared(name, old[name], new[name], value, limits[name], p[name], level))
    return sorted(found, key=lambda each: (not each.drifted, -each.value))


def _prepared(old: Mapping[str, Column], new: Mapping[str, Column]) -> tuple[dict[str, Column], dict[str, Column]]:
    """Columns of both; where values are missing, that is a column of its own. One that neither has is left out."""
    if missing := sorted(set(old) ^ set(new)):
        raise InputError(
            f"the reference's profile is of another version: it and the data differ in {', '.join(missing)}"
        )
    first, second = dict(old), dict(new)
    for name in old:
        if old[name].dtype.kind == "f":
            gone = [np.isnan(each[name]) for each in (old, new)]
            if any(each.any() for each in gone):
                first[f"{name} is missing"], second[f"{name} is missing"] = (each.astype(str) for each in gone)
            if any(each.all() for each in gone):
                del first[name], second[name]
    return first, second


def _statistic(old: Column, new: Column) -> Callable[[Column, Column], float]:
    if old.dtype.kind == "f":
        return lambda one, other: distances.ks_statistic(*_present(one, other))
    names, _, _ = distances.category_counts(old.tolist(), new.tolist())
    order = np.array(names)

    def distance(one: Column, other: Column) -> float:
        counts = [
            np.bincount(np.searchsorted(order, each), minlength=len(order)).astype(np.float64) for each in (one, other)
        ]
        return distances.jensen_shannon(*counts)

    return distance


def _present(one: Column, other: Column) -> tuple[Any, Any]:
    kept = [each[~np.isnan(each)] for each in (one, other)]
    return tuple(each if len(each) else np.zeros(1) for each in kept)  # type: ignore[return-value]


def _p(old: Column, new: Column) -> float:
    if old.dtype.kind == "f":
        one, other = _present(old, new)
        if len(np.unique(np.concatenate([one, other]))) > FEW:
            return distances.ks_p_value(one, other)
        old, new = one, other  # with few values and many ties, that of KS is far too large
    _, one, other = distances.category_counts(old.tolist(), new.tolist())
    return distances.chi_square_test(one, other)[0]


def _compared(
    name: str, old: Column, new: Column, value: float, threshold: float, p: float, level: float
) -> ColumnDrift:
    drifted = value > threshold and p < level
    if old.dtype.kind == "f":
        one, other = _present(old, new)
        first, second = distances.bin_counts(one, other)
        spread = float(one.std()) or 1.0
        effect = float(other.mean() - one.mean()) / spread
        shown = _bars(one, other)
        kind, statistic = "number", "KS"
    else:
        names, first, second = distances.category_counts(old.tolist(), new.tolist())
        effect = distances.chi_square_test(first, second)[1]
        shown = {
            "counts": {
                "reference": dict(zip(names, first.tolist(), strict=True)),
                "new": dict(zip(names, second.tolist(), strict=True)),
            }
        }
        kind, statistic = "category", "Jensen-Shannon"
    psi, distance = distances.psi(first, second), distances.jensen_shannon(first, second)
    return ColumnDrift(name, kind, statistic, value, threshold, p, effect, psi, distance, drifted, shown)


def _bars(one: Column, other: Column) -> dict[str, Any]:
    both = np.concatenate([one, other])
    low, high = np.quantile(both, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, profile.BINS + 1)
    bars = {
        name: np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0].tolist()
        for name, each in (("reference", one), ("new", other))
    }
    return {"edges": edges.tolist(), "bars": bars}
