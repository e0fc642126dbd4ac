"""The report of a pipeline run: its decision, graph, steps, comparison with the champion, and parameters."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.files import read_json
from config.terminal import format_duration
from pipelines.graph import DEPENDENCIES
from reports import page
from reports.page import Cell

FILE = "report.html"
UNACCEPTABLE = ("failed", "inconclusive", "unevaluated")
STATUSES = ("passed", "warned", *UNACCEPTABLE, "off", "none")
_STATES = {"SUCCEEDED": "finished", "FAILED": "failed"}  # words of other pages; all others are interruptions
_TONES = {"done": "good", "failed": "bad", "interrupted": "fair"}
_NODE, _GAP = (148, 36), (16, 14)  # width and height of a node, and of the space between nodes, in pixels

Step = Mapping[str, Any]


def write_report(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the page into the folder of a pipeline run.

    Args:
        folder: of the run.
        record: content of its pipeline.json.

    Returns:
        The path of the page.
    """
    steps = {step["step"]: step for step in record["steps"]}
    decision, tone = _decide(record, steps)
    page.write(
        folder / FILE,
        "pipeline.html.jinja",
        title=f"Pipeline run {record['run']}",
        status=_STATES.get(record["state"], "interrupted"),
        decision=decision,
        tone=tone,
        summary=_summary(record["steps"]),
        graph=_graph(steps, _dependencies(steps)),
        comparison=_comparison(steps.get("evaluate", {})),
        parameters=[
            [name, " ".join(map(str, value)) if isinstance(value, list) else str(value)]
            for name, value in read_json(folder / "parameters.json").items()
        ],
        steps=[_row(name, steps, folder) for name in _dependencies(steps) if name != "finish"],
        commands=[
            [step["step"], command["command"], format_duration(command["seconds"]), str(command["code"])]
            for step in record["steps"]
            for command in step.get("commands", [])
        ],
    )
    return folder / FILE


def _dependencies(steps: Mapping[str, Step]) -> dict[str, tuple[str, ...]]:
    """The steps that each step waits for: those of the pipeline, and further ones that have begun."""
    further = {name: step.get("after") for name, step in steps.items() if name not in DEPENDENCIES}
    dependencies = dict(DEPENDENCIES)
    for name, parents in further.items():  # in the order in which they began
        waits = [str(parent) for parent in parents or [] if parent in dependencies] if isinstance(parents, list) else []
        dependencies[name] = tuple(waits or ["plan"])
    return dependencies


def _decide(record: Mapping[str, Any], steps: Mapping[str, Step]) -> tuple[str, str]:
    """The result of the run in one sentence, and its tone."""
    failed = next((step for step in record["steps"] if step["state"] != "done"), None)
    registered, plan = steps.get("register", {}), str(steps.get("plan", {}).get("verdict", ""))
    if record["state"] not in _STATES:
        step = f" in the step {failed['step']}" if failed else ""
        return f"Interrupted{step}; the same command resumes the run.", "fair"
    if failed and failed["state"] in ("running", "interrupted"):
        return f"Not registered: the step {failed['step']} was interrupted.", "bad"
    if failed and failed["step"].endswith(" gate"):
        reason = str(failed.get("message")).partition("; ")[0]  # the table has all reasons, and the link
        return f"Not registered: {reason}.", "bad"
    if failed and failed["step"] not in DEPENDENCIES and registered.get("verdict"):
        message = f"the step {failed['step']} failed with exit code {failed.get('code')}: {failed.get('message')}"
        return f"Registered as {registered['verdict']}; {message}.", "bad"
    if failed:
        reason = f"the step {failed['step']} failed with exit code {failed.get('code')}: {failed.get('message')}"
        return f"Not registered: {reason}.", "bad"
    if registered.get("verdict"):
        return f"Registered as {registered['verdict']}.", "fair" if "not promoted" in registered["verdict"] else "good"
    if plan.startswith("no: "):
        return f"Not trained: {plan.removeprefix('no: ')}.", "plain"
    return f"Not registered: {record.get('error') or 'no step reached the registry'}.", "bad"


def _summary(steps: Sequence[Step]) -> list[tuple[str, Any]]:
    if not steps:
        return []
    start = min(step["began"] for step in steps)
    end = max(step["began"] + step.get("seconds", 0) for step in steps)
    stamp = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return [("Started", stamp), ("Duration", format_duration(end - start))]


