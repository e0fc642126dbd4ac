"""A model's card: what it is for, what it was made from, how good it is and how well that is known, and what it cannot do."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from reports.page import format_rounded
from runs import folder as folders
from runs import prediction_table
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage
from runs.listing import choice_name
from runs.rerun import rerun_command
from runs.statistics import MeanEstimate, format_interval

GATES = (("quality", "Data contract"), ("explain", "Explanations"))


def gate_verdict(folder: Path, record: Mapping[str, Any], gate: str) -> str:
    """What a gate said of a run: its verdict's status, that it was off, or that it was not asked."""
    try:
        found = as_mapping(json.loads((folder / gate / "verdict.json").read_text(encoding="utf-8"))).get("status")
    except (OSError, ValueError):
        found = None
    own = as_mapping(record.get(gate))
    return str(found or own.get("status") or own.get("action") or "not asked")


def format_card(
    folder: Path,
    record: Mapping[str, Any],
    use: str | None = None,
    licence: str | None = None,
    digest: str | None = None,
) -> str:
    """The card.

    Args:
        folder: the run's.
        record: its run.json.
        use: what it is meant for, in words; None: what its task is.
        licence: of the model; None: it is said that none is stated.
        digest: of its model folder, where it is known already.
    """
    try:
        task = tasks.load_module(tasks.task_from_record(record))
    except InputError:  # a task that this machine does not know: what it would say is left out
        task = None
    examples = getattr(task, "EXAMPLES", "examples")
    model, data = choice_name(record, "model") or "a model", choice_name(record, "data") or "its data"
    counts = [
        f"{split}: {number:,} {what}"
        for split in ("train", "val")
        for what, number in as_mapping(as_mapping(record.get("data")).get(split)).items()
        if what == examples and isinstance(number, int)
    ]
    known = _intervals(folder, record)
    metrics = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    lines = [
        f"# {model} on {data}",
        "",
        use or getattr(task, "USE", "Its use is not stated."),
        "",
        "## Metrics",
        "",
        "| metric | value | 95 % interval |",
        "|---|---:|---|",
        *(
            f"| {name} | {format_rounded(value, 5)} | {format_interval(known.get(name))} |"
            for name, value in metrics.items()
        ),
        "",
        "Intervals are for other examples of the same kind, not for other seeds.",
        "",
        "## Data",
        "",
        f"{data}. {'; '.join(counts)}{'.' if counts else ''}",
        "",
        "## Gates",
        "",
        *(f"- {what}: {gate_verdict(folder, record, gate)}" for gate, what in GATES),
        "",
        "## Limits",
        "",
        getattr(task, "LIMITS", "None are stated."),
        "",
        "## Licence",
        "",
        licence or "None is stated.",
        "",
        "## Where it comes from",
        "",
        "| | what | SHA-256 or revision |",
        "|---|---|---|",
        *(f"| {what} | {name} | `{mark}` |" for what, name, mark in collect_lineage(folder, record, digest)),
        "",
        "```bash",
        shlex.join(rerun_command(folder, record).command),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _intervals(folder: Path, record: Mapping[str, Any]) -> dict[str, MeanEstimate]:
    if not (folder / folders.PREDICTIONS).exists():
        return {}
    try:
        columns = prediction_table.read_table(folder, record)
    except InputError:
        return {}
    return prediction_table.metric_means(columns)
