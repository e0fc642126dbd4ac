"""The model card: use, metrics with their intervals, data, verdicts of the gates, limits, licence and lineage."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from config.files import read_json
from config.numbers import format_number
from reports.markdown import code, code_block, escape
from runs import prediction_table
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage
from runs.listing import choice_name
from runs.rerun import rerun_command
from runs.statistics import format_interval

GATES = (("quality", "Data contract"), ("explain", "Explanations"))
FAILED = ("failed", "inconclusive", "unevaluated")  # verdicts of a gate that say against a model


def gate_verdict(folder: Path, record: Mapping[str, Any], gate: str) -> str:
    """Return the verdict of a gate on a run: its status, its action (off), or "not asked"."""
    verdict = read_json(folder / gate / "verdict.json")
    recorded = as_mapping(record.get(gate))
    return str(verdict.get("status") or recorded.get("status") or recorded.get("action") or "not asked")


def format_card(
    folder: Path,
    record: Mapping[str, Any],
    use: str | None = None,
    licence: str | None = None,
    model_digest: str | None = None,
    promotion: Mapping[str, str] | None = None,
) -> str:
    """Return the model card in Markdown.

    Args:
        folder: The run folder.
        record: Its record.
        use: Intended use of the model; that of its task by default.
        licence: Licence of the model.
        model_digest: Digest of the model folder, if it is known already.
        promotion: Why it is champion or not: `floor`, `justification` and `not promoted`, those that apply.
    """
    try:
        task = tasks.load_module(tasks.task_from_record(record))
    except InputError:  # a task that is not configured here: the card has less
        task = None
    unit = getattr(task, "EXAMPLES", "examples")
    model, data = choice_name(record, "model") or "a model", choice_name(record, "data") or "its data"
    splits = {split: as_mapping(as_mapping(record.get("data")).get(split)).get(unit) for split in ("train", "val")}
    counts = [f"{split}: {count:,} {unit}" for split, count in splits.items() if isinstance(count, int)]
    table, _ = prediction_table.read_if_valid(folder, record)
    intervals = prediction_table.metric_means(table) if table is not None else {}
    metrics = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    lines = [
        f"# {escape(model)} on {escape(data)}",
        "",
        use or getattr(task, "USE", "The intended use is not stated."),
        "",
        "## Metrics",
        "",
        "| metric | value | 95 % confidence interval |",
        "|---|---:|---|",
        *(
            f"| {escape(name)} | {format_number(value, grouped=True)} | {format_interval(intervals.get(name))} |"
            for name, value in metrics.items()
        ),
        "",
        "The intervals are for other examples of the same kind, not for other seeds.",
        "",
        "## Data",
        "",
        f"{escape(data)}. {'; '.join(counts)}{'.' if counts else ''}",
        "",
        "## Gates",
        "",
        *(f"- {title}: {escape(gate_verdict(folder, record, gate))}" for gate, title in GATES),
        "",
        *(
            ["## Promotion", "", *(f"- {name.capitalize()}: {escape(text)}" for name, text in promotion.items()), ""]
            if promotion
            else []
        ),
        "## Limits",
        "",
        getattr(task, "LIMITS", "None are stated."),
        "",
        "## Licence",
        "",
        licence or "None is stated.",
        "",
        "## Provenance",
        "",
        "| kind | name | SHA-256 or revision |",
        "|---|---|---|",
        *(
            f"| {kind} | {escape(name)} | {code(digest)} |"
            for kind, name, digest in collect_lineage(folder, record, model_digest)
        ),
        "",
        code_block(shlex.join(rerun_command(folder, record).command), "bash"),
    ]
    return "\n".join(lines) + "\n"
