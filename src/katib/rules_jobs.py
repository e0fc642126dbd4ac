"""Rules of the APIs of trials: fields of Kubeflow's jobs, patches of a TrainJob's runtime, numbers of processes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from katib.api_types import (
    ADDED_FIELDS,
    API_VERSIONS,
    REMOVED_FIELDS,
    short_name,
    workload_type,
)
from katib.documents import YamlPath
from katib.experiment import TEMPLATE, Experiment
from katib.findings import Problem, Rule
from katib.processes import REPLICAS, TRAINER, processes_per_pod, torchrun_call
from katib.schema import iter_objects, job_problems

RUNTIME = "isotrain"  # the TrainingRuntime of katib/cluster/trainer
# Containers by job of the runtimes whose definition is known.
RUNTIMES: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    ("TrainingRuntime", RUNTIME): {"node": ("node",)},
    ("ClusterTrainingRuntime", "torch-distributed"): {"node": ("node",)},
}
# Variables of torchrun that Trainer's torch plugin reserves.
_RENDEZVOUS = tuple(f"PET_{name}" for name in ("NNODES", "NPROC_PER_NODE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"))
_PATCHES = (*TEMPLATE, "spec", "runtimePatches")


def _fields(experiment: Experiment) -> Iterator[Problem]:
    """Fields that the API does not have, and types that it refuses; of unknown kinds, those of containers alone."""
    template, version = experiment.mapping(*TEMPLATE), experiment.get(*TEMPLATE, "apiVersion")
    kind = workload_type(version, experiment.kind)
    wanted_version = API_VERSIONS.get(experiment.kind)
    if version and wanted_version and version != wanted_version:
        message = f"{experiment.kind} is a kind of {wanted_version}, not of {version}"
        yield (*TEMPLATE, "apiVersion"), message, f"use {wanted_version}"
    elif kind and kind != "V1Job":  # a Job is K114's
        yield from job_problems(template, TEMPLATE, kind)
    elif not kind:
        for path, container in experiment.containers():
            yield from job_problems(container, path, "V1Container")


def _removed_fields(experiment: Experiment) -> Iterator[Problem]:
    """Fields of a TrainJob that other versions of Trainer have: the API server drops them without a word."""
    for path, kind, value in _objects(experiment):
        for key in value:
            if f"{kind}.{key}" in REMOVED_FIELDS:
                versions, replacement = REMOVED_FIELDS[f"{kind}.{key}"]
                message = f"{short_name(kind)} has no field {key} in Trainer 2.3, which drops it without a word; {versions} had it"
                yield (*path, key), message, f"use {replacement}"
    number = experiment.get(*TRAINER, "numProcPerNode")
    if isinstance(number, str) and experiment.kind == "TrainJob":
        message = f"Trainer 2.2 and 2.3 take whole numbers only, got {number!r}"
        yield (*TRAINER, "numProcPerNode"), message, "use the number of processes in each pod"


def _added_fields(experiment: Experiment) -> Iterator[Problem]:
    for path, kind, value in _objects(experiment):
        for key in value:
            if version := ADDED_FIELDS.get(f"{kind}.{key}"):
                yield (*path, key), f"{key} is there since {version}: versions before drop it without a word", ""
    if experiment.items(*_PATCHES) and not _runtime(experiment):
        name = experiment.text(*TEMPLATE, "spec", "runtimeRef", "name")
        message = (
            f"names in the patches were not checked: the jobs and containers of the runtime {name} are not known here"
        )
        yield _PATCHES, message, ""


def _objects(experiment: Experiment) -> Iterator[tuple[YamlPath, str, dict[str, Any]]]:
    if workload_type(experiment.get(*TEMPLATE, "apiVersion"), experiment.kind) == "TrainJob":
        yield from iter_objects(experiment.mapping(*TEMPLATE), TEMPLATE, "TrainJob")


def _runtime(experiment: Experiment) -> Mapping[str, tuple[str, ...]]:
    """Return the containers by job of a TrainJob's runtime; empty if it is not known."""
    reference = experiment.mapping(*TEMPLATE, "spec", "runtimeRef")
    kind = str(reference.get("kind") or "ClusterTrainingRuntime")
    return RUNTIMES.get((kind, str(reference.get("name"))), {})


