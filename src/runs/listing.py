"""Runs found under folders, one summary each; what is damaged or no run says so and breaks nothing."""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.terminal import format_duration, format_table, format_value, make_printable
from runs import folder as folders
from runs.fields import as_mapping, is_number

# A folder with one of these and no run.json: its process died before the first record, or the record is gone.
_TRACES = (folders.HYDRA, folders.METRICS, folders.CHECKPOINTS, folders.LOCK)


def find_runs(roots: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Summaries of all runs in or under the folders, newest first; those without a start come last.

    Symbolic links are not followed, so no run comes twice and no loop is walked.
    """
    found = {row["folder"]: row for root in roots for row in _walk(Path(root))}
    rows = sorted(found.values(), key=lambda row: str(row["folder"]))
    return sorted(rows, key=lambda row: row["started"] or "", reverse=True)


def filter_runs(
    rows: Sequence[dict[str, Any]], where: Sequence[str], by: str | None, most: int | None
) -> list[dict[str, Any]]:
    """Some of the summaries, in another order.

    Args:
        rows: of `find`.
        where: conditions that all must hold: `model=bert`, `status=finished`, `trial=x`, `val_f1>80`, `duration_seconds<60`.
        by: a value or metric; numbers come largest first, `-` in front turns it round, what has none comes last.
        most: rows at most.

    Raises:
        InputError: a condition that is none, or a name that no row has.
    """
    found = [row for row in rows if all(_holds(row, condition, rows) for condition in where)]
    if by is not None:
        name = by.removeprefix("-")
        _known(rows, name)
        have = [row for row in found if _value(row, name) is not None]
        numbers = all(is_number(_value(row, name)) for row in have)
        have.sort(
            key=lambda row: _value(row, name) if numbers else str(_value(row, name)), reverse=numbers != (by != name)
        )
        found = have + [row for row in found if _value(row, name) is None]
    return found[:most]


def _holds(row: Mapping[str, Any], condition: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    match = re.fullmatch(r"([\w.\-]+)(!=|>=|<=|=|>|<)(.*)", condition)
    if match is None:
        raise InputError(
            f"--where {condition}: a name, one of = != > < >= <=, and a value, such as model=bert or 'val_f1>80'"
        )
    name, sign, wanted = match.groups()
    _known(rows, name)
    value = _value(row, name)
    if sign in ("=", "!="):
        return (str(value) == wanted or (is_number(value) and _number(wanted) == value)) == (sign == "=")
    bound = _number(wanted)
    if bound is None:
        raise InputError(f"--where {condition}: {wanted!r} is not a number")
    if not is_number(value):
        return False
    return bool({">": value > bound, "<": value < bound, ">=": value >= bound, "<=": value <= bound}[sign])


def _value(row: Mapping[str, Any], name: str) -> Any:
    return row[name] if name in row else row["metrics"].get(name)


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    if not rows:
        return
    metrics = sorted({metric for row in rows for metric in row["metrics"]})
    names = [each for each in rows[0] if each != "metrics"]
    if name not in [*names, *metrics]:
        raise InputError(f"runs have no {name}; they have {', '.join([*names, *metrics])}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def summarise_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """One run in a few values.

    Returns:
        folder, status (as in run.json; "stopped" for one that says running while no process is there;
        "damaged", "incomplete" or "foreign" where there is no record to read), problem, task, model, data, fingerprint
        (of the evaluation data), monitor (name) and value, metrics, started, duration_seconds, restarts, trial.
    """
    empty = dict.fromkeys(
        (
            "task",
            "model",
            "data",
            "fingerprint",
            "monitor",
            "value",
            "started",
            "duration_seconds",
            "restarts",
            "trial",
        ),
        None,
    )
    row: dict[str, Any] = {"folder": os.fspath(folder), "status": "", "problem": None, **empty, "metrics": {}}
    path = Path(folder)
    try:
        if not (path / folders.RECORD).exists():
            incomplete = any((path / name).exists() for name in _TRACES)
            return row | {
                "status": "incomplete" if incomplete else "foreign",
                "problem": f"no {folders.RECORD}",
            }
        record = folders.read_record(path)
    except (InputError, OSError) as error:
        return row | {"status": "damaged", "problem": str(error)}
    metrics = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    config = as_mapping(record.get("config"))
    monitor = _monitor(config, metrics)
    return row | {
        "status": run_status(path, record),
        "problem": record.get("reason"),
        "task": task if isinstance(task := as_mapping(config.get("task")).get("name"), str) else None,
        "model": choice_name(record, "model"),
        "data": choice_name(record, "data"),
        "fingerprint": as_mapping(as_mapping(record.get("data")).get("fingerprints")).get("val"),
        "monitor": monitor,
        "value": metrics.get(monitor) if monitor else None,
        "metrics": metrics,
        "started": record["started"] if isinstance(record.get("started"), str) else None,
        "duration_seconds": record["duration_seconds"] if is_number(record.get("duration_seconds")) else None,
        "restarts": record.get("restarts"),
        "trial": record.get("trial"),
    }


def run_status(folder: Path, record: Mapping[str, Any]) -> str:
    """The status in the record; "stopped" if that says running and its process, on this host, is gone."""
    sessions = record.get("sessions")
    last = as_mapping(sessions[-1]) if isinstance(sessions, list) and sessions else {}
    here = last.get("host") == socket.gethostname()
    if record["status"] == "running" and here and not folders.is_locked(folder):
        return "stopped"
    return str(record["status"])


def choice_name(record: Mapping[str, Any], group: str) -> str | None:
    """What a person would call the run's model or data: Hydra's choice, or the name in the configuration."""
    chosen = as_mapping(record.get("choices")).get(group)
    if isinstance(chosen, str):
        return chosen
    config = as_mapping(as_mapping(record.get("config")).get(group))
    names = (config.get(key) for key in ("name", "pretrained", "path", "_target_"))
    return next((name for name in names if isinstance(name, str) and name), None)


def format_runs(rows: Sequence[Mapping[str, Any]], room: int) -> str:
    """The summaries as a table that fits the terminal."""
    cells = []
    for row in rows:
        metric = f"{row['monitor']} {format_value(row['value'])}" if row["value"] is not None else "-"
        cells.append([
            *(make_printable(row[key] or "-") for key in ("folder", "status", "model", "data")),
            make_printable(metric),
            format_duration(row["duration_seconds"]),
        ])  # fmt: skip
    return format_table(["run", "status", "model", "data", "metric", "time"], cells, room)


def _walk(folder: Path) -> Iterator[dict[str, Any]]:
    """A run ends the descent. A folder that holds files but no run, below it either, is one foreign row."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        what = error.strerror or str(error)
        yield summarise_run(folder) | {"status": "foreign" if not folder.exists() else "damaged", "problem": what}
        return
    names = {entry.name for entry in entries}
    if folders.RECORD in names or names & set(_TRACES):
        yield summarise_run(folder)
        return
    if "mlflow.db" in names:  # logger=mlflow keeps its store, with copies of records, among the runs
        return
    rows = [row for entry in entries if entry.is_dir(follow_symlinks=False) for row in _walk(Path(entry.path))]
    runs = [row for row in rows if row["status"] != "foreign"]
    if runs:
        yield from rows
    elif rows or any(not name.startswith(".") for name in names):
        yield summarise_run(folder)


def _monitor(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """The metric that the run was judged by: the configuration's, the task's, or the first that there is."""
    declared = [config.get("monitor"), *(as_mapping(group).get("monitor") for group in config.values())]
    return next((name for name in [*declared, *metrics] if isinstance(name, str) and name in metrics), None)
