"""Descriptions of the addresses, for the OpenAPI page at /docs."""

import base64
from collections.abc import Mapping
from typing import Any

from serving.protocol import MAX_ROWS

DESCRIPTION = "A model trained with isotrain, behind the Open Inference Protocol V2."
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_VALUES = {"type": "object", "additionalProperties": True}
_DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip
_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": _DATATYPES},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        "data": {"type": "array", "items": {}},
        "parameters": _VALUES,
    },
}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _VALUES,
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _VALUES},
            },
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_MODEL_METADATA = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
_INPUT = {"type": "object", "additionalProperties": True}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _describe(summary: str, answer: dict[str, Any], *errors: int, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments of a route: its summary, answers, and the schema of its body."""
    texts = {
        400: "The request is wrong.", 404: "There is no such model.", 413: "The body is too long.", 499: "The client left.",
        500: "A bug in the server.", 503: "Not ready, or too many inputs wait.", 504: "No answer in time.",
    }  # fmt: skip
    description: dict[str, Any] = {
        "summary": summary,
        "responses": {200: answer, **{status: _json(_ERROR, texts[status]) for status in errors}},
    }
    if body is not None:
        description["openapi_extra"] = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}}
        }
    return description


_FAILURES = (400, 413, 499, 500, 503, 504)
SERVER = _describe("Metadata of the server", _json({"type": "object"}, "Name, version and extensions."))
LIVE = _describe("Whether the server lives", _json({"type": "object"}, "It does."))
READY = _describe("Whether the model is loaded and has answered", _json({"type": "object"}, "It has."))
READY["responses"][503] = _json({"type": "object"}, "Not yet, or no more.")
MODEL = _describe("Inputs and outputs of the model", _json(_MODEL_METADATA, "Names, types and shapes."), 404, 503)
MODEL_READY = _describe("Whether the model answers", _json({"type": "object"}, "It does."), 404)
MODEL_READY["responses"][503] = _json({"type": "object"}, "Not yet, or no more.")
INFER = _describe(
    "Predict tensors",
    _json(_ANSWER, "A row of each output for each row of the inputs."),
    404,
    *_FAILURES,
    body=_REQUEST,
)
PREDICT = _describe(
    "Predict an input or a list of inputs, as python -m trainers predict",
    _json({"anyOf": [_INPUT, {"type": "array", "items": _INPUT}]}, "A prediction, or a list of them."),
    *_FAILURES,
    body={"anyOf": [_INPUT, {"type": "array", "items": _INPUT, "minItems": 1}]},
)
METRICS = _describe(
    "Counters for Prometheus", {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
)


def complete(description: dict[str, Any], name: str, version: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Say in an OpenAPI description which model there is, and what its inputs are.

    Args:
        description: The description, which is changed.
        name: Name of the model.
        version: Its version.
        columns: A value of each input, by column.
    """
    values = {"name": name, "version": version}
    for path, methods in description["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                parameter["schema"] = {"type": "string", "enum": [values[parameter["name"]]]}
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                content["schema"] = _input_or_inputs(columns) if path == "/predict" else _tensors(columns)
                content["example"] = _example(columns, path == "/predict")
    return description


def _input_or_inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    properties = {
        column: {"type": "string", "format": "byte"} if isinstance(value, bytes) else {"type": "string"}
        for column, value in columns.items()
    }
    row = {
        "type": "object",
        "required": list(columns),
        "additionalProperties": False,
        "properties": {**properties, "id": {"type": ["string", "integer"]}},
    }
    return {"anyOf": [row, {"type": "array", "items": row, "minItems": 1, "maxItems": MAX_ROWS}]}


def _tensors(columns: Mapping[str, Any]) -> dict[str, Any]:
    names = {**_TENSOR["properties"], "name": {"type": "string", "enum": list(columns)}}
    inputs = {"type": "array", "items": {**_TENSOR, "properties": names}, "minItems": len(columns)}
    return {**_REQUEST, "properties": {**_REQUEST["properties"], "inputs": inputs}}


def _example(columns: Mapping[str, Any], plain: bool) -> dict[str, Any]:
    texts = {
        column: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for column, value in columns.items()
    }
    if plain:
        return texts
    return {
        "inputs": [
            {"name": column, "datatype": "BYTES", "shape": [1], "data": [text]} for column, text in texts.items()
        ]
    }


def path_parameters(path: str) -> list[dict[str, Any]]:
    """Return the parameters of a path with {name}, and perhaps {version}."""
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def with_parameters(description: dict[str, Any], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a description with parameters of the path."""
    return {**description, "openapi_extra": {**description.get("openapi_extra", {}), "parameters": parameters}}
