"""Requests and answers of the Open Inference Protocol V2 over REST, with its extension for binary tensors.

https://github.com/open-inference/open-inference-protocol and, for binary tensors, Triton's extension_binary_data.md: tensors that
say `binary_data_size` follow the JSON header, whose length is in the HTTP header Inference-Header-Content-Length; elements of BYTES
have their length in four bytes before them.
"""

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LENGTH = "inference-header-content-length"
_TYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_NO_POSITION = -1  # of an answer that there is not: INT64 has no null
MAX_ROWS = 1024


class RequestError(Exception):
    """A request that cannot be answered. The message is for who sent it.

    Args:
        message: The message.
        status: HTTP status.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A decoded request.

    Attributes:
        id: Its id; None if it has none.
        rows: An input for each row, by column, and its id, the number of the row.
        outputs: Names of the outputs that are asked for, with whether each is binary; empty for all.
        binary: Whether outputs that say nothing are binary.
    """

    id: str | None
    rows: list[dict[str, Any]]
    outputs: dict[str, bool | None] = field(default_factory=dict)
    binary: bool = False


def metadata(columns: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return `inputs` and `outputs` of a model's metadata.

    Args:
        columns: A value of each input, by column.
        outputs: A value of each output.
    """
    return {
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in columns],
        "outputs": [_tensor_metadata(name, value) for name, value in outputs.items() if name != "id"],
    }


def decode(body: bytes, header_length: str | None, columns: Mapping[str, Any]) -> Request:
    """Decode a request.

    Args:
        body: The body.
        header_length: The HTTP header of binary tensors; None without it.
        columns: A value of each input, by column: text, or bytes for the content of an image.

    Raises:
        RequestError: The body is no request for this model.
    """
    header, rest = _split(body, header_length)
    tensors: dict[str, NDArray[Any]] = {}
    for tensor in _objects(header.get("inputs"), "inputs"):
        name, values, rest = _read_tensor(tensor, rest)
        if name in tensors:
            raise RequestError(f"inputs: there are two of {name}")
        tensors[name] = values
    if rest:
        raise RequestError(f"{len(rest)} bytes follow the last binary tensor")
    if unknown := sorted(tensors.keys() - columns.keys()):
        raise RequestError(f"inputs: the model has no {unknown[0]}; it has {', '.join(columns)}")
    if missing := [name for name in columns if name not in tensors]:
        raise RequestError(f"inputs: {missing[0]} is missing")
    counts = {name: len(values) for name, values in tensors.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise RequestError("inputs: " + ", ".join(f"{name} has {size}" for name, size in counts.items()) + " rows")
    if not 1 <= count <= MAX_ROWS:
        raise RequestError(f"inputs: {count} rows; send 1 to {MAX_ROWS}")
    lists = {name: _column(name, tensors[name], columns[name]) for name in columns}
    rows = [{"id": str(number + 1), **{name: lists[name][number] for name in columns}} for number in range(count)]
    parameters = header.get("parameters")
    binary = isinstance(parameters, Mapping) and parameters.get("binary_data_output") is True
    return Request(_request_id(header), rows, _requested(header.get("outputs")), binary)


def encode(
    request: Request, predictions: Sequence[Mapping[str, Any]], outputs: Mapping[str, Any], name: str, version: str
) -> tuple[bytes, int | None]:
    """Encode an answer.

    Args:
        request: The request.
        predictions: A prediction for each row.
        outputs: A value of each output of the task.
        name: Name of the model.
        version: Its version.

    Returns:
        The body, and the length of its JSON header if it has binary tensors.

    Raises:
        RequestError: An output was asked for that the model has not.
    """
    present = [key for key in outputs if key != "id" and key in predictions[0]]
    if unknown := [key for key in request.outputs if key not in present]:
        raise RequestError(f"outputs: the model has no {unknown[0]}; it has {', '.join(present)}")
    tensors, parts = [], []
    for key in request.outputs or present:
        tensor, values = _output_tensor(key, outputs[key], [row[key] for row in predictions])
        binary = request.outputs.get(key)
        if request.binary if binary is None else binary:
            content = _to_binary(tensor["datatype"], values)
            parts.append(content)
            tensors.append({**tensor, "parameters": {"binary_data_size": len(content)}})
        else:
            tensors.append({**tensor, "data": values})
    answer = {"model_name": name, "model_version": version, "outputs": tensors}
    if request.id is not None:
        answer["id"] = request.id
    header = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    return b"".join([header, *parts]), len(header) if parts else None


def parse_json(body: bytes) -> Any:
    """Return the value of a body.

    Raises:
        RequestError: It is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from None


def _read_object(body: bytes) -> dict[str, Any]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError("the body is not a JSON object")
    return value


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    if header_length is None:
        return _read_object(body), b""
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
        raise RequestError(
            f"Inference-Header-Content-Length: {header_length[:40]!r} is not the length of a part of the body"
        )
    length = int(header_length)
    return _read_object(body[:length]), body[length:]


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise RequestError(f"{name}: must be a list of objects")
    return value


def _request_id(header: Mapping[str, Any]) -> str | None:
    value = header.get("id")
    if value is not None and not isinstance(value, str):
        raise RequestError("id: must be text")
    return value


def _requested(value: Any) -> dict[str, bool | None]:
    if value is None or value == []:
        return {}
    requested: dict[str, bool | None] = {}
    for entry in _objects(value, "outputs"):
        name, parameters = entry.get("name"), entry.get("parameters")
        if not isinstance(name, str):
            raise RequestError("outputs: an output has no name")
        binary = parameters.get("binary_data") if isinstance(parameters, Mapping) else None
        requested[name] = binary if isinstance(binary, bool) else None
    return requested


def _read_tensor(tensor: Mapping[str, Any], rest: bytes) -> tuple[str, NDArray[Any], bytes]:
    """Return name and values of a tensor, and what follows its binary data."""
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str):
        raise RequestError("inputs: an input has no name")
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in _TYPES):
        raise RequestError(f"inputs.{name}.datatype: {str(datatype)[:40]!r} is none of BYTES, {', '.join(_TYPES)}")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 8
        or not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**31 for size in shape)
    ):
        raise RequestError(f"inputs.{name}.shape: must be a list of 1 to 8 sizes")
    count = math.prod(shape)
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, Mapping) else None
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            raise RequestError(f"inputs.{name}: binary_data_size is not the size of a part of the body")
        flat, rest = _from_binary(name, datatype, count, rest[:size]), rest[size:]
    else:
        flat = _from_json(name, datatype, count, tensor.get("data"))
    return name, flat.reshape(shape), rest


