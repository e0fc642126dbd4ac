"""Search spaces: distributions on the command line (`optim.lr=loguniform(1e-5,1e-4)`), and points to probe."""

import contextlib
import re
from collections.abc import Sequence

from config.errors import InputError
from katib.experiment import Experiment, Parameter, parse_number, trial_command
from katib.service_values import end_values, write_value

DISTRIBUTIONS = {
    "uniform": ("double", "uniform"),
    "loguniform": ("double", "logUniform"),
    "normal": ("double", "normal"),
    "lognormal": ("double", "logNormal"),
    "int": ("int", "uniform"),
    "logint": ("int", "logUniform"),
}
USAGE = (
    "uniform(low,high), uniform(low,high,step), loguniform(low,high), normal(low,high), lognormal(low,high), "
    "int(low,high), logint(low,high) or choice(a,b,...)"
)


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[Parameter]]:
    """Separate overrides with a fixed value from those with a distribution.

    Args:
        overrides: Hydra overrides; the value of some is a distribution, `optim.lr=loguniform(1e-5,1e-4)`.

    Returns:
        The fixed overrides, and the parameters.

    Raises:
        InputError: a distribution is invalid.
    """
    fixed, parameters = [], []
    for override in overrides:
        key, equals, value = override.partition("=")
        call = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", value)
        if call and call[1] in (*DISTRIBUTIONS, "choice"):
            values = [word.strip() for word in call[2].split(",")]
            parameters.append(_parse_parameter(key.strip(), call[1], values, override))
        elif not equals and not override.startswith("~"):
            raise InputError(f"{override} is not an override; write key=value or key=uniform(low,high)")
        else:
            fixed.append(override)
    return fixed, parameters


def _parse_parameter(key: str, name: str, values: list[str], override: str) -> Parameter:
    if name == "choice":
        if not all(values) or len(set(values)) < len(values):
            raise InputError(f"{override}: a choice is empty or occurs twice; list every choice once")
        kind = "discrete" if all(parse_number(value) is not None for value in values) else "categorical"
        return Parameter(key, kind, "", "", "", tuple(values), "uniform", ())
    kind, distribution = DISTRIBUTIONS[name]
    numbers = [number for value in values if (number := parse_number(value)) is not None]
    if len(values) not in (2, 3) or len(numbers) < len(values):
        raise InputError(f"{override}: invalid distribution; use {USAGE}")
    if kind == "int" and any(number != int(number) for number in numbers):
        raise InputError(f"{override}: {name} takes integers")
    low, high, *step = values
    if numbers[0] >= numbers[1]:
        raise InputError(f"{override}: {low} is not below {high}")
    return Parameter(key, kind, low, high, step[0] if step else "", (), distribution, ())


def probe_points(parameters: Sequence[Parameter], algorithm: str) -> list[dict[str, str]]:
    """Return the points of a search space at which a trial's command is composed.

    They are: the middle of all parameters; each parameter at its ends and choices with the others in the middle; all
    parameters at their lower, and all at their upper ends.

    Args:
        parameters: dimensions of the space; one without bounds and choices is left out.
        algorithm: name of the algorithm, whose service rounds to steps in its own way.

    Returns:
        Distinct assignments, the middle first; values are written as Katib writes them.
    """
    values = {parameter.name: row for parameter in parameters if (row := _probe_values(parameter, algorithm))}
    middle = {name: row[len(row) // 2] for name, row in values.items()}
    points = [middle]
    for name, row in values.items():
        points += [{**middle, name: value} for value in row]
    points += [{name: row[end] for name, row in values.items()} for end in (0, -1)]
    return list({tuple(sorted(point.items())): point for point in points}.values())


def probe_commands(experiment: Experiment, trial: str) -> list[tuple[dict[str, str], list[str]]]:
    """Return the probe points of an Experiment, with a trial's command at each; points that break it are left out."""
    commands = []
    for point in probe_points(experiment.parameters, experiment.algorithm):
        with contextlib.suppress(ValueError):
            commands.append((point, trial_command(experiment, trial, point)))
    return commands


def _probe_values(parameter: Parameter, algorithm: str) -> list[str]:
    """Return low, middle and high of a range; every choice of a list."""
    try:
        if parameter.type == "discrete" and algorithm == "hyperband":
            return [write_value(parameter, algorithm, float(choice)) for choice in parameter.choices]
        if parameter.type in ("categorical", "discrete"):
            return list(parameter.choices)
        return end_values(parameter, algorithm)
    except (ValueError, ArithmeticError):
        return []  # an invalid range, which K204 reports
