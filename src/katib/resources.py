"""CPUs, memory and GPUs of the processes of a trial."""

from dataclasses import dataclass
from typing import Any

from config.errors import InputError
from katib.experiment import Experiment
from katib.quantity import parse_quantity

GPU = "nvidia.com/gpu"
# Three trials at a time find room on a node of two CPUs and 8 GiB beside Katib's pods; each may use more.
DEFAULTS = {"requests": {"cpu": "250m", "memory": "2Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}}
_SMALLEST = {"cpu": ("10m", "2 or 500m"), "memory": ("16Mi", "4Gi or 500Mi")}  # smaller ones lack their unit


@dataclass(frozen=True)
class Resources:
    """Resources of each process of a trial; a value that is not None is requested, and is the limit.

    Attributes:
        cpu: number of CPUs as Kubernetes writes it, 2 or 500m.
        memory: amount of memory, 4Gi.
        gpus: number of GPUs.

    Raises:
        InputError: a value is no amount, or lacks its unit.
    """

    cpu: str | None = None
    memory: str | None = None
    gpus: int | None = None

    def __post_init__(self) -> None:
        for name, text in (("cpu", self.cpu), ("memory", self.memory)):
            smallest, example = _SMALLEST[name]
            amount, least = parse_quantity(text or smallest), parse_quantity(smallest)
            if amount is None or least is None or amount < least:
                raise InputError(f"--{name} {text}: write an amount with its unit, such as {example}")
        if self.gpus is not None and self.gpus < 0:
            raise InputError(f"--gpus must be 0 or more, got {self.gpus}")

    def apply(self, resources: dict[str, Any], gpu: str = GPU) -> dict[str, Any]:
        """Return the resources of a container with these values in place of its own.

        Args:
            resources: resources of the container, with `requests` and `limits`.
            gpu: name of the GPUs' resource.
        """
        values = {"cpu": self.cpu, "memory": self.memory, gpu: str(self.gpus) if self.gpus else None}
        changed = {key: value for key, value in values.items() if value is not None}
        groups = {group: {**(resources.get(group) or {}), **changed} for group in ("requests", "limits")}
        if self.gpus == 0:
            groups = {group: {key: row for key, row in rows.items() if key != gpu} for group, rows in groups.items()}
        return {**resources, **groups}


def change_resources(experiment: Experiment, resources: Resources) -> None:
    """Set the resources of every container that trains, in place.

    Raises:
        InputError: there is no such container.
    """
    if resources == Resources():
        return
    rows = experiment.replicas
    if not rows:
        raise InputError(f"{experiment.document.file} has no primary container whose resources could be set")
    key = "resourcesPerNode" if experiment.kind == "TrainJob" else "resources"
    for path, container in rows:
        current: dict[str, Any] = container[key] if isinstance(container.get(key), dict) else {}
        names = [name for group in ("limits", "requests") for name in current.get(group) or {} if name.endswith("/gpu")]
        experiment.get(*path)[key] = resources.apply(current, names[0] if names else GPU)
