"""Types of a trial's workload and of the objects inside it: their fields, and the versions that have them.

Kubernetes' types are those of `kubernetes.client.models`, with the fields of 1.31 to 1.34, which client 30 does not have
(k8s.io/api v0.34). PyTorchJob and its siblings are those of `kubeflow.training.models` (the training operator 1.9).
TrainJob's are the table below (manifests/base/crds of kubeflow/trainer v2.0.1, v2.1.0, v2.2.1 and v2.3.0).
"""

import functools
from collections.abc import Mapping
from typing import Any

_STRINGS = "dict(str, str)"
_TRAIN_JOB: Mapping[str, Mapping[str, str]] = {
    "TrainJob": {
        "apiVersion": "str",
        "kind": "str",
        "metadata": "V1ObjectMeta",
        "spec": "TrainJobSpec",
        "status": "object",
    },
    "TrainJobSpec": {
        **{"runtimeRef": "RuntimeRef", "initializer": "Initializer", "trainer": "Trainer", "suspend": "bool"},
        **{"managedBy": "str", "runtimePatches": "list[RuntimePatch]", "activeDeadlineSeconds": "int"},
    },
    "RuntimeRef": {"name": "str", "apiGroup": "str", "kind": "str"},
    "Initializer": {"dataset": "DataInitializer", "model": "DataInitializer"},
    "DataInitializer": {"storageUri": "str", "env": "list[V1EnvVar]", "secretRef": "V1LocalObjectReference"},
    "Trainer": {
        **{"image": "str", "command": "list[str]", "args": "list[str]", "env": "list[V1EnvVar]", "numNodes": "int"},
        **{"numProcPerNode": "int", "resourcesPerNode": "V1ResourceRequirements"},
    },
    "RuntimePatch": {"manager": "str", "time": "datetime", "trainingRuntimeSpec": "TrainingRuntimeSpecPatch"},
    "TrainingRuntimeSpecPatch": {"template": "JobSetTemplatePatch"},
    "JobSetTemplatePatch": {"metadata": "PatchMetadata", "spec": "JobSetSpecPatch"},
    "JobSetSpecPatch": {"replicatedJobs": "list[ReplicatedJobPatch]"},
    "ReplicatedJobPatch": {"name": "str", "template": "JobTemplatePatch"},
    "JobTemplatePatch": {"metadata": "PatchMetadata", "spec": "JobSpecPatch"},
    "JobSpecPatch": {"template": "PodTemplatePatch"},
    "PodTemplatePatch": {"metadata": "PatchMetadata", "spec": "PodSpecPatch"},
    "PatchMetadata": {"labels": _STRINGS, "annotations": _STRINGS},
    "PodSpecPatch": {
        **{"affinity": "V1Affinity", "containers": "list[ContainerPatch]", "initContainers": "list[ContainerPatch]"},
        **{"imagePullSecrets": "list[V1LocalObjectReference]", "nodeSelector": _STRINGS},
        **{"schedulingGates": "list[V1PodSchedulingGate]", "securityContext": "V1PodSecurityContext"},
        **{"serviceAccountName": "str", "terminationGracePeriodSeconds": "int", "tolerations": "list[V1Toleration]"},
        "volumes": "list[V1Volume]",
    },
    "ContainerPatch": {
        **{"name": "str", "env": "list[V1EnvVar]", "volumeMounts": "list[V1VolumeMount]"},
        "securityContext": "V1SecurityContext",
    },
}
_NEWER_OBJECTS: Mapping[str, Mapping[str, str]] = {
    "ContainerRestartRule": {"action": "str", "exitCodes": "ContainerRestartRuleOnExitCodes"},
    "ContainerRestartRuleOnExitCodes": {"operator": "str", "values": "list[int]"},
    "FileKeySelector": {"volumeName": "str", "path": "str", "key": "str", "optional": "bool"},
    "ImageVolumeSource": {"reference": "str", "pullPolicy": "str"},
    "PodCertificateProjection": {
        **{"signerName": "str", "keyType": "str", "maxExpirationSeconds": "int", "keyPath": "str"},
        **{"certificateChainPath": "str", "credentialBundlePath": "str"},
    },
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "TrainJobSpec": ("runtimeRef",),
    **dict.fromkeys(("RuntimeRef", "ReplicatedJobPatch", "ContainerPatch"), ("name",)),
    "RuntimePatch": ("manager",),
    "ContainerRestartRule": ("action",),
    "ContainerRestartRuleOnExitCodes": ("operator",),
    "FileKeySelector": ("volumeName", "path", "key"),
    "PodCertificateProjection": ("signerName", "keyType"),
}
_NEWER_FIELDS: Mapping[str, Mapping[str, str]] = {
    "V1Container": {"restartPolicyRules": "list[ContainerRestartRule]"},
    "V1EnvVarSource": {"fileKeyRef": "FileKeySelector"},
    "V1EphemeralContainer": {"restartPolicyRules": "list[ContainerRestartRule]"},
    "V1Lifecycle": {"stopSignal": "str"},
    "V1PodResourceClaim": {"resourceClaimName": "str", "resourceClaimTemplateName": "str"},
    "V1PodSecurityContext": {"seLinuxChangePolicy": "str", "supplementalGroupsPolicy": "str"},
    "V1PodSpec": {"hostnameOverride": "str", "resources": "V1ResourceRequirements"},
    "V1ResourceClaim": {"request": "str"},
    "V1Volume": {"image": "ImageVolumeSource"},
    "V1VolumeProjection": {"podCertificate": "PodCertificateProjection"},
}
# Fields that a version has lost: those that had it, and what takes its place.
_PATCHES = "runtimePatches since 2.2, or a TrainingRuntime of your own, which 2.1 to 2.3 read alike (katib/cluster/trainer is one)"
REMOVED_FIELDS: Mapping[str, tuple[str, str]] = {
    "TrainJobSpec.podSpecOverrides": ("Trainer 2.0", f"podTemplateOverrides in 2.1, {_PATCHES}"),
    "TrainJobSpec.podTemplateOverrides": ("Trainer 2.1", _PATCHES),
    **dict.fromkeys(
        ("TrainJobSpec.labels", "TrainJobSpec.annotations"),
        ("Trainer 2.0 and 2.1", "metadata of the TrainJob or, for its pods, runtimePatches"),
    ),
    "V1PodResourceClaim.source": ("Kubernetes 1.30", "resourceClaimName or resourceClaimTemplateName"),
}
# Fields that the oldest of the versions lacks.
ADDED_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("TrainJobSpec.runtimePatches", "TrainJobSpec.activeDeadlineSeconds"), "Trainer 2.2"),
    "PodSpecPatch.terminationGracePeriodSeconds": "Trainer 2.3",
}
_TRAINING_OPERATOR = "KubeflowOrgV1"  # in front of its types
API_VERSIONS = {"Job": "batch/v1", "PyTorchJob": "kubeflow.org/v1", "TrainJob": "trainer.kubeflow.org/v1alpha1"}


