"""The TrainJob that does what a trial's Job or PyTorchJob does, with pods of the TrainingRuntime `isotrain`."""

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from config.errors import InputError
from config.files import PROJECT
from katib import documents
from katib.api_types import fields
from katib.documents import YamlPath
from katib.experiment import TEMPLATE, Experiment
from katib.optimization_job import Difference
from katib.processes import REPLICAS
from katib.rules_jobs import RUNTIME

RUNTIME_FILE = "katib/cluster/trainer/runtime.yaml"
_MANAGER = "isotrain.dev/katib"
# Parts of a container that a TrainJob's trainer has; the runtime has the others.
_TRAINER_KEYS = {"image": "image", "command": "command", "args": "args", "resources": "resourcesPerNode"}
# Settings of a Job that lose pods are forgiven by, which are the runtime's for a TrainJob; it repeats no failed trial.
_POLICIES = ("backoffLimit", "podFailurePolicy", "restartPolicy", "cleanPodPolicy")


def build_template(experiment: Experiment) -> tuple[dict[str, Any], list[Difference]]:
    """Return metadata and spec of the TrainJob that a trial is, and what it cannot express.

    Args:
        experiment: a checked Experiment; its placeholders stay as they are.
    """
    template = copy.deepcopy(experiment.mapping(*TEMPLATE))
    metadata = {
        key: template["metadata"][key] for key in ("labels", "annotations") if template.get("metadata", {}).get(key)
    }
    result = {"metadata": metadata} if metadata else {}
    if experiment.kind == "TrainJob":
        return {**result, "spec": template.get("spec") or {}}, []
    if experiment.kind not in ("Job", "PyTorchJob") or experiment.primary is None:
        message = f"the trials of an OptimizationJob are TrainJobs, not {experiment.kind}s"
        return result, [("error", TEMPLATE, message, "use a Job, a PyTorchJob or a TrainJob")]
    path, container = experiment.primary
    pod_path: YamlPath = path[:-3]
    trainer: dict[str, Any] = {key: container[name] for name, key in _TRAINER_KEYS.items() if name in container}
    differences = [*_job_differences(experiment), *_pod_differences(experiment, pod_path, path)]
    if experiment.kind == "PyTorchJob":
        workers = experiment.get(
            *REPLICAS, "Worker", "replicas", default=1 if experiment.get(*REPLICAS, "Worker") else 0
        )
        trainer = {"numNodes": 1 + workers, **trainer}
    number = experiment.text(*TEMPLATE, "spec", "nprocPerNode", default="1")
    trainer = {"numProcPerNode": int(number) if number.isdigit() else number, **trainer}
    trainer["env"] = _own_variables(container)
    spec: dict[str, Any] = {
        "runtimeRef": {"name": RUNTIME, "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"},
        "trainer": copy.deepcopy(trainer),
    }
    settings = experiment.mapping(*TEMPLATE, "spec"), experiment.mapping(*TEMPLATE, "spec", "runPolicy")
    for key in ("activeDeadlineSeconds", "suspend"):
        if (setting := next((row[key] for row in settings if row.get(key) is not None), None)) is not None:
            spec[key] = setting
    if patch := _patch(experiment, pod_path, path):
        job = {"name": "node", "template": {"spec": {"template": patch}}}
        template_patch = {"template": {"spec": {"replicatedJobs": [job]}}}
        spec["runtimePatches"] = [{"manager": _MANAGER, "trainingRuntimeSpec": template_patch}]
    return {**result, "spec": spec}, differences


@functools.cache
def runtime_pod() -> Mapping[str, Any]:
    """Return the pod template of the runtime `isotrain`.

    Raises:
        InputError: the checkout lacks its file.
    """
    (document,) = documents.read(str(PROJECT / RUNTIME_FILE))
    try:
        pod: dict[str, Any] = document.value["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"][
            "template"
        ]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{RUNTIME_FILE} is not the runtime of isotrain: {error}") from error
    return pod


def _runtime_container() -> Mapping[str, Any]:
    container: dict[str, Any] = runtime_pod()["spec"]["containers"][0]
    return container


