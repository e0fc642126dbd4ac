"""`python -m explain calibrate`: bounds of the gate from accepted runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config import files
from config.errors import InputError
from config.parsing import read_json

MIN_RUNS = 3
DEVIATIONS = 2.0  # standard deviations below the mean


def command(runs: Sequence[str], output: str) -> int:
    """Write the mean of each measure over the runs, less two standard deviations.

    Args:
        runs: folders of accepted runs with explanations: one training with several seeds.
        output: the file.

    Returns:
        0.

    Raises:
        InputError: too few runs, or runs that are not comparable.
    """
    files.check_replaceable(output, _is_bounds, "a file of bounds")
    if len(runs) < MIN_RUNS:
        raise InputError(
            f"calibrate needs {MIN_RUNS} accepted runs or more, one training with several seeds; it got {len(runs)}"
        )
    verdicts = [_read_verdict(run) for run in runs]
    for name, plural in (("task", "tasks"), ("sample", "samples"), ("settings", "settings")):
        if len({json.dumps(_comparable(verdict, name), sort_keys=True) for verdict in verdicts}) > 1:
            raise InputError(
                f"the runs were explained with different {plural}: explain them with the same options and data"
            )
    if len({verdict["about"]["model"] for verdict in verdicts}) < len(verdicts):
        raise InputError("two of the runs have the same model: name runs that were trained with different seeds")
    for run, verdict in zip(runs, verdicts, strict=True):
        if verdict["status"] == "inconclusive":
            raise InputError(f"{run}: its explanations are inconclusive; remove it from the list")
    bounds = {}
    means = [{measure["name"]: measure["mean"]["value"] for measure in verdict["measures"]} for verdict in verdicts]
    for name in means[0]:
        values = [row[name] for row in means if row.get(name) is not None]
        if len(values) == len(means):
            bounds[name] = float(np.mean(values) - DEVIATIONS * np.std(values, ddof=1))
    text = json.dumps({"task": verdicts[0]["task"], "runs": [str(run) for run in runs], "bounds": bounds}, indent=1)
    try:
        files.write_text(Path(output), text + "\n")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error
    for name, bound in bounds.items():
        print(f"{name:<24}{bound:>8.3f}")
    return 0


def _is_bounds(path: Path) -> bool:
    return {"task", "runs", "bounds"} <= files.read_json(path).keys()


def _read_verdict(run: str) -> dict[str, Any]:
    for path in (Path(run) / "explain" / "verdict.json", Path(run) / "verdict.json"):
        if path.is_file():
            try:
                fields = read_json(path)
                return {name: fields[name] for name in ("status", "task", "measures", "about")}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} is damaged: {error}") from error
    raise InputError(f"{run}: there is no explain/verdict.json; python -m explain run={run} writes it")


def _comparable(verdict: dict[str, Any], name: str) -> Any:
    """Return a field of a verdict that must be equal in all runs; the precision may differ."""
    value = verdict["task"] if name == "task" else verdict["about"][name]
    return {key: item for key, item in value.items() if key != "bfloat16"} if isinstance(value, dict) else value


def read_bounds(path: str, task: str) -> dict[str, float]:
    """Read the bounds in a file of `command`.

    Raises:
        InputError: the file is missing, damaged, or of another task.
    """
    try:
        fields = read_json(path)
        bounds = {str(name): float(bound) for name, bound in fields["bounds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"explain.thresholds={path}: not a file of python -m explain calibrate ({error})") from error
    if fields.get("task") != task:
        raise InputError(f"explain.thresholds={path}: its bounds are for {fields.get('task')}, the model is for {task}")
    return bounds
