"""`python -m explain calibrate`: bounds of the gate from accepted runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
    for run, verdict in zip(runs, verdicts, strict=True):
        if verdict.part:
            raise InputError(
                f"{run}: only {verdict.part} examples were explained, because the model passed beyond doubt, and bounds need all: "
                f"python -m explain run={run} explain.looks=1"
            )
    for name, plural in (("task", "tasks"), ("sample", "samples"), ("settings", "settings")):
        if len({getattr(verdict, name) for verdict in verdicts}) > 1:
            raise InputError(
                f"the runs were explained with different {plural}: explain them with the same options and data"
            )
    if len({verdict.model for verdict in verdicts}) < len(verdicts):
        raise InputError("two of the runs have the same model: name runs that were trained with different seeds")
    for run, verdict in zip(runs, verdicts, strict=True):
        if verdict.status == "inconclusive":
            raise InputError(f"{run}: its explanations are inconclusive; remove it from the list")
    bounds = {}
    for name in verdicts[0].means:
        values = [verdict.means[name] for verdict in verdicts if name in verdict.means]
        if len(values) == len(verdicts):
            bounds[name] = float(np.mean(values) - DEVIATIONS * np.std(values, ddof=1))
    text = json.dumps({"task": verdicts[0].task, "runs": [str(run) for run in runs], "bounds": bounds}, indent=1)
    try:
        files.write_text(Path(output), text + "\n")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error
    for name, bound in bounds.items():
        print(f"{name:<24}{bound:>8.3f}")
    return 0


def _is_bounds(path: Path) -> bool:
    return {"task", "runs", "bounds"} <= files.read_json(path).keys()


class _Verdict(NamedTuple):
    status: str
    task: str
    model: str  # digest
    sample: str  # JSON
    settings: str  # JSON, without the precision, which may differ
    means: dict[str, float]  # by measure; without those that have none
    part: str  # "96 of 256" if the explanations stopped early, otherwise ""


def _read_verdict(run: str) -> _Verdict:
    for path in (Path(run) / "explain" / "verdict.json", Path(run) / "verdict.json"):
        if path.is_file():
            try:
                fields = read_json(path)
                inputs, settings = fields["about"], dict(fields["about"]["settings"])
                settings.pop("bfloat16", None)
                stop = fields.get("stop") or {"examples": 0, "sample": 0}  # none in files of earlier releases
                early = int(stop["examples"]) < int(stop["sample"])
                return _Verdict(
                    status=str(fields["status"]),
                    task=str(fields["task"]),
                    model=str(inputs["model"]),
                    sample=json.dumps(inputs["sample"]),
                    settings=json.dumps(settings, sort_keys=True),
                    means={
                        str(measure["name"]): float(measure["mean"]["value"])
                        for measure in fields["measures"]
                        if measure["mean"]["value"] is not None
                    },
                    part=f"{stop['examples']} of {stop['sample']}" if early else "",
                )
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    raise InputError(f"{run}: there is no explain/verdict.json; python -m explain run={run} writes it")


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
