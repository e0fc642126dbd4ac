"""Points of the search space: draws from Optuna, and values as Katib's suggestion services make them."""

import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from config.errors import InputError
from katib import asha
from katib.experiment import Experiment, Parameter, parse_number
from katib.rules_algorithm import INTEGERS
from katib.service_values import HYPEROPT, draw_bounds, is_rounded, write_value

ALGORITHMS = ("random", "tpe", "multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol", "hyperband")
# Algorithms of this machine alone, and those whose values they take.
LOCAL_ALGORITHMS = {asha.NAME: "multivariate-tpe"}


def check_search_support(experiment: Experiment) -> None:
    """Check that the search can run on this machine.

    Raises:
        InputError: an algorithm or a distribution needs a cluster, or a setting or a range has no meaning.
    """
    if experiment.algorithm not in (*ALGORITHMS, *LOCAL_ALGORITHMS):
        choices = ", ".join(ALGORITHMS)
        raise InputError(f"the algorithm {experiment.algorithm} runs only on a cluster; use one of {choices}")
    for parameter in experiment.parameters:
        if parameter.distribution in ("normal", "logNormal"):
            message = f"{parameter.name}: the distribution {parameter.distribution} runs only on a cluster"
            raise InputError(f"{message}; use uniform or logUniform")
        bounds = parameter.numbers
        logarithmic = parameter.distribution == "logUniform" and experiment.algorithm in HYPEROPT
        logarithmic = logarithmic or (experiment.algorithm == "bayesianoptimization" and parameter.type == "double")
        if parameter.type in ("int", "double") and logarithmic and bounds and bounds[0] <= 0:
            message = f"{parameter.name}: a logarithmic scale has no {parameter.low}"
            raise InputError(f"{message}, on which {experiment.algorithm}'s service fails; use a min above 0")
        if parameter.type == "discrete" and experiment.algorithm == "hyperband":
            for choice in parameter.choices:
                if not re.fullmatch(r"[+-]?\d+", choice):
                    message = f"{parameter.name}: hyperband's service fails on the discrete value {choice}, which is no integer"
                    raise InputError(f"{message}; use parameterType: categorical")
    for name, value in experiment.settings.items():
        minimum = INTEGERS.get(name)
        if experiment.algorithm == "cmaes" and name == "random_state":
            continue  # goptuna takes negative ones
        if minimum is not None and (number := parse_number(value)) is not None and number < minimum:
            raise InputError(f"{name} must be {minimum} or more, got {value}; Katib's service fails on it")


def build_distribution(parameter: Parameter, algorithm: str) -> Any:
    """Return the distribution of a parameter's draws as an Optuna object; `write_value` makes values of them.

    As in Katib 0.19, bayesianoptimization searches every double on a logarithmic scale, and ignores steps as hyperband
    does; cmaes and hyperband search uniformly.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    bounds = draw_bounds(parameter, algorithm)
    if bounds is None:
        return CategoricalDistribution(parameter.choices)
    low, high = bounds
    log = parameter.distribution == "logUniform"
    if algorithm in HYPEROPT:
        return FloatDistribution(low, high, log=log)
    if algorithm == "multivariate-tpe":
        step = None if log else parse_number(parameter.step) if parameter.step else None
        if parameter.type == "int":
            return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        return FloatDistribution(low, high, log=log, step=step)
    if algorithm == "bayesianoptimization":
        return (
            IntDistribution(int(low), int(high)) if parameter.type == "int" else FloatDistribution(low, high, log=True)
        )
    return FloatDistribution(low, high)


def draw_name(parameter: Parameter, algorithm: str) -> str:
    """Return the name of a parameter's draws in Optuna's storage: the parameter's, unless they are rounded."""
    return f"{parameter.name} (unrounded)" if is_rounded(parameter, algorithm) else parameter.name


def write_draw(parameter: Parameter, algorithm: str, draw: Any) -> str:
    """Return the text of the value that Katib's service makes from a draw."""
    return draw if isinstance(draw, str) else write_value(parameter, algorithm, draw)


