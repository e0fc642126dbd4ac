"""Fields and types of an Experiment and of Kubernetes objects."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from katib.documents import YamlPath
from katib.findings import Problem

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
            "primaryPodLabels": "any",
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
    if isinstance(schema, list) and not isinstance(value, list):
        yield path, *_NOT_A_LIST
    elif isinstance(schema, list):
        for index, child in enumerate(value):
            yield from type_problems(child, schema[0], (*path, index))
    elif isinstance(schema, dict) and not isinstance(value, dict):
        yield path, "the value must be a mapping", f"use the fields {', '.join(schema)}"
    elif isinstance(schema, dict):
        for key, child in value.items():
            if key in schema:
                yield from type_problems(child, schema[key], (*path, key))
    elif schema != "any" and not _has_type(value, schema):
        yield _wrong_type(path, value, schema)


def job_problems(value: Any, path: YamlPath, kind: str) -> Iterator[Problem]:
    """Return fields that a kind of Kubernetes object does not have, and values of the wrong type.

    Limits and requests of resources are skipped, as the webhook does.

    Args:
        value: the object.
        path: path of the object.
        kind: type as `kubernetes.client.models` names it, e.g. V1Job.
    """
    try:
        from kubernetes.client import models
    except ImportError:
        return  # `check` reports it
    if value is None or kind == "object":
        return
    if (match := re.fullmatch(r"[lL]ist\[(.+)\]", kind)) and not isinstance(value, list):
        yield path, *_NOT_A_LIST
    elif match:
        for index, child in enumerate(value):
            yield from job_problems(child, (*path, index), match[1])
    elif match := re.fullmatch(r"[dD]ict[(\[](\w+), (.+)[)\]]", kind):
        if not isinstance(value, dict):
            yield path, *_NOT_A_MAPPING
        elif path[-1] not in ("limits", "requests"):
            for key, child in value.items():
                yield from job_problems(child, (*path, key), match[2])
    elif kind in ("str", "int", "bool", "float", "datetime", "date"):
        type_name = {"int": "int", "bool": "bool", "float": "number"}.get(kind, "str")
        is_quantity = path[-1] in ("sizeLimit", "divisor") and _has_type(value, "number")  # the API takes numbers
        if not is_quantity and not _has_type(value, type_name):
            yield _wrong_type(path, value, type_name)
    elif (model := getattr(models, kind, None)) and not isinstance(value, dict):
        yield path, *_NOT_A_MAPPING
    elif model:
        attributes = {key: attribute for attribute, key in model.attribute_map.items()}
        for key, child in value.items():
            if key not in attributes:
                yield _unknown_field((*path, str(key)), kind[2:], attributes)
            else:
                yield from job_problems(child, (*path, key), model.openapi_types[attributes[key]])


def _has_type(value: Any, type_name: str) -> bool:
    if isinstance(value, bool):
        return type_name == "bool"
    types: dict[str, Any] = {"str": str, "int": int, "number": int | float, "bool": bool}
    return isinstance(value, types[type_name])


def _wrong_type(path: YamlPath, value: Any, type_name: str) -> Problem:
    text = str(value).lower() if isinstance(value, bool) else value
    fix = f'write it in quotes: "{text}"' if type_name == "str" else f"use {_TYPE_NAMES[type_name]}, without quotes"
    return path, f"the value must be {_TYPE_NAMES[type_name]}, got {value!r}", fix


def _unknown_field(path: YamlPath, owner: str, names: Iterable[str]) -> Problem:
    similar = difflib.get_close_matches(str(path[-1]), list(names), n=1)
    fix = f"use {similar[0]}" if similar else f"remove it, or use one of {', '.join(sorted(names))}"
    return path, f"{owner} has no field {path[-1]}", fix
