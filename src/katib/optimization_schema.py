"""The schema of OptimizationJobs: what an API server with the CRD of Trainer's master (8c0f505) refuses.

The table has the terms of JSON Schema, as the CRD has them; `map-key` names the key of a list's entries that must differ.
What is below a TrainJob's template and not in the table is a matter of `katib.schema`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from katib import optimization_job as api
from katib.documents import YamlPath
from katib.experiment import parse_number
from katib.findings import Problem
from katib.schema import unknown_field

_Schema = Mapping[str, Any]


def _object(required: str = "", **properties: _Schema) -> _Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _text(low: int, high: int, **rest: Any) -> _Schema:
    return {"type": "string", "minLength": low, "maxLength": high, **rest}


def _list(items: _Schema, low: int, high: int, key: str = "") -> _Schema:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high, "map-key": key}


_ANY: _Schema = {}
_NUMBER = _text(0, api.MAX_TEXT, pattern=api.NUMBER.pattern)
_RANGE = _object("min max", min=_NUMBER, max=_NUMBER, type={"type": "string", "enum": ["Int", "Float"]})
_COUNT = {"type": "integer", "minimum": 1, "maximum": api.MAX_TRIALS}
_VARIABLES = _list({"type": "object", "required": ["name"]}, 0, 128, "name")
_SOURCE = {
    "type": "object",
    "properties": {"env": _VARIABLES, "storageUri": _text(0, 2048, pattern=r"|[A-Za-z][A-Za-z0-9+.-]*://[^\n]+")},
}
_WORDS = {"type": "array", "maxItems": 128}
_CONTROLLERS = ["trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue"]
_TRAIN_JOB: _Schema = {
    "type": "object",
    "required": ["runtimeRef"],
    "properties": {
        "runtimeRef": {"type": "object", "required": ["name"], "properties": {"name": _text(1, 253)}},
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "managedBy": {"type": "string", "enum": _CONTROLLERS},
        "runtimePatches": _list({"type": "object", "required": ["manager"]}, 0, 16, "manager"),
        "initializer": {"type": "object", "properties": {"dataset": _SOURCE, "model": _SOURCE}},
        "trainer": {
            "type": "object",
            "properties": {
                **{"image": _text(0, 500), "command": _WORDS, "args": _WORDS, "env": _VARIABLES},
                "numNodes": {"type": "integer", "minimum": 0, "bits": 32},
                "numProcPerNode": {"type": "integer", "minimum": 1, "bits": 32},
            },
        },
    },
}
SCHEMA = _object(
    "spec",
    apiVersion=_ANY,
    kind=_ANY,
    metadata=_ANY,
    status=_ANY,
    spec=_object(
        "objectives parameters trainJobTemplate",
        objectives=_list(
            _object(
                "metric",
                metric=_text(1, api.MAX_TEXT),
                direction={"type": "string", "enum": ["Maximize", "Minimize"]},
            ),
            1,
            1,
        ),
        searchAlgorithm=_object(random=_object(seed={"type": "integer"}), grid=_object()),
        parameters=_list(
            _object(
                "name searchSpace",
                name=_text(1, api.MAX_TEXT),
                searchSpace=_object(
                    uniform=_RANGE,
                    logUniform=_RANGE,
                    categorical=_object("choices", choices=_list(_text(0, api.MAX_TEXT), 1, api.MAX_CHOICES, ".")),
                ),
            ),
            1,
            api.MAX_PARAMETERS,
            "name",
        ),
        numTrials=_COUNT,
        parallelTrials=_COUNT,
        trainJobTemplate=_object(
            "spec",
            metadata=_object(
                labels=_ANY, annotations=_ANY, finalizers=_ANY, name={"type": "string"}, namespace={"type": "string"}
            ),
            spec=_TRAIN_JOB,
        ),
    ),
)
_TYPES = {"object": dict, "array": list, "string": str, "integer": int}
_TYPE_NAMES = {"object": "a mapping", "array": "a list", "string": "a string", "integer": "an integer"}


def field_problems(value: Any, schema: _Schema = SCHEMA, path: YamlPath = ()) -> Iterator[Problem]:
    """Return fields that the CRD does not have, and values of another type.

    Args:
        value: the OptimizationJob, or a part of it.
        schema: the part of `SCHEMA` that describes it.
        path: path of the value.
    """
    kind = schema.get("type")
    if value is None or kind is None:  # null is as if it were not there
        return
    types: Any = _TYPES[kind]
    if not isinstance(value, types) or isinstance(value, bool):
        fix = f'write it in quotes: "{value}"' if kind == "string" else f"use {_TYPE_NAMES[kind]}"
        yield path, f"the value must be {_TYPE_NAMES[kind]}, got {value!r}", fix
    elif kind == "array":
        for index, child in enumerate(value):
            if child is None and schema.get("items"):
                yield (*path, index), "the entry is empty", "remove it"
            yield from field_problems(child, schema.get("items", _ANY), (*path, index))
    elif kind == "object":
        properties = schema.get("properties", {})
        for key, child in value.items():
            if key in properties:
                yield from field_problems(child, properties[key], (*path, key))
            elif path[:3] != (*api.TEMPLATE, "spec") and (properties or "properties" in schema):
                yield unknown_field((*path, str(key)), api.KIND, properties)


def limit_problems(value: Any, schema: _Schema = SCHEMA, path: YamlPath = ()) -> Iterator[Problem]:
    """Return missing fields, and values outside of the CRD's limits; arguments as for `field_problems`."""
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            if value.get(key) is None:
                yield path, f"{key} is missing", f"add {key}"
        for key, child in value.items():
            if child is not None:
                yield from limit_problems(child, schema.get("properties", {}).get(key, _ANY), (*path, key))
    elif isinstance(value, list):
        yield from _count_problems(value, schema, path)
        for index, child in enumerate(value):
            yield from limit_problems(child, schema.get("items", _ANY), (*path, index))
    elif isinstance(value, str):
        yield from _text_problems(value, schema, path)
    elif isinstance(value, int):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        bits = schema.get("bits", 64) - 1
        if not low <= value <= high:
            limits = f"{low} or more" if high == math.inf else f"between {low} and {high}"
            yield path, f"must be {limits}, got {value}", f"use a number {limits}"
        elif not -(2**bits) <= value < 2**bits:
            yield path, f"must have at most {bits + 1} bits, got {value}", "use a smaller number"