def build_sampler(experiment: Experiment, started: int) -> Any:
    """Return Optuna's sampler for an algorithm.

    Args:
        experiment: a checked Experiment.
        started: number of trials so far; it changes the seed, so that a resumed search does not repeat its points.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    warnings.simplefilter("ignore", ExperimentalWarning)
    settings, algorithm = experiment.settings, experiment.algorithm
    state = settings.get("random_state")
    seed = None if state is None else (int(state) + 7919 * started) % 2**32
    if algorithm in ("random", "hyperband", "grid", "sobol", *LOCAL_ALGORITHMS):
        return samplers.RandomSampler(seed=seed)
    if algorithm == "cmaes":
        strategy = settings.get("restart_strategy", "none")
        return samplers.CmaEsSampler(
            sigma0=parse_number(settings.get("sigma")),
            seed=seed,
            restart_strategy=None if strategy == "none" else strategy,
            warn_independent_sampling=False,
        )
    if algorithm == "bayesianoptimization":
        startup = int(settings.get("n_initial_points", "10"))
        return samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    weight, gamma = parse_number(settings.get("prior_weight")), parse_number(settings.get("gamma"))
    options: dict[str, Any] = {"prior_weight": weight} if weight is not None else {}
    if gamma is not None:
        options["gamma"] = lambda count: max(1, math.ceil(gamma * math.sqrt(count)))  # hyperopt's split
    return samplers.TPESampler(
        seed=seed,
        n_startup_trials=int(settings.get("n_startup_trials", "10")),
        n_ei_candidates=int(settings.get("n_ei_candidates") or settings.get("n_EI_candidates") or "24"),
        multivariate=algorithm == "multivariate-tpe",
        constant_liar=True,
        **options,
    )


def grid_points(experiment: Experiment) -> Iterator[dict[str, str]]:
    """Return all points of the grid; the last parameter changes fastest."""
    names = [parameter.name for parameter in experiment.parameters]
    for values in itertools.product(*(parameter.grid() for parameter in experiment.parameters)):
        yield dict(zip(names, values, strict=True))


def sobol_point(experiment: Experiment, index: int) -> dict[str, str]:
    """Return a point of goptuna's Sobol sequence, without its first point of zeros.

    The parameters have the order of their names. goptuna 0.8 leaves out the second dimension of Joe and Kuo's direction
    numbers (sobol/engine.go), which scipy has.
    """
    from scipy.stats.qmc import Sobol

    parameters = sorted(experiment.parameters, key=lambda parameter: parameter.name.encode())
    sequence = Sobol(len(parameters) + 1, scramble=False)
    sequence.fast_forward(index + 1)
    first, _, *rest = (float(coordinate) for coordinate in sequence.random(1)[0])
    point = {}
    for parameter, coordinate in zip(parameters, (first, *rest), strict=True):
        choices = parameter.choices
        is_choice = draw_bounds(parameter, "sobol") is None
        point[parameter.name] = (
            choices[int(coordinate * len(choices))] if is_choice else write_value(parameter, "sobol", coordinate)
        )
    return point


def fixed_distribution(parameter: Parameter, value: str, algorithm: str) -> tuple[Any, Any]:
    """Return a distribution that includes a fixed value, and the value as Optuna stores it.

    hyperband's resource, for one, can exceed its parameter's bounds. Optuna refuses a parameter that is on a logarithmic
    scale in some trials only.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.type not in ("int", "double"):
        return CategoricalDistribution(tuple(dict.fromkeys((*parameter.choices, value)))), value
    number = float(value)
    low, high = parameter.numbers or (number, number)
    log = parameter.numbers is not None and build_distribution(parameter, algorithm).log
    if parameter.type == "int":
        return IntDistribution(min(int(low), int(number)), max(int(high), int(number)), log=log), int(number)
    return FloatDistribution(min(low, number), max(high, number), log=log), number
