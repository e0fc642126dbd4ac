"""Kueue's queue and the priority class of trials."""

import re
from dataclasses import dataclass
from typing import Any

from config.errors import InputError
from katib.experiment import TEMPLATE, Experiment

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True)
class Scheduling:
    """How the jobs of trials wait for room on a cluster.

    Attributes:
        queue: name of the LocalQueue of Kueue that admits them; None: they start at once.
        priority_class: priorityClassName of their pods.

    Raises:
        InputError: a name is none of an object of Kubernetes.
    """

    queue: str | None = None
    priority_class: str | None = None

    def __post_init__(self) -> None:
        for option, name, limit in (("queue", self.queue, 63), ("priority-class", self.priority_class, 253)):
            if name is not None and (len(name) > limit or not _NAME.fullmatch(name)):
                message = f"must be a name of at most {limit} lower-case letters, digits, dashes and dots"
                raise InputError(f"--{option} {name}: {message}")

    def check_kind(self, kind: str) -> None:
        """Check that jobs of a kind take the settings.

        Raises:
            InputError: the pods of a TrainJob have the priority class of their runtime.
        """
        if self.priority_class and kind == "TrainJob":
            message = "a TrainJob cannot set it; set priorityClassName in its TrainingRuntime (katib/cluster/trainer)"
            raise InputError(f"--priority-class {self.priority_class}: {message}")


def change_scheduling(experiment: Experiment, scheduling: Scheduling) -> None:
    """Set queue and priority class of the jobs of trials, in place.

    Raises:
        InputError: the jobs do not take them.
    """
    scheduling.check_kind(experiment.kind)
    template: dict[str, Any] = experiment.mapping(*TEMPLATE)
    if scheduling.queue:
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), QUEUE_LABEL: scheduling.queue}
    for path, _ in experiment.replicas if scheduling.priority_class else ():
        experiment.get(*path[:-2])["priorityClassName"] = scheduling.priority_class