def _own_variables(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a container's variables that the runtime does not have alike; the uid of its job is another in a TrainJob."""
    rows = [row for row in container.get("env") or [] if isinstance(row, dict)]
    runtime = _runtime_container()["env"]
    return [row for row in rows if row not in runtime and row.get("name") != "ISOTRAIN_JOB_UID"]


def _patch(experiment: Experiment, pod_path: YamlPath, path: YamlPath) -> dict[str, Any]:
    """Return what a trial's pods have beside the runtime's, as the patch of a TrainJob."""
    runtime = runtime_pod()
    patch: dict[str, Any] = {}
    metadata = experiment.mapping(*pod_path, "metadata")
    for key in ("labels", "annotations"):
        present = runtime.get("metadata", {}).get(key) or {}
        if rows := {name: text for name, text in (metadata.get(key) or {}).items() if present.get(name) != text}:
            patch.setdefault("metadata", {})[key] = rows
    spec, container = experiment.mapping(*pod_path, "spec"), experiment.mapping(*path)
    rest = _other_values(spec, runtime["spec"], fields("PodSpecPatch") or {})
    if settings := _other_values(container, _runtime_container(), {"volumeMounts": "", "securityContext": ""}):
        rest["containers"] = [{"name": "node", **settings}]
    return patch | ({"spec": rest} if rest else {})


def _other_values(values: Mapping[str, Any], runtime: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of some keys that the runtime has not; of lists the entries that it has not."""
    rest: dict[str, Any] = {}
    for key, value in values.items():
        if key in keys and key not in ("containers", "initContainers") and value != runtime.get(key):
            present = runtime.get(key)
            both = isinstance(value, list) and isinstance(present, list)
            rest[key] = [row for row in value if row not in present] if both and present else copy.deepcopy(value)
    return {key: value for key, value in rest.items() if value not in ([], None)}


def _pod_differences(experiment: Experiment, pod_path: YamlPath, path: YamlPath) -> Iterator[Difference]:
    """Parts of a trial's pod that neither a TrainJob nor the runtime has, and what the runtime adds."""
    runtime, container, spec = runtime_pod()["spec"], _runtime_container(), experiment.mapping(*pod_path, "spec")
    fix = f"remove it, or write a TrainJob with a TrainingRuntime of your own that has it ({RUNTIME_FILE} is one)"
    patchable = fields("PodSpecPatch") or {}
    for key, value in spec.items():
        if key in ("containers", "restartPolicy") or (key in patchable and key != "initContainers"):
            continue
        if value != runtime.get(key) and value not in ([], None):
            yield "error", (*pod_path, "spec", key), f"a TrainJob cannot set {key} of its pods", fix
    if spec.get("restartPolicy") not in (None, "Never"):
        yield (
            "error",
            (*pod_path, "spec", "restartPolicy"),
            "a TrainJob's pods do not restart a failed trial",
            "use Never",
        )
    if len(spec.get("containers") or []) > 1:
        yield "error", (*pod_path, "spec", "containers"), "a TrainJob has one container", "move the others to a runtime"
    allowed = (*_TRAINER_KEYS, "name", "env", "volumeMounts", "securityContext")
    for key, value in experiment.mapping(*path).items():
        if key not in allowed and value != container.get(key) and value not in ([], None):
            yield "error", (*path, key), f"a TrainJob cannot set {key} of its container", fix
    added = [key for key in ("securityContext", "volumes") if key not in spec and key in runtime]
    added += [key for key in ("lifecycle",) if key not in experiment.mapping(*path)]
    message = f"the pods of trials come from the TrainingRuntime {RUNTIME} ({RUNTIME_FILE})"
    yield "note", pod_path, message + (f", which adds {', '.join(added)}" if added else ""), ""


def _job_differences(experiment: Experiment) -> Iterator[Difference]:
    """Settings of a Job or PyTorchJob that a TrainJob lacks."""
    path: YamlPath = (*TEMPLATE, "spec")
    spec = experiment.mapping(*path)
    names = {
        "template",
        "pytorchReplicaSpecs",
        "nprocPerNode",
        "runPolicy",
        "activeDeadlineSeconds",
        "suspend",
        *_POLICIES,
    }
    ones = [key for key in ("completions", "parallelism") if spec.get(key, 1) == 1]
    for key in spec:
        if key not in (*names, *ones):
            yield "error", (*path, key), f"a TrainJob has no {key}", "remove it"
    for key in experiment.mapping(*path, "runPolicy"):
        if key not in (*names, "backoffLimit"):
            yield "error", (*path, "runPolicy", key), f"a TrainJob has no {key}", "remove it"
    for row in (path, (*path, "runPolicy")):
        if isinstance(limit := experiment.get(*row, "backoffLimit"), int) and limit > 0:
            message = f"the TrainingRuntime {RUNTIME} repeats no failed trial, and backoffLimit is {limit}"
            yield "error", (*row, "backoffLimit"), message, "use 0, and ISOTRAIN_RETRIES to forgive failures"
    if not experiment.text(*path, "nprocPerNode", default="1").isdigit():
        yield "error", (*path, "nprocPerNode"), "a TrainJob needs a number of processes", "use a number"
    if experiment.kind == "PyTorchJob":
        roles = experiment.mapping(*REPLICAS)
        templates = [role.get("template") for role in roles.values() if isinstance(role, dict)]
        if any(template != templates[0] for template in templates):
            message = "the pods of a TrainJob are alike, and those of Master and Worker differ"
            yield "error", REPLICAS, message, "give Master and Worker the same template"
