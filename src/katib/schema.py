"""Types of the API's objects: which fields there are, and which of them are texts."""

import re
from collections.abc import Iterator
from typing import Any

from katib.documents import YamlPath
from katib.rule import Problem

# Fields of an Experiment and what Go decodes them into; a field not listed is dropped without a word.
_RESOURCE = {"name": "str", "value": "str"}
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
            "metricStrategies": [_RESOURCE],
        },
        "algorithm": {"algorithmName": "str", "algorithmSettings": [_RESOURCE]},
        "earlyStopping": {"algorithmName": "str", "algorithmSettings": [_RESOURCE]},
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
_KINDS = {"str": "text", "int": "a whole number", "number": "a number", "bool": "true or false"}


def unknown_fields(value: Any, schema: Any, place: YamlPath = ()) -> Iterator[Problem]:
    """Fields that Katib does not have: the API server keeps them, and nobody reads them."""
    if isinstance(schema, list) and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unknown_fields(inner, schema[0], (*place, index))
    elif isinstance(schema, dict) and isinstance(value, dict):
        for key, inner in value.items():
            if key not in schema:
                yield (*place, str(key)), f"Katib has no field {key} here", f"it has {', '.join(schema)}"
            else:
                yield from unknown_fields(inner, schema[key], (*place, key))


def type_problems(value: Any, schema: Any, place: YamlPath = ()) -> Iterator[Problem]:
    """Values that Go does not decode: the API server refuses the whole object."""
    if value is None:
        return
    if isinstance(schema, list):
        if not isinstance(value, list):
            yield place, "it must be a list", "write each entry after a dash"
            return
        for index, inner in enumerate(value):
            yield from type_problems(inner, schema[0], (*place, index))
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield place, "it must be a mapping", f"it has {', '.join(schema)}"
            return
        for key, inner in value.items():
            if key in schema:
                yield from type_problems(inner, schema[key], (*place, key))
    elif schema != "any" and not _is(value, schema):
        quoted = f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
        yield place, f"{value!r} must be {_KINDS[schema]}", quoted if schema == "str" else f"give {_KINDS[schema]}"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    types: dict[str, Any] = {"str": str, "int": int, "number": int | float, "bool": bool}
    return isinstance(value, types[kind])


def job_problems(value: Any, place: YamlPath, model: str) -> Iterator[Problem]:
    """Fields that a kind of Kubernetes object does not have, and values of another type.

    Resources' limits and requests are left out, as the webhook does.

    Args:
        value: the object.
        place: where it is.
        model: its class among `kubernetes.client.models`, e.g. V1Job.
    """
    try:
        from kubernetes.client import models
    except ImportError:
        return  # `check` says so
    yield from _walk(value, place, model, models)


def _walk(value: Any, place: YamlPath, kind: str, models: Any) -> Iterator[Problem]:
    if value is None or kind == "object":
        return
    if found := re.fullmatch(r"[lL]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield place, "it must be a list", "write each entry after a dash"
            return
        for index, inner in enumerate(value):
            yield from _walk(inner, (*place, index), found[1], models)
    elif found := re.fullmatch(r"[dD]ict[(\[](\w+), (.+)[)\]]", kind):
        if not isinstance(value, dict):
            yield place, "it must be a mapping", "write it as key: value"
        elif place[-1] not in ("limits", "requests"):
            for key, inner in value.items():
                yield from _walk(inner, (*place, key), found[2], models)
    elif kind in ("str", "int", "bool", "float", "datetime", "date"):
        wanted = {"int": "int", "bool": "bool", "float": "number"}.get(kind, "str")
        quantity = place[-1] in ("sizeLimit", "divisor") and _is(value, "number")  # the API takes numbers for those
        if not quantity and not _is(value, wanted):
            quoted = f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
            yield place, f"{value!r} must be {_KINDS[wanted]}", quoted if wanted == "str" else f"give {_KINDS[wanted]}"
    else:
        shape = getattr(models, kind, None)
        if shape is None:
            return
        if not isinstance(value, dict):
            yield place, "it must be a mapping", "write it as key: value"
            return
        names = {written: name for name, written in shape.attribute_map.items()}
        for key, inner in value.items():
            if key not in names:
                yield (*place, str(key)), f"{kind[2:]} has no field {key}", _near(str(key), names)
            else:
                yield from _walk(inner, (*place, key), shape.openapi_types[names[key]], models)


def _near(key: str, names: dict[str, str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, list(names), n=1)
    return f"did you mean {close[0]}?" if close else "remove it, or move it to where it belongs"
