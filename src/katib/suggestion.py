"""Points of the search space from Optuna, in place of Katib's suggestion services."""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from config.errors import InputError
from katib.experiment import Experiment, Parameter, parse_number

ALGORITHMS = ("random", "tpe", "multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol", "hyperband")


def check_search_support(experiment: Experiment) -> None:
    """Check that the search can run on this machine.

    Raises:
        InputError: an algorithm or a distribution needs a cluster.
    """
    if experiment.algorithm not in ALGORITHMS:
        choices = ", ".join(ALGORITHMS)
        raise InputError(f"the algorithm {experiment.algorithm} runs only on a cluster; use one of {choices}")
    for parameter in experiment.parameters:
        if parameter.distribution in ("normal", "logNormal"):
            message = f"{parameter.name}: the distribution {parameter.distribution} runs only on a cluster"
            raise InputError(f"{message}; use uniform or logUniform")


def build_distribution(parameter: Parameter, algorithm: str) -> Any:
    """Return a parameter's distribution as an Optuna object.

    As in Katib 0.19, bayesianoptimization searches every double on a logarithmic scale without steps; cmaes, sobol
    and hyperband search uniformly.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.type in ("discrete", "categorical"):
        return CategoricalDistribution(parameter.choices)
    low, high = parameter.numbers or (0.0, 0.0)
    step = parse_number(parameter.step) if parameter.step else None
    log = parameter.distribution == "logUniform" and algorithm in ("random", "tpe", "multivariate-tpe")
    if parameter.type == "int":
        return IntDistribution(int(low), int(high), log=log, step=1 if log else int(step or 1))
    if algorithm == "bayesianoptimization":
        return FloatDistribution(low, high, log=True)
    return FloatDistribution(low, high, log=log, step=None if log else step)


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
    if algorithm in ("random", "hyperband", "grid"):
        return samplers.RandomSampler(seed=seed)
    if algorithm == "sobol":
        return samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=0, warn_asynchronous_seeding=False)
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


def widen_distributions(distributions: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return distributions that include fixed values: hyperband's resource can exceed its parameter's bounds."""
    ranges = {name: distributions[name] for name, value in values.items() if not isinstance(value, str)}
    return {
        name: type(distribution)(min(distribution.low, values[name]), max(distribution.high, values[name]))
        for name, distribution in ranges.items()
    }
