"""Bounds for the gate from accepted runs: `python -m explain calibrate RUN RUN RUN`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config import files
from config.errors import InputError

RUNS = 3  # accepted runs at least
DEVIATIONS = 2.0  # below their mean


def command(runs: Sequence[str], output: str) -> int:
    """Writes each measure's mean over the runs less two of their standard deviations.

    Args:
        runs: folders of runs that were explained and are accepted: the same training with several seeds.
        output: the file.

    Returns:
        0.

    Raises:
        InputError: too few runs, or runs that cannot be put together.
    """
    if len(runs) < RUNS:
        raise InputError(
            f"calibrate needs {RUNS} accepted runs or more, the same training with several seeds; here are {len(runs)}"
        )
    found = [_verdict(run) for run in runs]
    for name, what in (("task", "tasks"), ("sample", "samples"), ("settings", "settings")):
        values = [
            json.dumps(each["task"] if name == "task" else _comparable(each["about"][name]), sort_keys=True)
            for each in found
        ]
        if len(set(values)) > 1:
            raise InputError(f"these runs were explained with different {what}: explain them alike, on the same data")
    if len({each["about"]["model"] for each in found}) < len(found):
        raise InputError("two of these runs are the same model: give runs that were trained with several seeds")
    bad = [run for run, each in zip(runs, found, strict=True) if each["status"] == "inconclusive"]
    if bad:
        raise InputError(f"{bad[0]}: its explanations are inconclusive, so nothing can be learned from them")
    bounds = {}
    for name in (each["name"] for each in found[0]["measures"]):
        means = [each["mean"]["value"] for verdict in found for each in verdict["measures"] if each["name"] == name]
        if len(means) == len(found) and None not in means:
            bounds[name] = float(np.mean(means) - DEVIATIONS * np.std(means, ddof=1))
    text = json.dumps({"task": found[0]["task"], "runs": [str(run) for run in runs], "bounds": bounds}, indent=1)
    path = Path(output)
    try:
        files.write_text(path, text + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    for name, bound in bounds.items():
        print(f"{name:<24}{bound:>8.3f}")
    return 0


def _verdict(run: str) -> dict[str, Any]:
    for path in (Path(run) / "explain" / "verdict.json", Path(run) / "verdict.json"):
        if path.is_file():
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
                return {name: value[name] for name in ("status", "task", "measures", "about")}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} is damaged: {error}") from error
    raise InputError(f"{run}: there is no explain/verdict.json; python -m explain run={run} writes it")


def _comparable(value: Any) -> Any:
    return {name: each for name, each in value.items() if name != "bfloat16"} if isinstance(value, dict) else value


def read_bounds(path: str, task: str) -> dict[str, float]:
    """The bounds of a file that `command` wrote.

    Raises:
        InputError: there is none, or it is of another task.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        bounds = {str(name): float(bound) for name, bound in value["bounds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"explain.thresholds={path}: not a file of python -m explain calibrate ({error})") from error
    if value.get("task") != task:
        raise InputError(f"explain.thresholds={path}: its bounds are for {value.get('task')}, and this is {task}")
    return bounds
