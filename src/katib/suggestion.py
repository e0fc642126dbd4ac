"""Points of the search space from Optuna, as Katib's suggestion services would give them."""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.errors import InputError
from katib import hyperband
from katib.experiment import Experiment, Parameter, parse_number

LOCAL = ("random", "tpe", "multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol", "hyperband")


def refuse_what_cannot_run(experiment: Experiment) -> None:
    """Names what this machine cannot search.

    Raises:
        InputError: an algorithm or a distribution that only a cluster has.
    """
    if experiment.algorithm not in LOCAL:
        raise InputError(f"{experiment.algorithm} runs on a cluster only; here there are {', '.join(LOCAL)}")
    for each in experiment.parameters:
        if each.distribution in ("normal", "logNormal"):
            raise InputError(
                f"{each.name}: {each.distribution} is searched on a cluster only; use uniform or logUniform"
            )


def distributions(experiment: Experiment) -> dict[str, Any]:
    """Each parameter's distribution in Optuna's terms.

    Katib 0.19's bayesianoptimization searches every double on a logarithmic scale and without steps; cmaes, sobol and
    hyperband search uniformly whatever the file says. So does this.
    """
    return {each.name: _distribution(each, experiment.algorithm) for each in experiment.parameters}


def _distribution(parameter: Parameter, algorithm: str) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.type in ("discrete", "categorical"):
        return CategoricalDistribution(parameter.choices)
    low, high = parameter.numbers or (0.0, 0.0)
    step = parse_number(parameter.step) if parameter.step else None
    logarithmic = parameter.distribution == "logUniform" and algorithm in ("random", "tpe", "multivariate-tpe")
    if parameter.type == "int":
        return IntDistribution(int(low), int(high), log=logarithmic, step=1 if logarithmic else int(step or 1))
    if algorithm == "bayesianoptimization":
        return FloatDistribution(low, high, log=True)
    return FloatDistribution(low, high, log=logarithmic, step=None if logarithmic else step)


def sampler(experiment: Experiment, begun: int) -> Any:
    """Optuna's sampler for the algorithm.

    Args:
        experiment: checked.
        begun: trials that there are already; a search that goes on draws other numbers than it began with.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    warnings.simplefilter("ignore", ExperimentalWarning)
    settings, algorithm = experiment.settings, experiment.algorithm
    state = settings.get("random_state")
    seed = None if state is None else (int(state) + 7919 * begun) % 2**32
    if algorithm in ("random", "hyperband", "grid"):
        return samplers.RandomSampler(seed=seed)
    if algorithm == "sobol":
        return samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=0, warn_asynchronous_seeding=False)
    if algorithm == "cmaes":
        sigma = parse_number(settings.get("sigma"))
        strategy = settings.get("restart_strategy", "none")
        return samplers.CmaEsSampler(
            sigma0=sigma,
            seed=seed,
            restart_strategy=None if strategy == "none" else strategy,
            warn_independent_sampling=False,
        )
    if algorithm == "bayesianoptimization":
        startup = int(settings.get("n_initial_points", "10"))
        return samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    startup = int(settings.get("n_startup_trials", "10"))
    candidates = int(settings.get("n_ei_candidates") or settings.get("n_EI_candidates") or "24")
    weight = parse_number(settings.get("prior_weight"))
    gamma = parse_number(settings.get("gamma"))
    more: dict[str, Any] = {"prior_weight": weight} if weight is not None else {}
    if gamma is not None:
        more["gamma"] = lambda count: max(1, math.ceil(gamma * math.sqrt(count)))  # as hyperopt splits
    multivariate = algorithm == "multivariate-tpe"
    return samplers.TPESampler(
        seed=seed,
        n_startup_trials=startup,
        n_ei_candidates=candidates,
        multivariate=multivariate,
        constant_liar=True,
        **more,
    )


def written(value: Any) -> str:
    """A value as Katib hands it to a trial."""
    return value if isinstance(value, str) else repr(value)


def grid(experiment: Experiment) -> Iterator[dict[str, str]]:
    """All combinations, the last parameter changing first."""
    names = [each.name for each in experiment.parameters]
    for values in itertools.product(*(each.steps() for each in experiment.parameters)):
        yield dict(zip(names, values, strict=True))


def typed(parameter: Parameter, text: str) -> Any:
    """A value as Optuna keeps it."""
    if parameter.type == "int":
        return int(float(text))
    return float(text) if parameter.type == "double" else text


def widened(distributions: Mapping[str, Any], fixed: Mapping[str, str]) -> dict[str, Any]:
    """Distributions of fixed values that hold them: hyperband's resource goes beyond its parameter's bounds."""
    from optuna.distributions import FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, text in fixed.items():
        known = distributions[name]
        if isinstance(known, IntDistribution):
            value = int(float(text))
            found[name] = IntDistribution(min(known.low, value), max(known.high, value))
        elif isinstance(known, FloatDistribution):
            found[name] = FloatDistribution(min(known.low, float(text)), max(known.high, float(text)))
    return found


class Rungs:
    """Hyperband's next trials, from those that there are: Katib's brackets, one after another, rung by rung.

    A trial of a later rung repeats the best of the rung before with more of the resource.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.plan = hyperband.plan(experiment.settings)
        self.resource = experiment.settings["resource_name"]
        self.maximize = experiment.maximize

    def next(self, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Where the next trial belongs.

        Args:
            trials: all so far: `place` (as returned here), `name`, `assignments`, `value` (None while it runs),
                `ended`.

        Returns:
            `bracket` and `rung`; `fixed`, its assignments (the resource's alone in a bracket's first rung); `parent`,
            the trial that it goes on from. None if it must wait for others, or all is done.
        """
        for bracket, rungs in enumerate(self.plan):
            for rung, (count, resource) in enumerate(rungs):
                mine = [each for each in trials if (each["place"]["bracket"], each["place"]["rung"]) == (bracket, rung)]
                if len(mine) < count:
                    return self._one(bracket, rung, resource, len(mine), trials)
                if not all(each["ended"] for each in mine):
                    return None
        return None

    def _one(
        self, bracket: int, rung: int, resource: int, index: int, trials: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        place = {"bracket": bracket, "rung": rung, "parent": None, "fixed": {self.resource: str(resource)}}
        if rung == 0:
            return place
        before = [each for each in trials if (each["place"]["bracket"], each["place"]["rung"]) == (bracket, rung - 1)]
        sign = -1 if self.maximize else 1
        worst = math.inf  # a trial without a value: on a cluster the search would end here
        ranked = sorted(before, key=lambda each: worst if each["value"] is None else sign * each["value"])
        parent = ranked[index]
        return {**place, "parent": parent["name"], "fixed": {**parent["assignments"], self.resource: str(resource)}}