def workload_type(api_version: Any, kind: str) -> str:
    """Return the type of a workload's kind, e.g. V1Job; "" if neither the packages nor the table have it."""
    if api_version == API_VERSIONS.get(kind):
        return {"Job": "V1Job", "TrainJob": "TrainJob"}.get(kind) or f"{_TRAINING_OPERATOR}{kind}"
    name = f"{_TRAINING_OPERATOR}{kind}"
    return name if api_version == "kubeflow.org/v1" and kind.endswith("Job") and fields(name) is not None else ""


def api_name(kind: str) -> str:
    """Return the API that has a type, and its versions, for messages."""
    if kind.startswith(_TRAINING_OPERATOR):
        return "the training operator 1.9"
    return "Trainer 2.1 to 2.3" if kind in _TRAIN_JOB else "Kubernetes 1.34"


def short_name(kind: str) -> str:
    """Return the name of a type without the prefix of its package: JobSpec for V1JobSpec."""
    return kind.removeprefix(_TRAINING_OPERATOR).removeprefix("V1")


@functools.cache
def fields(kind: str) -> Mapping[str, str] | None:
    """Return the type of each field of a type of objects; None if it is another type, or its package is missing."""
    if (types := _TRAIN_JOB.get(kind) or _NEWER_OBJECTS.get(kind)) is not None:
        return types
    model = _model(kind)
    if model is None:
        return None
    types = {key: str(model.openapi_types[attribute]) for attribute, key in model.attribute_map.items()}
    present = {key: row for key, row in types.items() if f"{kind}.{key}" not in REMOVED_FIELDS}
    return {**present, **_NEWER_FIELDS.get(kind, {})}


@functools.cache
def required_fields(kind: str) -> list[str]:
    """Return the fields that an object of a type must have; another type has none.

    Args:
        kind: the type, e.g. V1VolumeMount.
    """
    model = _model(kind)
    if model is None:
        return list(_REQUIRED.get(kind, ()))
    from kubernetes.client import Configuration

    instance = model.__new__(model)
    instance.local_vars_configuration = Configuration()
    required = []
    for attribute, key in model.attribute_map.items():
        try:
            setattr(instance, attribute, None)
        except ValueError:
            required.append(key)
    return required


def _model(kind: str) -> Any:
    """Return the class of a type; None if the packages do not have it, or are not installed (`check` reports it)."""
    try:
        if kind.startswith(_TRAINING_OPERATOR):
            from kubeflow.training import models
        else:
            from kubernetes.client import models
    except ImportError:
        return None
    return getattr(models, kind.replace("K8sIoApiAutoscalingV2", "V2"), None)
