"""The report's times, gates, configuration and origin, as plain data."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.files import read_json
from config.terminal import format_duration, format_timestamp
from reports.page import Cell, format_percent
from runs import folder as folders
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage
from runs.rerun import rerun_command

GATES = {"quality": "data contract", "explain": "explanations"}


def timings(record: Mapping[str, Any]) -> list[list[Any]]:
    """Return the seconds of each phase, and their share."""
    seconds = {name: value for name, value in as_mapping(record.get("timings")).items() if is_number(value)}
    total = sum(seconds.values()) or 1.0
    return [
        [name, format_duration(value), format_percent(value / total), value / total] for name, value in seconds.items()
    ]


def machine(record: Mapping[str, Any]) -> str:
    """Return the utilisation and peak memory as text."""
    use, peak = as_mapping(record.get("utilisation")), as_mapping(record.get("peak_memory"))
    facts = (
        (use.get("cpu_percent"), "CPU utilisation {} %"),
        (use.get("gpu_percent"), "GPU utilisation {} %"),
        (peak.get("process_mib"), "peak memory {:,.0f} MiB"),
        (peak.get("gpu_mib"), "peak GPU memory {:,.0f} MiB"),
    )
    text = "; ".join(form.format(value) for value, form in facts if is_number(value))
    return f"{text[:1].upper()}{text[1:]}"


def gates(folder: Path, record: Mapping[str, Any]) -> list[list[Any]]:
    """Return each gate's verdict with its reasons and a link to its report."""
    table: list[list[Any]] = []
    for name, title in GATES.items():
        gate, verdict = as_mapping(record.get(name)), read_json(folder / name / "verdict.json")
        status = verdict.get("status") or gate.get("status")
        if not isinstance(status, str):
            table.append([title, str(gate.get("action") or "not run"), "", ""])
            continue
        reasons = verdict.get("why")
        text = "; ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons or "")
        if name == "explain" and not gate.get("status"):
            text = f"{_afterwards(record, verdict)}{f': {text}' if text else ''}"
        path = f"{name}/report.html"
        table.append([title, status, text, Cell("report", href=path) if (folder / path).exists() else ""])
    return table


def _afterwards(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """Return when an explanation was made that was not part of training, and whether it is of other data."""
    provenance, data = as_mapping(verdict.get("about")), as_mapping(record.get("data"))
    fingerprint = as_mapping(data.get("fingerprints")).get("val")
    other = (
        ", on other data than the run's"
        if provenance.get("data") and fingerprint and provenance["data"] != fingerprint
        else ""
    )
    return f"explained after training{other}, {format_timestamp(provenance.get('when'))}"


def changes(record: Mapping[str, Any], against: Path) -> dict[str, Any]:
    """Return the settings that differ from another run's.

    Raises:
        InputError: the other run has no record, or it cannot be read.
    """
    config, reference = (as_mapping(source.get("config")) for source in (record, folders.read_record(against)))
    differences = folders.config_differences(reference, config, {})
    return {"run": str(against), "rows": [[key, str(old), str(new)] for key, old, new in differences]}


def origin(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved configuration, the origin with its hashes, and the command that repeats the run."""
    repeat = rerun_command(folder, record)
    return {
        "configuration": json.dumps(as_mapping(record.get("config")), indent=1, ensure_ascii=False),
        "lineage": collect_lineage(folder, record),
        "command": shlex.join(repeat.command),
        "command_notes": repeat.notes,
    }