def _count_problems(value: list[Any], schema: _Schema, path: YamlPath) -> Iterator[Problem]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        limits = f"exactly {low}" if low == high else f"{low} to {high}" if low else f"at most {high}"
        yield path, f"must have {limits} entries, got {len(value)}".replace("1 entries", "1 entry"), f"use {limits}"
    if key := schema.get("map-key"):
        rows = [row.get(key) if isinstance(row, dict) else row for row in value]
        names = [row for row in rows if isinstance(row, str)]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield path, f"{name!r} occurs twice", "use it once"


def _text_problems(value: str, schema: _Schema, path: YamlPath) -> Iterator[Problem]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if choices := schema.get("enum"):
        if value not in choices:
            yield path, f"must be {' or '.join(choices)}, got {value!r}", f"use {' or '.join(choices)}"
    elif not low <= len(value) <= high:
        message = "the text is empty" if not value else f"must have at most {high} characters, got {len(value)}"
        yield path, message, "write a name" if not value else "use a shorter one"
    elif (pattern := schema.get("pattern")) and not re.fullmatch(pattern, value, re.ASCII):
        is_number = pattern == api.NUMBER.pattern
        message = f"{value!r} is not a number as the CRD has it" if is_number else f"{value!r} is not an address"
        yield path, message, "write it as 0.5, -1 or 1e-5" if is_number else "write it as scheme://..."


def rule_problems(value: Mapping[str, Any]) -> Iterator[Problem]:
    """Return what breaks the CRD's rules, which are expressions over several fields.

    Args:
        value: an OptimizationJob without `field_problems` and `limit_problems`.
    """
    spec = value["spec"]
    trials, parallel = spec.get("numTrials") or 1, spec.get("parallelTrials") or 1
    if parallel > trials:
        default = "" if spec.get("numTrials") else ", its default"
        message = f"parallelTrials is {parallel}, and numTrials is {trials}{default}"
        yield ("spec", "parallelTrials"), message, f"use at most {trials}, or more numTrials"
    search = spec.get("searchAlgorithm")
    if search is not None:
        yield from _one_of(search, ("random", "grid"), ("spec", "searchAlgorithm"))
    for index, parameter in enumerate(spec["parameters"]):
        path: YamlPath = (*api.PARAMETERS, index, "searchSpace")
        space = parameter["searchSpace"]
        yield from _one_of(space, ("uniform", "logUniform", "categorical"), path)
        if (search or {}).get("grid") is not None and space.get("categorical") is None:
            message = f"grid takes categorical parameters only, and {parameter['name']} is a range"
            yield path, message, "list the values as choices, or use random"
        for kind in ("uniform", "logUniform"):
            if space.get(kind) is not None:
                yield from _range_problems(space[kind], kind, (*path, kind))
    template = spec["trainJobTemplate"].get("metadata") or {}
    for key in ("name", "namespace"):
        if template.get(key) is not None:
            message = f"the controller names the TrainJobs of trials, so a template has no {key}"
            yield (*api.TEMPLATE, "metadata", key), message, "remove it"


def _one_of(value: Mapping[str, Any], keys: tuple[str, ...], path: YamlPath) -> Iterator[Problem]:
    present = [key for key in keys if value.get(key) is not None]
    if len(present) != 1:
        message = f"must have one of {', '.join(keys)}, got {' and '.join(present) or 'none'}"
        yield path, message, f"use one of {', '.join(keys)}" if not present else f"remove {present[-1]}"


def _range_problems(bounds: Mapping[str, str], kind: str, path: YamlPath) -> Iterator[Problem]:
    low, high = parse_number(bounds["min"]), parse_number(bounds["max"])
    if low is None or high is None:
        key = "min" if low is None else "max"
        yield (*path, key), f"{bounds[key]} is beyond the range of a float", "use a number nearer to 0"
        return
    if low >= high:
        yield (*path, "min"), f"min {bounds['min']} is not below max {bounds['max']}", "use a smaller min"
    if kind == "logUniform" and low <= 0:
        yield (*path, "min"), f"a logarithmic scale has no {bounds['min']}", "use a min above 0, or uniform"