def _state(name: str, steps: Mapping[str, Step]) -> str:
    """State of a step: done, failed, interrupted, cached (a later step ran without it), or skipped."""
    if name in steps:
        state = str(steps[name]["state"])
        return "interrupted" if state == "running" else state
    return "cached" if any(name in _ancestors(later) for later in steps if later != "finish") else "skipped"


def _ancestors(name: str) -> set[str]:
    parents = DEPENDENCIES.get(name, ())
    return set(parents).union(*(_ancestors(parent) for parent in parents))


def _row(name: str, steps: Mapping[str, Step], folder: Path) -> list[Any]:
    step = steps.get(name, {})
    status, reason = _split_verdict(step)
    return [
        name,
        _state(name, steps),
        format_duration(step.get("seconds")),
        status,
        "" if name.endswith(" gate") else step.get("message") or reason,  # a gate has the reason of its check
        _report_cell(step.get("report"), folder),
    ]


def _split_verdict(step: Step) -> tuple[str, str]:
    """Status and reason of a verdict; the status of a result that is not a verdict is ""."""
    text = str(step.get("verdict") or "")
    status, _, reason = text.partition(": ")
    return (status, reason) if status in STATUSES else ("", text)


def _report_cell(report: str | None, folder: Path) -> Cell | str | None:
    """A link to a report below the root of all runs, the path of another one; None if there is no file."""
    if not report or not Path(report).exists():
        return None
    path, root = Path(report).resolve(), folder.resolve().parents[1]
    return Cell(path.name, href=page.relative_url(path, folder.resolve())) if path.is_relative_to(root) else report


def _graph(steps: Mapping[str, Step], dependencies: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Geometry of the graph: size, edges as polylines, and nodes (left, top, name, tone, state and time)."""
    (width, height), (gap_x, gap_y) = _NODE, _GAP
    columns: dict[str, float] = {}
    layers: dict[str, int] = {}
    for name, parents in dependencies.items():
        if name == "finish":  # it writes the page
            continue
        siblings = [child for child, sources in dependencies.items() if sources == parents and child != "finish"]
        centre = sum(columns[parent] for parent in parents) / max(1, len(parents))
        columns[name] = centre + siblings.index(name) - (len(siblings) - 1) / 2
        layers[name] = max((layers[parent] + 1 for parent in parents), default=0)
    first = min(columns.values())
    left = {name: (column - first) * (width + gap_x) + 1 for name, column in columns.items()}
    top = {name: layer * (height + gap_y) + 1 for name, layer in layers.items()}
    edges = [
        [
            (left[parent] + width / 2, top[parent] + height),
            (left[parent] + width / 2, top[name] - gap_y),
            (left[name] + width / 2, top[name]),
        ]
        for name, parents in dependencies.items()
        for parent in parents
    ]
    nodes = []
    for name in columns:
        state, seconds = _state(name, steps), steps.get(name, {}).get("seconds")
        text = f"{state}, {format_duration(seconds)}" if seconds is not None else state
        unacceptable = state == "done" and _split_verdict(steps[name])[0] in UNACCEPTABLE
        nodes.append((left[name], top[name], name, "fair" if unacceptable else _TONES.get(state, "plain"), text))
    return {
        "width": max(left.values()) + width + 1,
        "height": max(top.values()) + height + 1,
        "node": _NODE,
        "edges": edges,
        "nodes": nodes,
    }


def _comparison(step: Step) -> dict[str, Any] | None:
    """The comparison with the champion, or with another baseline; None if the step did not run."""
    if not step.get("verdict"):
        return None
    comparison = {"verdict": step["verdict"], "version": step.get("champion"), "rows": []}
    if result := step.get("comparison"):
        difference, margin = result["difference"], result["margin"]
        low, high = difference["low"], difference["high"]
        bound = -margin if result["higher_is_better"] else None
        ends = (min(low, -margin, 0.0), max(high, margin, 0.0))
        comparison["rows"] = [
            [
                result["metric"],
                difference["b"],
                difference["a"],
                f"{difference['value']:+.4g}",
                f"{low:+.4g} to {high:+.4g}",
                (difference["value"], low, high, *ends, bound),
                margin,
                result["examples"],
            ]
        ]
    return comparison
