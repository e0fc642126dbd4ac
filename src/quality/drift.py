"""`python -m quality drift`: new data compared with the training data of a model."""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config import files, parsing, tasks, terminal
from config.command import take_override
from config.errors import InputError, first_line, input_errors
from config.numbers import format_count
from datamodules import factory
from datamodules.classes import format_names
from datamodules.storage import cache
from quality import distances, drift_report, features, notify, profile, tables, verdict
from quality.description import describe
from quality.facts import Facts, load_facts
from quality.gate import report_folder
from runs import folder as folders
from runs.statistics import holm_correction

DRAWS = 300  # comparisons of the reference with itself
EXCLUSIVE_SHARE = 0.2  # of the level, for the test of unseen and vanished categories
COMPONENTS = 8  # principal components of the features
MAX_TIED_VALUES = 20  # distinct numbers up to which a column is tested as a category
Column = npt.NDArray[Any]
Columns = dict[str, Column]
Categories = Mapping[str, int]  # number of rows by category


def command(args: argparse.Namespace) -> int:
    """Run `python -m quality drift`.

    Returns:
        0, or 4 if the data has drifted and the action is enforce.
    """
    message = "name the reference once: reference=<run folder or fingerprint>"
    reference, overrides = take_override(args.overrides, "reference", message)
    if not 0 < args.level < 1:
        raise InputError(f"--level {args.level}: must be above 0 and below 1")
    if args.folder is not None:
        folder = report_folder(args.folder, "drift")
        files.check_output_folder(folder, ("drift.json", "report.html", "report.md"), _is_report, "a drift report")
    config = factory.compose_config(overrides, any_model=True)
    task = str(config.task.name)
    data = factory.build(config.data)
    folder = find_reference(reference, data.root)
    reference_task = profile.read(folder)["task"]
    if reference_task != task:
        raise InputError(f"the reference is data for {reference_task}, the new data is for {task}")
    facts = load_facts(data, task)
    with tempfile.TemporaryDirectory() as spill:
        with tables.connect(facts.path, Path(spill)) as connection:
            new_profile = profile.write(Path(spill), connection, describe(task))
        old = _read_sample(folder / profile.SAMPLE, "train")
        new = _read_sample(Path(spill) / profile.SAMPLE, args.split)
        blocks = [(old, new)]
        if args.model:
            blocks.append(_model_columns(reference, args.model, data, facts, args.split, Path(spill)))
    all_rows = _all_categories(profile.read(folder), new_profile, args.split)
    columns = compare_columns(blocks, args.level, all_rows)
    drifted = [column["name"] for column in columns if column["drifted"]]
    result = {
        "status": "drifted" if drifted else "stable",
        "reference": reference,
        "split": args.split,
        "rows": {"reference": _row_count(old), "new": _row_count(new)},
        "level": args.level,
        "columns": columns,
    }
    report = report_folder(args.folder, "drift")
    try:
        report.mkdir(parents=True, exist_ok=True)
        files.write_json(report / "drift.json", result)
        drift_report.write(report, result)
    except OSError as error:
        raise InputError(f"the report cannot be written to {report}: {error.strerror or error}") from error
    names = format_names(drifted)
    changes = {column["name"]: text for column in columns if (text := drift_report.describe_categories(column))}
    for name, text in changes.items():
        print(terminal.make_printable(f"{name}: {text}"))
    print(f"{len(drifted)} of {format_count(len(columns), 'column')} drifted{': ' + names if drifted else ''}")
    print(f"isotrain: {report / 'report.html'}", file=sys.stderr)
    if not drifted:
        return 0
    message = f"data drifted from {reference}: {names}"
    notify.send_notification(message, report, config.quality.webhook, config.quality.summary)
    return 4 if args.action == "enforce" else 0


def _is_report(folder: Path) -> bool:
    return {"status", "reference", "columns"} <= files.read_json(folder / "drift.json").keys()


