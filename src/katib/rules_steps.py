"""Rules for values that the suggestion services make of min, max and step: their findings are warnings."""

from collections.abc import Iterator

from katib.experiment import Experiment, Parameter, parse_number
from katib.findings import Problem, Rule
from katib.service_values import GOPTUNA, HYPEROPT, end_values

_TOLERANCE = 1e-9  # of a quotient of two decimals


def _steps(experiment: Experiment) -> Iterator[Problem]:
    algorithm = experiment.algorithm
    for parameter in experiment.parameters:
        step = parse_number(parameter.step) if parameter.step else None
        if parameter.type not in ("int", "double") or parameter.numbers is None or (step is not None and step <= 0):
            continue
        path = (*parameter.space_path, "step" if parameter.step else "max")
        if algorithm == "sobol" and parameter.type == "int" and float(parameter.high) > float(parameter.low):
            highest = end_values(parameter, algorithm)[-1]
            message = f"sobol never suggests the maximum of an int: the highest value of {parameter.name} is {highest}"
            yield path, message, f"raise max by {parameter.step or 1}"
        elif step is not None and _ignores_step(parameter, algorithm):
            message = f"{algorithm} ignores the step of {parameter.name}"
            fix = "use distribution: uniform, or a list" if algorithm == "multivariate-tpe" else "use a list"
            yield path, message, fix
        elif step is not None and algorithm in (*HYPEROPT, *GOPTUNA):
            yield from ((path, *problem) for problem in _rounding_problems(parameter, algorithm, step))


def _ignores_step(parameter: Parameter, algorithm: str) -> bool:
    return algorithm == "hyperband" or (algorithm == "multivariate-tpe" and parameter.distribution == "logUniform")


def _rounding_problems(parameter: Parameter, algorithm: str, step: float) -> Iterator[tuple[str, str]]:
    low, high = parameter.numbers or (0.0, 0.0)
    lowest, _, highest = end_values(parameter, algorithm)
    if algorithm in HYPEROPT and abs(low / step - round(low / step)) > _TOLERANCE * max(1.0, abs(low / step)):
        message = (
            f"{algorithm} suggests multiples of the step, from {lowest} to {highest}, and min {parameter.low} of "
            f"{parameter.name} is not one (hyperopt rounds to round(value / step) * step)"
        )
        yield message, "use a min that is a multiple of step, or a list of the values"
    elif float(highest) > high and float(highest) - high > _TOLERANCE * step:
        message = f"{algorithm} rounds to the step beyond max: the highest value of {parameter.name} is {highest}"
        yield message, "use a max that is min plus a multiple of step"


RULES = (Rule("K312", "warning", "the algorithm's values are those of min, max and step", _steps),)
