"""The report's part about the run itself: time, gates, configuration, origin."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.terminal import format_duration
from runs import folder as folders
from runs import page
from runs.fields import as_mapping, is_number
from runs.lineage import collect_lineage
from runs.page import badge, escaped
from runs.rerun import rerun_command


def work(record: Mapping[str, Any]) -> list[str]:
    """Seconds by phase, and how busy the machine was."""
    timings = {name: each for name, each in as_mapping(record.get("timings")).items() if is_number(each)}
    if not timings:
        return []
    total = sum(timings.values()) or 1.0
    cells = [
        [escaped(name), format_duration(each), f"{each / total:.0%}", page.bar(each / total)]
        for name, each in timings.items()
    ]
    use, peak = as_mapping(record.get("utilisation")), as_mapping(record.get("peak_memory"))
    facts = {
        "cores in use": f"{use['cpu_percent']} %" if is_number(use.get("cpu_percent")) else None,
        "GPU in use": f"{use['gpu_percent']} %" if is_number(use.get("gpu_percent")) else None,
        "peak memory": f"{peak['process_mib']:,.0f} MiB" if is_number(peak.get("process_mib")) else None,
        "peak GPU memory": f"{peak['gpu_mib']:,.0f} MiB" if is_number(peak.get("gpu_mib")) else None,
    }
    said = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return [
        "<h2>Time and machine</h2>",
        page.table(["phase", "time", "", ""], cells, ["", "n", "n", ""]),
        f"<p class='small'>{escaped(said)}</p>",
    ]


def gates(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Verdicts of the gates, with links to their reports."""
    cells = []
    for name, what in (("quality", "data contract"), ("explain", "explanations")):
        found = as_mapping(record.get(name))
        verdict = _json(folder / name / "verdict.json")
        said = verdict.get("status") or found.get("status")
        if not isinstance(said, str):
            cells.append([what, escaped(found.get("action") or "not asked"), "", ""])
            continue
        why = verdict.get("why")
        text = "; ".join(map(str, why)) if isinstance(why, list) else str(why or "")
        link = f"<a href='{name}/report.html'>report</a>" if (folder / name / "report.html").exists() else ""
        cells.append([what, badge(said), escaped(text), link])
    return ["<h2>Gates</h2>", page.table(["", "verdict", "why", ""], cells, ["", "", "t", ""])]


def configuration(record: Mapping[str, Any], against: Path | None) -> list[str]:
    """The resolved configuration, and what it differs from another run's by.

    Raises:
        InputError: the other run has no record to read.
    """
    config = as_mapping(record.get("config"))
    found = ["<h2>Configuration</h2>"]
    if against is not None:
        other = as_mapping(folders.read_record(against).get("config"))
        changed = folders.config_differences(other, config, {})
        cells = [[escaped(key), escaped(was), escaped(now)] for key, was, now in changed]
        found.append(f"<p>It differs from {escaped(against)} by {len(changed)} settings.</p>")
        if cells:
            found.append(page.table(["setting", "there", "here"], cells, ["w", "i", "i"]))
    text = json.dumps(config, indent=1, ensure_ascii=False)
    return [*found, f"<details><summary>all of it</summary><pre>{escaped(text)}</pre></details>"]


def origin(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """What the run was made from, with hashes, and the command that does it again."""
    cells = [
        [what, escaped(name), f"<code>{escaped(mark)}</code>"] for what, name, mark in collect_lineage(folder, record)
    ]
    found = rerun_command(folder, record)
    notes = "".join(f"<p class='small'>{escaped(note)}</p>" for note in found.notes)
    return [
        "<h2>Where it comes from</h2>",
        page.table(["", "what", "SHA-256 or revision"], cells, ["", "i", "i"]),
        "<h3>To do it again</h3>",
        f"<pre>{escaped(shlex.join(found.command))}</pre>{notes}",
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        return as_mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
