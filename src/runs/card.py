"""A model's card: what it is for, what it was made from, how good it is and how well that is known, and what it cannot do."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import Refused
from reports.page import number
from runs import folder as folders
from runs import rows
from runs.command import again
from runs.fields import is_number, mapping
from runs.lineage import lineage
from runs.listing import choice
from runs.statistics import Mean, interval_text

GATES = (("quality", "Data contract"), ("explain", "Explanations"))


def verdict(folder: Path, record: Mapping[str, Any], gate: str) -> str:
    """What a gate said of a run: its verdict's status, that it was off, or that it was not asked."""
    try:
        found = mapping(json.loads((folder / gate / "verdict.json").read_text(encoding="utf-8"))).get("status")
    except (OSError, ValueError):
        found = None
    own = mapping(record.get(gate))
    return str(found or own.get("status") or own.get("action") or "not asked")


def as_markdown(
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
        task = tasks.module(tasks.of_record(record))
    except Refused:  # a task that this machine does not know: what it would say is left out
        task = None
    examples = getattr(task, "EXAMPLES", "examples")
    model, data = choice(record, "model") or "a model", choice(record, "data") or "its data"
    counts = [
        f"{split}: {number:,} {what}"
        for split in ("train", "val")
        for what, number in mapping(mapping(record.get("data")).get(split)).items()
        if what == examples and isinstance(number, int)
    ]
    known = _intervals(folder, record)
    metrics = {name: value for name, value in mapping(record.get("metrics")).items() if is_number(value)}
    lines = [
        f"# {model} on {data}",
        "",
        use or getattr(task, "USE", "Its use is not stated."),
        "",
        "## Metrics",
        "",
        "| metric | value | 95 % interval |",
        "|---|---:|---|",
        *(f"| {name} | {number(value, 5)} | {interval_text(known.get(name))} |" for name, value in metrics.items()),
        "",
        "Intervals are for other examples of the same kind, not for other seeds.",
        "",
        "## Data",
        "",
        f"{data}. {'; '.join(counts)}{'.' if counts else ''}",
        "",
        "## Gates",
        "",
        *(f"- {what}: {verdict(folder, record, gate)}" for gate, what in GATES),
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
        *(f"| {what} | {name} | `{mark}` |" for what, name, mark in lineage(folder, record, digest)),
        "",
        "```bash",
        shlex.join(again(folder, record).command),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _intervals(folder: Path, record: Mapping[str, Any]) -> dict[str, Mean]:
    if not (folder / folders.PREDICTIONS).exists():
        return {}
    try:
        columns = rows.read(folder, record)
    except Refused:
        return {}
    return rows.known(columns)