def _from_binary(name: str, datatype: str, count: int, content: bytes) -> NDArray[Any]:
    if datatype != "BYTES":
        kind = np.dtype(_TYPES[datatype])
        if len(content) != count * kind.itemsize:
            raise RequestError(f"inputs.{name}: {len(content)} bytes, but its shape has {count * kind.itemsize}")
        return np.frombuffer(content, kind)
    elements, position = [], 0
    while position + 4 <= len(content):
        length = int.from_bytes(content[position : position + 4], "little")
        elements.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    if position != len(content) or len(elements) != count:
        raise RequestError(f"inputs.{name}: the binary data does not have the {count} elements of its shape")
    return _object_array(elements)


def _from_json(name: str, datatype: str, count: int, data: Any) -> NDArray[Any]:
    flat: list[Any] = []
    stack = [data]
    if not isinstance(data, list):
        raise RequestError(f"inputs.{name}.data: must be a list")
    while stack:  # nested by shape, or flat
        entry = stack.pop()
        if isinstance(entry, list):
            stack.extend(reversed(entry))
        else:
            flat.append(entry)
    if len(flat) != count:
        raise RequestError(f"inputs.{name}.data: {len(flat)} elements, but its shape has {count}")
    if datatype == "BYTES":
        if not all(isinstance(entry, str) for entry in flat):
            raise RequestError(f"inputs.{name}.data: elements of BYTES are texts")
        return _object_array(flat)
    kinds = (bool,) if datatype == "BOOL" else (int, float) if datatype.startswith("FP") else (int,)
    if not all(isinstance(entry, kinds) and isinstance(entry, bool) is (datatype == "BOOL") for entry in flat):
        raise RequestError(f"inputs.{name}.data: an element is not {datatype}")
    try:
        return np.array(flat, _TYPES[datatype])
    except (OverflowError, ValueError):
        raise RequestError(f"inputs.{name}.data: an element is not {datatype}") from None


def _object_array(elements: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = list(elements)
    return array


def _column(name: str, values: NDArray[Any], example: Any) -> list[Any]:
    """Return the value of each row of a column: text, or the content of an image file."""
    if isinstance(example, bytes) and values.dtype == np.uint8:
        return [_encode_image(name, pixels) for pixels in values]
    if values.dtype != object:
        kinds = "BYTES, or UINT8 of shape [N, height, width, 3]" if isinstance(example, bytes) else "BYTES"
        raise RequestError(f"inputs.{name}.datatype: must be {kinds}")
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
        raise RequestError(f"inputs.{name}.shape: must be [N] or [N, 1]")
    convert = to_content if isinstance(example, bytes) else to_text
    return [convert(f"inputs.{name}", value) for value in values.reshape(-1)]


def to_text(name: str, value: str | bytes) -> str:
    """Return a text of a request.

    Raises:
        RequestError: It is not Unicode.
    """
    try:
        if isinstance(value, bytes):
            return value.decode()
        value.encode()  # JSON can have halves of characters
    except UnicodeError:
        raise RequestError(f"{name}: a text is not Unicode, or its bytes are not UTF-8") from None
    return value


def to_content(name: str, value: str | bytes) -> bytes:
    """Return the content of a file: bytes as they are, text from base64.

    Raises:
        RequestError: The text is not base64.
    """
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{name} is not base64, which the content of a file is in JSON") from None


def _encode_image(name: str, pixels: NDArray[Any]) -> bytes:
    """Return pixels as PNG, which loses nothing, so that they are prepared as a file is."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise RequestError(f"inputs.{name}.shape: UINT8 images are [N, height, width, 3]")
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


def _tensor_metadata(name: str, value: Any) -> dict[str, Any]:
    element = value[0] if isinstance(value, list) else value
    datatype = {str: "BYTES", int: "INT64", float: "FP64"}[type(element)]
    return {"name": name, "datatype": datatype, "shape": [-1, -1] if isinstance(value, list) else [-1]}


def _output_tensor(name: str, example: Any, values: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return a tensor without its data, and its data, flat."""
    tensor = _tensor_metadata(name, example)
    if isinstance(example, list):
        flat = [element for row in values for element in row]
        return {**tensor, "shape": [len(values), len(values[0])]}, flat
    return {**tensor, "shape": [len(values)]}, [_NO_POSITION if value is None else value for value in values]


def _to_binary(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, _TYPES[datatype]).tobytes()
    contents = [str(value).encode() for value in values]
    return b"".join(len(content).to_bytes(4, "little") + content for content in contents)
