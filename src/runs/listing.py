"""Listing of runs: one summary row per run folder. Damaged and foreign folders get a row with a problem."""

import operator
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from runs import folder as folders
from runs import hyperparameters
from runs.fields import as_mapping, is_number

# A folder with one of these and no run.json is an incomplete run.
_TRACES = (folders.HYDRA, folders.METRICS, folders.CHECKPOINTS, folders.LOCK)
_MLFLOW_ID = re.compile("[0-9a-f]{32}")
_ORDERS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_MAPPINGS = ("metrics", "parameters", "overridden")
_EMPTY_ROW = dict.fromkeys(
    ("task", "model", "data", "fingerprint", "monitor", "value", "started", "duration_seconds", "restarts", "trial")
)


def find_runs(roots: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Return summaries of all runs in or below the folders, newest first; those without a start come last.

    Symbolic links are not followed, so that no run is listed twice.
    """
    rows = {row["folder"]: row for root in roots for row in _walk(Path(root))}
    by_folder = sorted(rows.values(), key=lambda row: str(row["folder"]))
    return sorted(by_folder, key=lambda row: row["started"] or "", reverse=True)


def filter_runs(
    rows: Sequence[dict[str, Any]], conditions: Sequence[str], sort_by: str | None, limit: int | None
) -> list[dict[str, Any]]:
    """Select and sort summaries.

    Args:
        rows: Result of `find_runs`.
        conditions: All must hold, e.g. `model=bert`, `status=finished`, `trial=x`, `val_f1>80`, `optim.lr<1e-3`.
        sort_by: A field, metric or key of the configuration: numbers descending, text ascending; a leading `-` reverses the order. Rows without a
            value come last.
        limit: Maximum number of rows.

    Raises:
        InputError: A condition is invalid, or no row has a name.
    """
    selection = [row for row in rows if all(_satisfies(row, condition, rows) for condition in conditions)]
    if sort_by is not None:
        name = sort_by.removeprefix("-")
        check_name(rows, name)
        with_value = [row for row in selection if field_value(row, name) is not None]
        numeric = all(is_number(field_value(row, name)) for row in with_value)
        with_value.sort(
            key=lambda row: field_value(row, name) if numeric else str(field_value(row, name)),
            reverse=numeric != (sort_by != name),
        )
        selection = with_value + [row for row in selection if field_value(row, name) is None]
    return selection[:limit]


def _satisfies(row: Mapping[str, Any], condition: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    match = re.fullmatch(r"([\w.\-]+)(!=|>=|<=|=|>|<)(.*)", condition)
    if match is None:
        raise InputError(
            f"--where {condition}: must be a name, one of = != > < >= <=, and a value, e.g. model=bert or 'val_f1>80'"
        )
    name, sign, text = match.groups()
    check_name(rows, name)
    value = field_value(row, name)
    try:
        number = float(text)
    except ValueError:
        number = None
    if sign in ("=", "!="):
        return (text in (str(value), hyperparameters.text(value)) or (is_number(value) and number == value)) == (
            sign == "="
        )
    if number is None:
        raise InputError(f"--where {condition}: {text!r} is not a number")
    return is_number(value) and bool(_ORDERS[sign](value, number))


def field_value(row: Mapping[str, Any], name: str) -> Any:
    """Return a field of a summary, a metric or a value of the configuration; None if the run has none."""
    return row[name] if name in row else row["metrics"].get(name, row["parameters"].get(name))


def check_name(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Check that some run has a field, metric or key of the configuration.

    Raises:
        InputError: None has.
    """
    metrics = sorted({metric for row in rows for metric in row["metrics"]})
    keys = sorted({key for row in rows for key in row["parameters"]})
    names = [*(field for field in rows[0] if field not in _MAPPINGS), *metrics] if rows else [name]
    if name not in names and name not in keys:
        leaf = sorted(
            (key for key in keys if key.rpartition(".")[2] == name), key=lambda key: not key.startswith("optim.")
        )
        from config.messages import suggest_name  # imports OmegaConf

        suggestion = f" (did you mean {leaf[0]}?)" if leaf else suggest_name(name, [*names, *keys])
        also = ", or a key of the configuration, such as optim.lr" if keys else ""
        raise InputError(f"runs have no field {name}; valid: {', '.join(names)}{also}{suggestion}")


def summarise_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the summary of a run.

    Returns:
        folder, status (that of run.json; "stopped" or "lost" if it says running and the process is gone; "damaged", "incomplete" or
        "foreign" without a readable record), problem, task, model, data, fingerprint (of the evaluation data), monitor
        (its name) and value, metrics, started, duration_seconds, restarts, trial, parameters (the values of the configuration
        by dotted key) and overridden (the keys that the command line set).
    """
    row: dict[str, Any] = {"folder": os.fspath(folder), "status": "", "problem": None, **_EMPTY_ROW}
    row |= {"metrics": {}, "parameters": {}, "overridden": []}
    path = Path(folder)
    try:
        if not (path / folders.RECORD).exists():
            incomplete = any((path / name).exists() for name in _TRACES)
            return row | {"status": "incomplete" if incomplete else "foreign", "problem": f"no {folders.RECORD}"}
        record = folders.read_record(path)
    except (InputError, OSError) as error:
        return row | {"status": "damaged", "problem": str(error)}
    metrics = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    config = as_mapping(record.get("config"))
    monitor = _monitor(config, metrics)
    task = as_mapping(config.get("task")).get("name")
    return row | {
        "status": run_status(path, record),
        "problem": record.get("reason"),
        "task": task if isinstance(task, str) else None,
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
        "parameters": hyperparameters.flatten(config),
        "overridden": hyperparameters.overridden_keys(record.get("command")),
    }


def run_status(folder: Path, record: Mapping[str, Any]) -> str:
    """Return the status in the record, unless it is "running" and the process is gone.

    Returns:
        "stopped" if the process on this machine is gone, "lost" if one on another machine is (`folders.is_lost`).
    """
    if record["status"] != "running":
        return str(record["status"])
    sessions = record.get("sessions")
    last = as_mapping(sessions[-1]) if isinstance(sessions, list) and sessions else {}
    if last.get("host") == socket.gethostname():
        return "running" if folders.is_locked(folder) else "stopped"
    return "lost" if folders.is_lost(folder) else "running"


def choice_name(record: Mapping[str, Any], group: str) -> str | None:
    """Return a name for the model or data of a run: Hydra's choice, or a name in the configuration."""
    choice = as_mapping(record.get("choices")).get(group)
    if isinstance(choice, str):
        return choice
    config = as_mapping(as_mapping(record.get("config")).get(group))
    names = (config.get(key) for key in ("name", "pretrained", "path", "_target_"))
    return next((name for name in names if isinstance(name, str) and name), None)


def _walk(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the runs below a folder. A folder with files but without any run below it is one foreign row."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        status = "foreign" if not folder.exists() else "damaged"
        yield summarise_run(folder) | {"status": status, "problem": error.strerror or str(error)}
        return
    names = {entry.name for entry in entries}
    if folders.RECORD in names or names & set(_TRACES):
        yield summarise_run(folder)
        return
    if _MLFLOW_ID.fullmatch(folder.name) and "artifacts" in names:  # MLflow's, with a copy of a record
        return
    rows = [row for entry in entries if entry.is_dir(follow_symlinks=False) for row in _walk(Path(entry.path))]
    if "mlflow.db" in names:  # the store of logger=mlflow; its other folders are MLflow's
        yield from (row for row in rows if row["status"] != "foreign")
    elif any(row["status"] != "foreign" for row in rows):
        yield from rows
    elif rows or any(not name.startswith(".") for name in names):
        yield summarise_run(folder)


def _monitor(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """The metric by which the run is judged: that of the configuration or the task, or the first one."""
    declared = [config.get("monitor"), *(as_mapping(group).get("monitor") for group in config.values())]
    return next((name for name in [*declared, *metrics] if isinstance(name, str) and name in metrics), None)