def find_reference(name: str, root: Path) -> Path:
    """Find the folder with the profile of a run's data, or of data with a fingerprint.

    Args:
        name: run folder, or fingerprint (its first 8 characters or more).
        root: folder of the cache.

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

    def read(folder: Path) -> verdict.Verdict:
        return verdict.read(folder / verdict.FILE)

    for folder in cache.entries(root, "verdicts", read) if len(name) >= 8 else ():
        if read(folder).fingerprint.startswith(name):
            return folder
    raise InputError(
        f"reference={name}: neither a run folder nor the fingerprint of data whose contract was verified on this machine"
    )


def _all_categories(
    old: Mapping[str, Any], new: Mapping[str, Any], split: str
) -> dict[str, tuple[Categories, Categories]]:
    """Return the counts of each categorical column in all rows; none of columns whose profile leaves out categories."""
    columns: dict[str, tuple[Categories, Categories]] = {}
    for name in old["columns"].keys() & new["columns"].keys():
        sides = [row["columns"][name].get("counts", {}).get(part) for row, part in ((old, "train"), (new, split))]
        if None not in sides:
            is_complete = all(len(side) <= profile.MAX_CATEGORIES for side in sides)
            columns[name] = (sides[0], sides[1]) if is_complete else ({}, {})
    return columns


def _read_sample(path: Path, split: str) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with input_errors(lambda error: f"{path} cannot be read: {first_line(error)}"):
        parsing.check_regular(path)
        table = pq.read_table(path, filters=[("split", "==", split)])
    if not table.num_rows:
        raise InputError(f"{path} has no rows of {split}")
    columns: Columns = {}
    for name in table.column_names:
        column = table.column(name)
        values = column.to_pylist()
        if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
            columns[name] = np.array(
                [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
            )
        else:
            columns[name] = np.array([np.nan if value is None else value for value in values], float)
    del columns["split"]
    return columns


def _row_count(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values())))


def _model_columns(
    reference: str, model: str, data: Any, facts: Facts, split: str, spill: Path
) -> tuple[Columns, Columns]:
    """Return the model's outputs for the training data of the reference, opened as its run did, and for the new data."""
    run = Path(reference)
    if not (run / folders.RECORD).exists():
        raise InputError(
            "--model needs a run folder as the reference, because the model also runs on its training data"
        )
    old_data = factory.build(factory.compose_recorded(folders.read_record(run), facts.task), cache_dir=str(data.root))
    old_facts = load_facts(old_data, facts.task)
    if old_facts.fingerprint != verdict.read(find_reference(reference, data.root) / verdict.FILE).fingerprint:
        raise InputError(f"the training data of {reference} has changed since: --model cannot run on it")
    model_outputs = tasks.load_member(facts.task, "model_outputs", "python -m quality drift --model")
    outputs = (
        model_outputs(model, old_data, "train", features.sample_rows(old_facts, "train", spill)),
        model_outputs(model, data, split, features.sample_rows(facts, split, spill)),
    )
    components = features.principal_components(outputs[0].features, outputs[1].features, COMPONENTS)
    old, new = (
        {
            "model: prediction": output.predictions,
            "model: confidence": output.confidence,
            **{f"model: feature {index + 1}": projected[:, index] for index in range(projected.shape[1])},
        }
        for output, projected in zip(outputs, components, strict=True)
    )
    return old, new


def compare_columns(
    blocks: Sequence[tuple[Mapping[str, Column], Mapping[str, Column]]],
    level: float,
    all_rows: Mapping[str, tuple[Categories, Categories]] | None = None,
) -> list[dict[str, Any]]:
    """Compare columns of a reference and of new data.

    Args:
        blocks: (reference, new) columns by name; rows of one block belong together.
        level: false alarm rate of one comparison of all columns.
        all_rows: (reference, new) categories in all rows, by column, if the blocks have a sample of them.

    Returns:
        Rows, the columns that drifted first, then by descending value: name; kind (number or category); the statistic that
        decides (KS or Jensen-Shannon), its value, and the threshold that samples of the reference stay below; p, corrected
        for the number of columns; effect (of numbers the difference of means in standard deviations of the reference, of
        categories Cramér's V); psi; jensen_shannon (of numbers over ten bins); unseen and vanished (categories that the
        reference or the new data lacks, with their numbers of rows) and exclusive_p (p-value of these rows, corrected for the
        number of columns); drifted (the value exceeds its threshold and p is below the level, or exclusive_p is below its
        share of the level); shown (the plot: edges and bars, or counts).
    """
    pairs = [_prepare_block(old, new) for old, new in blocks]
    p: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    for old, new in pairs:
        statistics = {name: _make_statistic(old[name], new[name]) for name in old}
        thresholds |= distances.null_thresholds(old, statistics, _row_count(new), level / len(pairs), DRAWS)
        p |= {name: _p_value(old[name], new[name]) for name in old}
    p = holm_correction(p)
    exclusive_level = EXCLUSIVE_SHARE * level
    categorical = [(name, old[name], new[name]) for old, new in pairs for name in old if old[name].dtype.kind != "f"]
    draws = math.ceil(2 * len(categorical) / exclusive_level)
    exclusive_p = holm_correction({name: _exclusive_p_value(old, new, draws) for name, old, new in categorical})
    columns = []
    for old, new in pairs:
        for name in old:
            column = _compare_column(name, old[name], new[name], thresholds[name], p[name], level)
            counts = (all_rows or {}).get(name) or tuple(column["shown"].get("counts", {}).values())
            column |= _exclusive_categories(*counts) if counts else {"unseen": {}, "vanished": {}}
            column["exclusive_p"] = exclusive_p.get(name, 1.0)
            column["drifted"] = column["drifted"] or column["exclusive_p"] < exclusive_level
            columns.append(column)
    return sorted(columns, key=lambda column: (not column["drifted"], -column["value"]))


