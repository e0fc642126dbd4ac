"""Requests, and what the policies of katib/cluster/admission answer: tests/test_admission.py evaluates the policies' CEL, and
tests/cluster asks an API server."""

import copy
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
ADMISSION = ROOT / "katib" / "cluster" / "admission"
EXPERIMENTS = {"Job": "questions-tpe", "PyTorchJob": "questions-pytorchjob", "TrainJob": "images-trainjob"}
RESOURCES = {  # kind: group and resource
    "Experiment": ("kubeflow.org", "experiments"),
    "PyTorchJob": ("kubeflow.org", "pytorchjobs"),
    "TrainJob": ("trainer.kubeflow.org", "trainjobs"),
    "Job": ("batch", "jobs"),
    "ServiceAccount": ("", "serviceaccounts"),
    "PersistentVolume": ("", "persistentvolumes"),
}
LIMITS = {  # annotations of the namespace
    "isotrain/images": "isotrain:0.1.0",
    "isotrain/service-accounts": "default",
    "isotrain/secrets": "isotrain-tokens",
    "isotrain/runtimes": "TrainingRuntime/isotrain",
}
Object = dict[str, Any]


class Case(NamedTuple):
    """A request to create an object."""

    name: str
    value: Object
    message: str | None  # part of the refusal, None if it is admitted
    real: bool = True  # whether an API server gets as far as the policies: it validates fields before


@functools.cache
def text(kind: str) -> str:
    """A shipped Experiment whose trials are of a kind, as JSON."""
    return json.dumps(yaml.safe_load((ROOT / "katib" / f"{EXPERIMENTS[kind]}.yaml").read_text(encoding="utf-8")))


def experiment(kind: str) -> Object:
    """A shipped Experiment whose trials are of a kind."""
    value: Object = json.loads(text(kind))
    return value


def job(kind: str) -> Object:
    """The job of a shipped Experiment's trial."""
    value: Object = json.loads(re.sub(r"\$\{trialParameters\.\w+\}", "1", text(kind)))["spec"]["trialTemplate"][
        "trialSpec"
    ]
    return {**value, "metadata": {"name": "admission"}}


def workload(value: Object) -> Object:
    """The job of a request, or the template of an Experiment's jobs."""
    template: Object = value["spec"]["trialTemplate"]["trialSpec"] if value["kind"] == "Experiment" else value
    return template


def pod(value: Object) -> Object:
    """The pod spec of a Job, or that of a PyTorchJob's workers."""
    spec = workload(value)["spec"]
    replica: Object = spec if "template" in spec else spec["pytorchReplicaSpecs"]["Worker"]
    template: Object = replica["template"]["spec"]
    return template


def container(value: Object) -> Object:
    """The training's container, or the trainer of a TrainJob."""
    spec = workload(value)["spec"]
    trainer: Object = spec["trainer"] if "trainer" in spec else pod(value)["containers"][0]
    return trainer


Change = Callable[[Object], Any]