def _patches(experiment: Experiment) -> Iterator[Problem]:
    """Names in patches, as Trainer's jobset plugin compares them with the runtime (jobset.go), and managers."""
    jobs = _runtime(experiment)
    for path, kind, value in _objects(experiment):
        name = value.get("name")
        if kind == "RuntimePatch" and (manager := value.get("manager")):
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9_.~%/-]+", str(manager)):
                message = f"the manager {manager} is no path with a domain, as Trainer 2.3 requires"
                yield (*path, "manager"), message, "use a domain of yours and a name, e.g. example.com/team"
        elif kind == "ReplicatedJobPatch" and jobs and name not in jobs:
            yield (*path, "name"), f"the runtime has no job {name}", f"use {' or '.join(jobs)}"
        elif kind == "ContainerPatch" and jobs:
            containers = jobs.get(str(experiment.get(*path[: path.index("replicatedJobs") + 2], "name")), ())
            if containers and name not in containers:
                yield (*path, "name"), f"the runtime's job has no container {name}", f"use {' or '.join(containers)}"
            if name == "node" and value.get("env"):
                message = "Trainer takes no variables of the container node in a patch"
                yield (*path, "env"), message, "move them to trainer.env"


def _processes(experiment: Experiment) -> Iterator[Problem]:
    """Numbers that the webhooks refuse (pytorchjob_webhook.go), or with which the processes never meet."""
    counts = [(*TRAINER, "numNodes"), (*TRAINER, "numProcPerNode")] if experiment.kind == "TrainJob" else []
    if experiment.kind == "PyTorchJob":
        yield from _replicas(experiment)
        counts += [(*REPLICAS, role, "replicas") for role in experiment.mapping(*REPLICAS) if role != "Master"]
    for path in counts:
        value = experiment.get(*path)
        if isinstance(value, int) and value < 1:
            yield path, f"{path[-1]} must be 1 or more, got {value}", "use 1 or more"
    key = {"PyTorchJob": "nprocPerNode", "TrainJob": "numProcPerNode"}.get(experiment.kind)
    if key is None or not experiment.command:
        return
    path = (*TRAINER, key) if experiment.kind == "TrainJob" else (*TEMPLATE, "spec", key)
    number, call = processes_per_pod(experiment), torchrun_call(experiment)
    if call and number is None and experiment.kind == "PyTorchJob" and experiment.get(*path) is None:
        message = "without nprocPerNode torchrun starts as many processes as a pod's machine has GPUs or CPUs"
        yield path, message, 'add nprocPerNode: "1", or the number of processes in each pod'
    if call is None and number != 1 and experiment.get(*path) is not None and experiment.calls_train:
        message = f"the command starts one process in each pod, and {key} is {experiment.get(*path)}"
        yield path, message, f"use {key}: 1, or call torchrun train.py"


def _pods(experiment: Experiment) -> Iterator[Problem]:
    """Pods that the webhooks refuse (pytorchjob_webhook.go; torch.go of Trainer): the trial is never created."""
    if experiment.kind == "TrainJob":
        for index, variable in enumerate(experiment.items(*TRAINER, "env")):
            if isinstance(variable, dict) and variable.get("name") in _RENDEZVOUS:
                message = f"Trainer sets {variable['name']} itself, and refuses a TrainJob that does"
                yield (*TRAINER, "env", index, "name"), message, "leave it out"
    if experiment.kind == "PyTorchJob":
        for role in experiment.mapping(*REPLICAS):
            path = (*REPLICAS, role, "template", "spec", "containers")
            containers = [item for item in experiment.items(*path) if isinstance(item, dict)]
            if containers and not any(item.get("name") == "pytorch" for item in containers):
                yield path, "a PyTorchJob needs a container named pytorch", "rename the container of the training"


def _replicas(experiment: Experiment) -> Iterator[Problem]:
    for role, replica in experiment.mapping(*REPLICAS).items():
        path = (*REPLICAS, role)
        if role not in ("Master", "Worker"):
            yield path, f"a PyTorchJob has no replicas of the type {role}", "use Master and Worker"
            continue
        number = replica.get("replicas") if isinstance(replica, dict) else None
        if role == "Master" and isinstance(number, int) and number != 1:
            yield (*path, "replicas"), f"a PyTorchJob has one Master, got {number}", "use replicas: 1"


def _default_processes(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind != "TrainJob" or experiment.get(*TRAINER, "numProcPerNode") is not None:
        return
    number = processes_per_pod(experiment)
    if number is not None and number > 1 and torchrun_call(experiment) is not None:
        message = (
            f"numProcPerNode is missing: Trainer starts {number} processes in each pod, as many as CPUs are requested"
        )
        yield TRAINER, message, "add numProcPerNode: 1"


RULES = (
    Rule("K218", "error", "the workload has only fields of its API", _fields),
    Rule("K224", "error", "Trainer has the fields of a TrainJob still", _removed_fields),
    Rule("K225", "error", "patches name jobs and containers of the runtime", _patches),
    Rule("K226", "error", "numbers of processes are valid", _processes),
    Rule("K228", "error", "webhooks of PyTorchJobs and TrainJobs accept the pods", _pods),
    Rule("K314", "warning", "a TrainJob says how many processes a pod has", _default_processes),
    Rule("K004", "note", "older versions of Trainer have the fields of a TrainJob", _added_fields),
)
