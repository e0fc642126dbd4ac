"""Fields and types of an Experiment and of Kubernetes objects."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from katib.api_types import REMOVED_FIELDS, api_name, fields, required_fields, short_name
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
_QUANTITY_GROUPS = ("limits", "requests", "overhead", "minResources")
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
                yield unknown_field((*path, str(key)), "Katib", schema)
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
        kind: its type (`katib.api_types`), e.g. V1Job.
        compared: whether Katib's webhook compares the object before and after it was decoded: then values that Go does
            not write again are problems too (validatePatchJob of Katib's validator.go).
    """
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
    elif (types := fields(kind)) is not None and not isinstance(value, dict):
        yield path, *_NOT_A_MAPPING
    elif types is not None:
        for key, child in value.items():
            if key not in types:
                yield from _unknown_object_field((*path, str(key)), kind, types)
                continue
            if child is None and key in required_fields(kind) and types[key].lower().startswith("list"):
                continue  # Go writes null again
            if compared and _is_left_out(kind, key, child):
                message = f"Katib's webhook refuses {json.dumps(child)} here, because Go leaves it out of the Job"
                yield (*path, key), message, f"remove {key}: this is its default"
            else:
                yield from job_problems(child, (*path, key), types[key], compared)


def _unknown_object_field(path: YamlPath, kind: str, types: Mapping[str, str]) -> Iterator[Problem]:
    """Return a field that a type of objects does not have; K224 reports those that another version of Trainer has."""
    name = f"{kind}.{path[-1]}"
    if name.startswith("TrainJobSpec.") and name in REMOVED_FIELDS:
        return
    _, message, fix = unknown_field(path, short_name(kind), types)
    if name in REMOVED_FIELDS:
        message, fix = f"{message} any more, which {REMOVED_FIELDS[name][0]} had", f"use {REMOVED_FIELDS[name][1]}"
    yield path, f"{message} (checked against {api_name(kind)})", fix


def iter_objects(value: Any, path: YamlPath, kind: str) -> Iterator[tuple[YamlPath, str, dict[str, Any]]]:
    """Return a Kubernetes object and every object inside it, with path and type.

    Args:
        value: the object; what has another type than its field is left out.
        path: path of the object.
        kind: its type (`katib.api_types`), e.g. V1Job.
    """
    match = re.fullmatch(r"[lL]ist\[(.+)\]", kind)
    if match and isinstance(value, list):
        for index, child in enumerate(value):
            yield from iter_objects(child, (*path, index), match[1])
    elif (match := re.fullmatch(r"[dD]ict[(\[](\w+), (.+)[)\]]", kind)) and isinstance(value, dict):
        for key, child in value.items():
            yield from iter_objects(child, (*path, key), match[2])
    elif (types := fields(kind)) is not None and isinstance(value, dict):
        yield path, kind, value
        for key, child in value.items():
            if key in types:
                yield from iter_objects(child, (*path, key), types[key])


def _is_left_out(owner: str, key: str, value: Any) -> bool:
    """Return whether Go leaves a zero value out when it writes an object as JSON (`omitempty`)."""
    kind, name = (fields(owner) or {})[key], f"{owner}.{key}"
    if value == {} and isinstance(value, dict):
        return kind.lower().startswith("dict")
    if value == [] and isinstance(value, list):
        return kind.lower().startswith("list") and key not in (*required_fields(owner), "sources")
    if value == "" and kind == "str":
        return key not in (*_POINTERS, *required_fields(owner), *_QUANTITY_FIELDS) and name not in _POINTERS
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


def unknown_field(path: YamlPath, owner: str, names: Iterable[str]) -> Problem:
    """Return the problem of a field that an object does not have.

    Args:
        path: path of the field.
        owner: the object, for the message.
        names: fields that it has.
    """
    similar = difflib.get_close_matches(str(path[-1]), list(names), n=1)
    fix = f"use {similar[0]}" if similar else f"remove it, or use one of {', '.join(sorted(names))}"
    return path, f"{owner} has no field {path[-1]}", fix