def secret(name: str) -> Object:
    """A variable with the value of a secret."""
    return {"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}}


def initial(**fields: Any) -> Object:
    """An init container."""
    return {"name": "init", "image": "isotrain:0.1.0", **fields}


IMAGE = "is not in the namespace annotation isotrain/images"
ACCOUNT = "is not in the namespace annotation isotrain/service-accounts"
SECRET = "is not in the namespace annotation isotrain/secrets"
VOLUME = "a node's folders (hostPath)"
HOST = "hostNetwork, hostPID, hostIPC and hostPort are refused"
PRIVILEGE = "privileged containers, allowPrivilegeEscalation, added capabilities"
PATCH = "everything else belongs into the runtime"

# Changes to a Job's or PyTorchJob's pod, directly and in an Experiment.
PODS: dict[str, tuple[Change, str | None]] = {
    "unchanged": (lambda p: None, None),
    "image": (lambda p: p["containers"][0].update(image="docker.io/evil:1"), f"image docker.io/evil:1 {IMAGE}"),
    "image-longer": (lambda p: p["containers"][0].update(image="isotrain:0.1.0-evil"), IMAGE),
    "image-of-init": (lambda p: p.update(initContainers=[initial(image="evil")]), f"image evil {IMAGE}"),
    "image-of-second": (lambda p: p["containers"].append({"name": "b", "image": "evil"}), f"image evil {IMAGE}"),
    "init": (lambda p: p.update(initContainers=[initial()]), None),
    "account": (lambda p: p.update(serviceAccountName="strong"), f"service account strong {ACCOUNT}"),
    "account-alias": (lambda p: p.update(serviceAccount="strong"), "service account strong"),
    "account-default": (lambda p: p.update(serviceAccountName="default"), None),
    "secret-variable": (lambda p: p["containers"][0]["env"].append(secret("key")), f"secret key {SECRET}"),
    "secret-variables": (lambda p: p["containers"][0].update(envFrom=[{"secretRef": {"name": "key"}}]), SECRET),
    "secret-of-init": (lambda p: p.update(initContainers=[initial(env=[secret("key")])]), SECRET),
    "secret-volume": (lambda p: p["volumes"].append({"name": "a", "secret": {"secretName": "key"}}), SECRET),
    "secret-projected": (
        lambda p: p["volumes"].append({"name": "a", "projected": {"sources": [{"secret": {"name": "key"}}]}}),
        f"secret key {SECRET}",
    ),
    "secret-token": (lambda p: p["volumes"].append({"name": "a", "secret": {"secretName": "isotrain-tokens"}}), None),
    "variables": (lambda p: p["containers"][0].update(envFrom=[{"configMapRef": {"name": "a"}}]), None),
    "host-path": (lambda p: p["volumes"].append({"name": "a", "hostPath": {"path": "/"}}), VOLUME),
    "nfs": (lambda p: p["volumes"].append({"name": "a", "nfs": {"server": "s", "path": "/"}}), VOLUME),
    "csi": (lambda p: p["volumes"].append({"name": "a", "csi": {"driver": "d.example.com"}}), VOLUME),
    "empty-dir": (lambda p: p["volumes"].append({"name": "a", "emptyDir": {"medium": "Memory"}}), None),
    "host-network": (lambda p: p.update(hostNetwork=True), HOST),
    "host-pid": (lambda p: p.update(hostPID=True), HOST),
    "host-ipc": (lambda p: p.update(hostIPC=True), HOST),
    "host-port": (lambda p: p["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 80}]), HOST),
    "port": (lambda p: p["containers"][0].update(ports=[{"containerPort": 80}]), None),
    "privileged": (lambda p: p["containers"][0].update(securityContext={"privileged": True}), PRIVILEGE),
    "privileged-init": (lambda p: p.update(initContainers=[initial(securityContext={"privileged": True})]), PRIVILEGE),
    "escalation": (lambda p: p["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True), PRIVILEGE),
    "capability": (
        lambda p: p["containers"][0]["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
        PRIVILEGE,
    ),
    "sysctl": (lambda p: p["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]), PRIVILEGE),
    "no-context": (lambda p: (p.pop("securityContext"), p["containers"][0].pop("securityContext")), None),
}
# The same, of fields that an API server refuses itself or drops, depending on its features.
UNREAL: dict[str, tuple[Change, str | None]] = {
    "image-volume": (lambda p: p["volumes"].append({"name": "a", "image": {"reference": "evil"}}), VOLUME),
    "proc-mount": (lambda p: p["containers"][0]["securityContext"].update(procMount="Unmasked"), PRIVILEGE),
    "host-process": (lambda p: p["securityContext"].update(windowsOptions={"hostProcess": True}), PRIVILEGE),
    "host-process-container": (
        lambda p: p["containers"][0]["securityContext"].update(windowsOptions={"hostProcess": True}),
        PRIVILEGE,
    ),
    "true-as-text": (lambda p: p.update(hostNetwork="true"), HOST),
}


def patch(**fields: Any) -> Change:
    """A change that adds a pod spec to a TrainJob's runtime."""
    pods = {"template": {"spec": {"template": {"spec": fields}}}}
    specification = {"template": {"spec": {"replicatedJobs": [{"name": "node", **pods}]}}}
    return lambda t: t.update(
        runtimePatches=[{"manager": "example.com/a", "trainingRuntimeSpec": copy.deepcopy(specification)}]
    )


RUNTIME = {"apiGroup": "trainer.kubeflow.org", "name": "torch-distributed"}
# Changes to a TrainJob's spec, directly and in an Experiment.
TRAIN_JOBS: dict[str, tuple[Change, str | None, bool]] = {
    "unchanged": (lambda t: None, None, True),
    "image": (lambda t: t["trainer"].update(image="evil"), f"image evil {IMAGE}", True),
    "image-of-runtime": (lambda t: t["trainer"].pop("image"), None, True),
    "secret": (lambda t: t["trainer"].update(env=[secret("key")]), f"secret key {SECRET}", True),
    "secret-initializer": (
        lambda t: t.update(initializer={"dataset": {"storageUri": "hf://a/b", "secretRef": {"name": "key"}}}),
        f"secret key {SECRET}",
        False,  # Trainer asks for a job of this name in the runtime
    ),
    "runtime": (
        lambda t: t.update(runtimeRef={**RUNTIME, "kind": "ClusterTrainingRuntime"}),
        "runtime ClusterTrainingRuntime/torch-distributed is not in the namespace annotation isotrain/runtimes",
        False,  # may not be installed
    ),
    "runtime-kind": (lambda t: t.update(runtimeRef=RUNTIME), "runtime ClusterTrainingRuntime/", False),
    "nodes": (patch(nodeSelector={"pool": "gpu"}, tolerations=[{"operator": "Exists"}]), None, True),
    "patched-volume": (patch(volumes=[{"name": "a", "hostPath": {"path": "/"}}]), PATCH, True),
    "patched-account": (patch(serviceAccountName="strong"), PATCH, True),
    "patched-context": (patch(securityContext={"runAsUser": 0}), PATCH, True),
    "patched-container": (patch(containers=[{"name": "node", "volumeMounts": []}]), PATCH, True),
    "overridden-account": (
        lambda t: t.update(podTemplateOverrides=[{"targetJobs": [], "spec": {"serviceAccountName": "strong"}}]),
        PATCH,
        False,  # of Trainer 2.1
    ),
    "overridden-volumes": (lambda t: t.update(podSpecOverrides=[{"volumes": []}]), PATCH, False),  # of Trainer 2.0
}
KIND = "trials must be a Job, PyTorchJob or TrainJob, not "
# Changes to an Experiment of Jobs.
SEARCHES: dict[str, tuple[Change, str | None, bool]] = {
    "kind-volume": (lambda e: other_kind(e, "v1", "PersistentVolume"), KIND + "v1/PersistentVolume", True),
    "kind-cron": (lambda e: other_kind(e, "batch/v1", "CronJob"), KIND + "batch/CronJob", True),
    "kind-group": (lambda e: other_kind(e, "evil.example.com/v1", "Job"), KIND + "evil.example.com/Job", True),
    "image-placeholder": (
        lambda e: (
            container(e).update(image="${trialParameters.image}"),
            parameter(e, "image"),
        ),
        f"image ${{trialParameters.image}} {IMAGE}",
        True,
    ),
    "collector": (lambda e: collector(e, image="evil"), f"image evil {IMAGE}", True),
    "collector-privileged": (
        lambda e: collector(e, image="isotrain:0.1.0", securityContext={"privileged": True}),
        PRIVILEGE,
        True,
    ),
    "collector-secret": (
        lambda e: collector(e, image="isotrain:0.1.0", env=[secret("key")]),
        f"secret key {SECRET}",
        True,
    ),
    "collector-image": (lambda e: collector(e, image="isotrain:0.1.0"), None, True),
    "config-map": (
        lambda e: (
            e["spec"]["trialTemplate"].pop("trialSpec"),
            e["spec"]["trialTemplate"].update(
                configMap={"configMapName": "a", "configMapNamespace": "other", "templatePath": "a"}
            ),
        ),
        "spec.trialTemplate must contain trialSpec",
        False,  # Katib reads the ConfigMap first
    ),
}


def other_kind(value: Object, version: str, kind: str) -> None:
    """Changes what an Experiment's trials are."""
    workload(value).update(apiVersion=version, kind=kind)
    value["spec"]["trialTemplate"].update(successCondition="status.a", failureCondition="status.b")


def parameter(value: Object, name: str) -> None:
    """Adds a parameter to an Experiment."""
    values = {"list": ["isotrain:0.1.0", "evil"]}
    value["spec"]["parameters"].append({"name": name, "parameterType": "categorical", "feasibleSpace": values})
    value["spec"]["trialTemplate"]["trialParameters"].append({"name": name, "reference": name})


def collector(value: Object, **fields: Any) -> None:
    """Gives an Experiment a metrics collector of its own."""
    custom = {"name": "collector", **fields}
    value["spec"]["metricsCollectorSpec"] = {
        "collector": {"kind": "Custom", "customCollector": custom},
        "source": {"fileSystemPath": {"kind": "File", "path": "/metrics/metrics.log"}},
    }


def owned(kind: str, owner: str = "kubeflow.org/v1beta1") -> Object:
    """An object that a Trial owns."""
    value = job(kind) if kind in EXPERIMENTS else {"apiVersion": "v1", "kind": kind, "metadata": {"name": "admission"}}
    if kind == "PersistentVolume":
        value["spec"] = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}
    reference = {"apiVersion": owner, "kind": "Trial", "name": "a", "uid": "a", "controller": True}
    value["metadata"]["ownerReferences"] = [reference]
    return value


def cases() -> Iterator[Case]:
    """Yields each request with its answer."""
    for kind in EXPERIMENTS:
        table = {name: (*row, True) for name, row in PODS.items()} | {n: (*row, False) for n, row in UNREAL.items()}
        for source in (job, experiment):
            for name, (change, message, real) in (TRAIN_JOBS if kind == "TrainJob" else table).items():
                value = source(kind)
                change(workload(value)["spec"] if kind == "TrainJob" else pod(value))
                yield Case(f"{source.__name__}-{kind}-{name}", value, message, real)
    for name, (change, message, real) in SEARCHES.items():
        value = experiment("Job")
        change(value)
        yield Case(f"search-{name}", value, message, real)
    for kind in EXPERIMENTS:
        yield Case(f"trial-{kind}", owned(kind), None)
    yield Case("trial-account", owned("ServiceAccount"), "a trial may create a Job, PyTorchJob or TrainJob, not /serv")
    yield Case("trial-volume", owned("PersistentVolume"), "not /persistentvolumes")
    yield Case("trial-of-others", owned("ServiceAccount", "example.com/v1"), None)
