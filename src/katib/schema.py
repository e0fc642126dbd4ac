"""Fields and types of an Experiment and of Kubernetes objects."""

import difflib
import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from katib.documents import YamlPath
from katib.findings import Problem
from katib.quantity import canonical_quantity, is_canonical, parse_quantity

# Fields of an Experiment and the types that Go decodes them to; Katib ignores any other field.
_NAME_VALUE = {"name": "str", "value": "str"}
EXPERIMENT: dict[str, Any] = {
    "apiVersion": "str",
    "kind": "str",
    "metadata": "any",
    "status": "any",
    "spec": {
        "objective": {
            "type": "str",
            "goal": "number",
            "objectiveMetricName": "str",
            "additionalMetricNames": ["str"],
            "metricStrategies": [_NAME_VALUE],
        },
        "algorithm": {"algorithmName": "str", "algorithmSettings": [_NAME_VALUE]},
        "earlyStopping": {"algorithmName": "str", "algorithmSettings": [_NAME_VALUE]},
        "parallelTrialCount": "int",
        "maxTrialCount": "int",
        "maxFailedTrialCount": "int",
        "resumePolicy": "str",
        "parameters": [
            {
                "name": "str",
                "parameterType": "str",
                "feasibleSpace": {"min": "str", "max": "str", "step": "str", "list": ["str"], "distribution": "str"},
            }
        ],
        "nasConfig": "any",
        "metricsCollectorSpec": {
            "collector": {"kind": "str", "customCollector": "any"},
            "source": {
                "fileSystemPath": {"path": "str", "kind": "str", "format": "str"},
                "filter": {"metricsFormat": ["str"]},
                "httpGet": "any",
            },
        },
        "trialTemplate": {
            "retain": "bool",
            "primaryPodLabels": "labels",
            "primaryContainerName": "str",
            "successCondition": "str",
            "failureCondition": "str",
            "trialParameters": [{"name": "str", "description": "str", "reference": "str"}],
            "trialSpec": "any",
            "configMap": {"configMapName": "str", "configMapNamespace": "str", "templatePath": "str"},
        },
    },
}
_TYPE_NAMES = {"str": "a string", "int": "an integer", "number": "a number", "bool": "true or false"}
# Types of `kubernetes.client.models` and ours.
_SCALARS = {"str": "str", "int": "int", "bool": "bool", "float": "number", "datetime": "str", "date": "str"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_QUANTITY_FIELDS = ("sizeLimit", "divisor")
_QUANTITY_GROUPS = ("limits", "requests", "overhead")
# Fields of Kubernetes 1.31 to 1.34, which Katib 0.19 decodes; client 30 does not have them.
_NEWER_FIELDS = {
    "V1Container": ("restartPolicyRules",),
    "V1EnvVarSource": ("fileKeyRef",),
    "V1Lifecycle": ("stopSignal",),
    "V1PodResourceClaim": ("resourceClaimName", "resourceClaimTemplateName"),
    "V1PodSecurityContext": ("seLinuxChangePolicy", "supplementalGroupsPolicy"),
    "V1PodSpec": ("hostnameOverride", "resources"),
    "V1ResourceClaim": ("request",),
    "V1Volume": ("image",),
    "V1VolumeProjection": ("podCertificate",),
}
# Which zero values Go writes, of k8s.io/api v0.34: numbers and booleans are pointers, which it writes, except these;
_PLAIN_SCALARS = (
    *("hostIPC", "hostNetwork", "hostPID", "readOnly", "stdin", "stdinOnce", "tty"),
    *("chapAuthDiscovery", "chapAuthSession", "sslEnabled"),
    *("failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds"),
    *("active", "failed", "generation", "hostPort", "partition", "succeeded"),
)
# optional texts are left out when they are empty, except these.
_POINTERS = (
    *("V1AzureDiskVolumeSource.readOnly", "V1CSIVolumeSource.readOnly", "V1CSIVolumeSource.fsType"),
    *("V1AzureDiskVolumeSource.fsType", "V1HostPathVolumeSource.type", "V1PodDNSConfigOption.value"),
    *("V1TypedObjectReference.namespace", "apiGroup", "gmsaCredentialSpec", "gmsaCredentialSpecName"),
    *("initiatorName", "runAsUserName", "service", "storageClassName", "volumeAttributesClassName"),
)
_NOT_A_LIST = ("the value must be a list", "write each entry after a dash")
_NOT_A_MAPPING = ("the value must be a mapping", "write it as key: value")


def unknown_fields(value: Any, schema: Any, path: YamlPath = ()) -> Iterator[Problem]:
    """Return fields that Katib does not have: the API server keeps them, and Katib ignores them.

    Args:
        value: the Experiment, or a part of it.
        schema: the part of `EXPERIMENT` that describes it.
        path: path of the value.
    """
    if isinstance(schema, list) and isinstance(value, list):
        for index, child in enumerate(value):
            yield from unknown_fields(child, schema[0], (*path, index))
    elif isinstance(schema, dict) and isinstance(value, dict):
        for key, child in value.items():
            if key not in schema:
                yield _unknown_field((*path, str(key)), "Katib", schema)
            else:
                yield from unknown_fields(child, schema[key], (*path, key))


def type_problems(value: Any, schema: Any, path: YamlPath = ()) -> Iterator[Problem]:
    """Return values that Go does not decode: the API server refuses the whole object.

    Args:
        value: the Experiment, or a part of it.
        schema: the part of `EXPERIMENT` that describes it.
        path: path of the value.
    """
    if value is None:
        return
    if schema == "labels":
        yield from job_problems(value, path, "dict(str, str)")
    elif isinstance(schema, list) and not isinstance(value, list):
        yield path, *_NOT_A_LIST
    elif isinstance(schema, list):
        for index, child in enumerate(value):
            if child is None and isinstance(schema[0], dict):
                yield (*path, index), "the entry is empty", f"use the fields {', '.join(schema[0])}"
            yield from type_problems(child, schema[0], (*path, index))
    elif isinstance(schema, dict) and not isinstance(value, dict):
        yield path, "the value must be a mapping", f"use the fields {', '.join(schema)}"
    elif isinstance(schema, dict):
        for key, child in value.items():
            if key in schema:
                yield from type_problems(child, schema[key], (*path, key))
    elif schema != "any" and not _has_type(value, schema):
        yield _wrong_type(path, value, schema)
    elif schema == "int" and abs(value) >= 2**31:
        yield path, f"the number must have at most 32 bits, got {value}", "use a smaller number"


def job_problems(value: Any, path: YamlPath, kind: str, compared: bool = False) -> Iterator[Problem]:
    """Return fields that a kind of Kubernetes object does not have, and values that Go does not decode.

    Args:
        value: the object.
        path: path of the object.
        kind: type as `kubernetes.client.models` names it, e.g. V1Job.
        compared: whether Katib's webhook compares the object before and after it was decoded: then values that Go does
            not write again are problems too (validatePatchJob of Katib's validator.go).
    """
    try:
        from kubernetes.client import models
    except ImportError:
        return  # `check` reports it
    if value is None:
        if compared:
            message = "Katib's webhook refuses null, because Go leaves it out of the Job"
            yield path, message, "remove the key, or give a value"
        return
    if (match := re.fullmatch(r"[lL]ist\[(.+)\]", kind)) and not isinstance(value, list):
        yield path, *_NOT_A_LIST
    elif match:
        for index, child in enumerate(value):
            yield from job_problems(child, (*path, index), match[1], compared)
    elif match := re.fullmatch(r"[dD]ict[(\[](\w+), (.+)[)\]]", kind):
        if not isinstance(value, dict):
            yield path, *_NOT_A_MAPPING
            return
        for key, child in value.items():
            if path[-1] not in _QUANTITY_GROUPS:
                yield from job_problems(child, (*path, key), match[2], compared)
            elif child is not None:  # Go reads null as 0
                # Resources that only a device plugin knows are not compared.
                yield from _quantity_problems(child, (*path, key), compared and path[-1] == "overhead")
    elif kind == "str" and path[-1] in _QUANTITY_FIELDS:
        yield from _quantity_problems(value, path, compared)
    elif kind in _SCALARS:
        if not _has_type(value, _SCALARS[kind]):
            yield _wrong_type(path, value, _SCALARS[kind])
        elif kind == "datetime" and not _TIME.fullmatch(value):
            yield path, f"{value!r} is not a time", "remove it, or write it as 2026-01-31T12:00:00Z"
    elif kind == "object" and path[-1] == "port" and not (_has_type(value, "int") or _has_type(value, "str")):
        yield path, f"a port must be a number or a name, got {value!r}", "use the number of the port"
    elif (model := getattr(models, kind, None)) and not isinstance(value, dict):
        yield path, *_NOT_A_MAPPING
    elif model:
        attributes = {key: attribute for attribute, key in model.attribute_map.items()}
        for key, child in value.items():
            if key not in attributes:
                if key not in _NEWER_FIELDS.get(kind, ()):
                    yield _unknown_field((*path, str(key)), kind[2:], attributes)
                continue
            child_kind = model.openapi_types[attributes[key]]
            if child is None and key in required_fields(kind) and child_kind.lower().startswith("list"):
                continue  # Go writes null again
            if compared and _is_left_out(model, attributes[key], key, child):
                message = f"Katib's webhook refuses {json.dumps(child)} here, because Go leaves it out of the Job"
                yield (*path, key), message, f"remove {key}: this is its default"
            else:
                yield from job_problems(child, (*path, key), child_kind, compared)


def iter_objects(value: Any, path: YamlPath, kind: str) -> Iterator[tuple[YamlPath, str, dict[str, Any]]]:
    """Return a Kubernetes object and every object inside it, with path and type.

    Args:
        value: the object; what has another type than its field is left out.
        path: path of the object.
        kind: type as `kubernetes.client.models` names it, e.g. V1Job.
    """
    try:
        from kubernetes.client import models
    except ImportError:
        return  # `check` reports it
    match = re.fullmatch(r"[lL]ist\[(.+)\]", kind)
    if match and isinstance(value, list):
        for index, child in enumerate(value):
            yield from iter_objects(child, (*path, index), match[1])
    elif (model := getattr(models, kind, None)) and isinstance(value, dict):
        yield path, kind, value
        attributes = {key: attribute for attribute, key in model.attribute_map.items()}
        for key, child in value.items():
            if key in attributes:
                yield from iter_objects(child, (*path, key), model.openapi_types[attributes[key]])


@functools.cache
def required_fields(kind: str) -> list[str]:
    """Return the fields that a kind of Kubernetes object must have.

    Args:
        kind: type as `kubernetes.client.models` names it, e.g. V1VolumeMount; another type has none.
    """
    from kubernetes.client import Configuration, models

    model = getattr(models, kind, None)
    if model is None:
        return []
    instance = model.__new__(model)
    instance.local_vars_configuration = Configuration()
    required = []
    for attribute, key in model.attribute_map.items():
        try:
            setattr(instance, attribute, None)
        except ValueError:
            required.append(key)
    return required


def _is_left_out(model: Any, attribute: str, key: str, value: Any) -> bool:
    """Return whether Go leaves a zero value out when it writes an object as JSON (`omitempty`)."""
    kind, name = str(model.openapi_types[attribute]), f"{model.__name__}.{key}"
    if value == {} and isinstance(value, dict):
        return kind.lower().startswith("dict")
    if value == [] and isinstance(value, list):
        return kind.lower().startswith("list") and key not in (*required_fields(model.__name__), "sources")
    if value == "" and kind == "str":
        return key not in (*_POINTERS, *required_fields(model.__name__), *_QUANTITY_FIELDS) and name not in _POINTERS
    if value in (0, False) and isinstance(value, int) and kind == ("bool" if isinstance(value, bool) else "int"):
        return key in _PLAIN_SCALARS and name not in _POINTERS
    return False


def _quantity_problems(value: Any, path: YamlPath, compared: bool) -> Iterator[Problem]:
    """Return what is wrong with a quantity; `compared` as in `job_problems`."""
    fix = "write a number and a unit: 500m, 2, 4Gi or 4G"
    if isinstance(value, bool) or not isinstance(value, int | float | str) or parse_quantity(value) is None:
        yield path, f"{value!r} is not a quantity", fix
    elif compared and not isinstance(value, str):
        message = f"Katib's webhook refuses the number {value} here, because Go writes quantities as text"
        yield path, message, f'write "{canonical_quantity(str(value))}"'
    elif compared and not is_canonical(str(value)):
        written = canonical_quantity(str(value))
        yield path, f"Katib's webhook refuses {value} here, because Go writes it as {written}", f'write "{written}"'


def _has_type(value: Any, type_name: str) -> bool:
    if isinstance(value, bool):
        return type_name == "bool"
    types: dict[str, Any] = {"str": str, "int": int, "number": int | float, "bool": bool}
    return isinstance(value, types[type_name])


def _wrong_type(path: YamlPath, value: Any, type_name: str) -> Problem:
    fix = f"use {_TYPE_NAMES[type_name]}, without quotes"
    if type_name == "str" and isinstance(value, bool):
        fix = "write it in quotes; y, yes, on, n, no and off are true and false in YAML"
    elif type_name == "str":
        fix = f'write it in quotes: "{value}"'
    return path, f"the value must be {_TYPE_NAMES[type_name]}, got {value!r}", fix


def _unknown_field(path: YamlPath, owner: str, names: Iterable[str]) -> Problem:
    similar = difflib.get_close_matches(str(path[-1]), list(names), n=1)
    fix = f"use {similar[0]}" if similar else f"remove it, or use one of {', '.join(sorted(names))}"
    return path, f"{owner} has no field {path[-1]}", fix
