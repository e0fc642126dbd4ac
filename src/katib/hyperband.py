"""Hyperband as Katib v0.19 runs it (pkg/suggestion/v1beta1/hyperband/service.py).

Li et al. 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization". A search is a sequence of
brackets, a bracket a sequence of rungs; each rung repeats the best trials of the previous one with more of the resource.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from katib.experiment import Experiment, parse_number
from katib.trials import ENDED, Trial


def initial_trials(settings: Mapping[str, str]) -> int | None:
    """Return how many trials the first rung starts at once; None if r_l or eta is invalid."""
    resource, eta = parse_number(settings.get("r_l")), int(parse_number(settings.get("eta", "3")) or 3)
    if resource is None or resource < 1:
        return None
    eta = eta if eta > 0 else 3
    return math.ceil(eta ** int(math.log(resource) / math.log(eta))) if eta > 1 else None


def reduction_factor(settings: Mapping[str, str]) -> float:
    """Return eta as the service reads it: the reciprocal of the share of a rung's trials that go on."""
    eta = float(settings.get("eta") or 3)
    return eta if eta > 0 else 3.0


def plan_brackets(settings: Mapping[str, str]) -> list[list[tuple[int, int]]]:
    """Return Katib's brackets: for each, the rungs as (number of trials, resource of each)."""
    resource, eta = float(settings["r_l"]), reduction_factor(settings)
    brackets = []
    largest = int(math.log(resource) / math.log(eta))
    for s in range(largest, -1, -1):
        count = math.ceil((largest + 1) * (eta**s / (s + 1)))
        first = int(resource * eta ** (-s))  # the service passes integers between rungs
        rungs = [(math.ceil(math.ceil(count * eta ** (-i)) / eta), int(first * eta ** (i + 1))) for i in range(s)]
        brackets.append([(count, first), *rungs])
    return brackets


class Scheduler:
    """Chooses hyperband's next trial: one bracket after another, rung by rung."""

    def __init__(self, experiment: Experiment) -> None:
        self.brackets = plan_brackets(experiment.settings)
        self.resource = experiment.settings["resource_name"]
        self.maximize = experiment.maximize

    def next_position(self, trials: Sequence[Trial]) -> dict[str, Any] | None:
        """Return the position of the next trial.

        Args:
            trials: all trials so far.

        Returns:
            `bracket` and `rung`; `fixed`, its assignments (in the first rung only the resource's); `parent`, the trial
            that it continues. None if it must wait for other trials, or all are done.
        """
        for bracket, rungs in enumerate(self.brackets):
            previous: list[Trial] = []
            for rung, (count, resource) in enumerate(rungs):
                members = [row for row in trials if (row.position["bracket"], row.position["rung"]) == (bracket, rung)]
                if len(members) < count:
                    position = {"bracket": bracket, "rung": rung, "parent": None}
                    if rung == 0:
                        return {**position, "fixed": {self.resource: str(resource)}}
                    parent = sorted(previous, key=lambda row: rank(row, self.maximize))[len(members)]
                    fixed = {**parent.assignments, self.resource: str(resource)}
                    return {**position, "parent": parent.name, "fixed": fixed}
                if not all(row.status in ENDED for row in members):
                    return None
                previous = members
        return None


def rank(trial: Trial, maximize: bool) -> float:
    """Return a number that is lower for better trials; failed ones are last (on a cluster the search would end)."""
    if trial.value is None:
        return math.inf
    return -trial.value if maximize else trial.value