def _prepare_block(old: Mapping[str, Column], new: Mapping[str, Column]) -> tuple[Columns, Columns]:
    """Add a column for missing values where there are any, and remove columns without values on either side."""
    if missing := sorted(set(old) ^ set(new)):
        raise InputError(f"the reference's profile is of another version: its columns differ in {', '.join(missing)}")
    first, second = dict(old), dict(new)
    for name in old:
        if old[name].dtype.kind == "f":
            gaps = [np.isnan(columns[name]) for columns in (old, new)]
            if any(gap.any() for gap in gaps):
                first[f"{name} is missing"], second[f"{name} is missing"] = (gap.astype(str) for gap in gaps)
            if any(gap.all() for gap in gaps):
                del first[name], second[name]
    return first, second


def _make_statistic(old: Column, new: Column) -> Callable[[Column, Column], float]:
    """Return the statistic of a column, as a function of two samples."""
    if old.dtype.kind == "f":
        return lambda first, second: distances.ks_statistic(*_drop_missing(first, second))
    categories = np.array(distances.category_counts(old.tolist(), new.tolist())[0])

    def distance(first: Column, second: Column) -> float:
        counts = [
            np.bincount(np.searchsorted(categories, sample), minlength=len(categories)).astype(np.float64)
            for sample in (first, second)
        ]
        return distances.jensen_shannon(*counts)

    return distance


def _drop_missing(first: Column, second: Column) -> tuple[Any, Any]:
    samples = [sample[~np.isnan(sample)] for sample in (first, second)]
    return tuple(sample if len(sample) else np.zeros(1) for sample in samples)  # type: ignore[return-value]


def _p_value(old: Column, new: Column) -> float:
    if old.dtype.kind == "f":
        old, new = _drop_missing(old, new)
        if len(np.unique(np.concatenate([old, new]))) > MAX_TIED_VALUES:
            return distances.ks_p_value(old, new)
        # With few values and many ties the p-value of KS is far too large: test them as categories.
    _, old_counts, new_counts = distances.category_counts(old.tolist(), new.tolist())
    return distances.chi_square_test(old_counts, new_counts)[0]


def _exclusive_p_value(old: Column, new: Column, draws: int) -> float:
    _, old_counts, new_counts = distances.category_counts(old.tolist(), new.tolist())
    return distances.exclusive_p_value(old_counts, new_counts, draws)


def _exclusive_categories(old: Categories, new: Categories) -> dict[str, dict[str, int]]:
    """Return the categories of one side only, the most frequent first."""

    def only(first: Categories, second: Categories) -> dict[str, int]:
        rows = [(name, int(count)) for name, count in first.items() if count and not second.get(name)]
        return dict(sorted(rows, key=lambda row: (-row[1], row[0])))

    return {"unseen": only(new, old), "vanished": only(old, new)}


def _compare_column(name: str, old: Column, new: Column, threshold: float, p: float, level: float) -> dict[str, Any]:
    value = _make_statistic(old, new)(old, new)
    if old.dtype.kind == "f":
        kind, statistic = "number", "KS"
        old, new = _drop_missing(old, new)
        old_counts, new_counts = distances.bin_counts(old, new)
        effect = float(new.mean() - old.mean()) / (float(old.std()) or 1.0)
        plot = _histogram(old, new)
    else:
        kind, statistic = "category", "Jensen-Shannon"
        categories, old_counts, new_counts = distances.category_counts(old.tolist(), new.tolist())
        effect = distances.chi_square_test(old_counts, new_counts)[1]
        sides = (("reference", old_counts), ("new", new_counts))
        plot = {"counts": {side: dict(zip(categories, counts.tolist(), strict=True)) for side, counts in sides}}
    return {
        "name": name,
        "kind": kind,
        "statistic": statistic,
        "value": value,
        "threshold": threshold,
        "p": p,
        "effect": effect,
        "psi": distances.psi(old_counts, new_counts),
        "jensen_shannon": distances.jensen_shannon(old_counts, new_counts),
        "drifted": value > threshold and p < level,
        "shown": plot,
    }


def _histogram(old: Column, new: Column) -> dict[str, Any]:
    low, high = np.quantile(np.concatenate([old, new]), [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, profile.BINS + 1)
    bars = {
        side: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()
        for side, values in (("reference", old), ("new", new))
    }
    return {"edges": edges.tolist(), "bars": bars}
