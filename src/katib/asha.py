"""Asynchronous successive halving (ASHA), which Katib does not have: `python -m katib run FILE --algorithm asha`.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2. Its rungs are those of hyperband's first
bracket. A trial goes on in the next rung as soon as it is among the best 1/eta of the trials that have ended in its own: no
trial waits for others, and there are no more brackets.
"""

import copy
from collections.abc import Sequence
from typing import Any

from config.errors import InputError
from katib import hyperband
from katib.documents import Document
from katib.experiment import Experiment
from katib.trials import ENDED, Trial

NAME = "asha"


def with_asha(experiment: Experiment) -> Experiment:
    """Return a hyperband Experiment that searches with ASHA, for this machine.

    Raises:
        InputError: it does not search with hyperband, whose settings ASHA takes.
    """
    document, value = experiment.document, copy.deepcopy(experiment.value)
    if experiment.algorithm != "hyperband":
        raise InputError(
            f"--algorithm {NAME} takes the settings of hyperband (r_l, eta, resource_name), and {document.file} searches with "
            f"{experiment.algorithm}; write a file with python -m katib new ... --algorithm hyperband"
        )
    value["spec"]["algorithm"]["algorithmName"] = NAME
    return Experiment(Document(document.file, value, document.lines))


class Scheduler:
    """Chooses ASHA's next trial: one that goes on if there is one, otherwise a new one."""

    def __init__(self, experiment: Experiment) -> None:
        settings = experiment.settings
        self.resources = [resource for _, resource in hyperband.plan_brackets(settings)[0]]
        self.eta = hyperband.reduction_factor(settings)
        self.resource, self.maximize = settings["resource_name"], experiment.maximize

    def next_position(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """Return the position of the next trial, in the form of hyperband's.

        Args:
            trials: all trials so far.
        """
        for rung in reversed(range(len(self.resources) - 1)):
            continued = {row.position["parent"] for row in trials if row.position["rung"] == rung + 1}
            ended = [row for row in trials if row.position["rung"] == rung and row.status in ENDED]
            best = sorted(ended, key=lambda row: hyperband.rank(row, self.maximize))[: int(len(ended) / self.eta)]
            for trial in best:
                if trial.name not in continued and trial.value is not None:
                    fixed = {**trial.assignments, self.resource: str(self.resources[rung + 1])}
                    return {"bracket": 0, "rung": rung + 1, "parent": trial.name, "fixed": fixed}
        return {"bracket": 0, "rung": 0, "parent": None, "fixed": {self.resource: str(self.resources[0])}}
