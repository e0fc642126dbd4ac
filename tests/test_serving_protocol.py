"""The Open Inference Protocol: requests that are right, requests that are wrong, and binary tensors."""

import base64
import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving import protocol
from serving.protocol import RequestError

TEXTS = {"question": "", "context": ""}
IMAGES = {"image": b""}
OUTPUTS = {"id": "", "prediction": "", "start": 0, "score": 0.0, "top": [""], "absent": 0.0}


def tensor(name: str, data: Any, shape: Any = None, datatype: str = "BYTES", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data, **more}


def body(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def test_texts_become_rows() -> None:
    request = protocol.decode(
        body(tensor("question", ["a", "b"]), tensor("context", [["c"], ["ö"]], [2, 1]), id="7"), None, TEXTS
    )
    assert request.id == "7"
    assert request.rows == [
        {"id": "1", "question": "a", "context": "c"},
        {"id": "2", "question": "b", "context": "ö"},
    ]


def image_content(size: tuple[int, int] = (3, 2)) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_in_each_form_has_the_same_pixels() -> None:
    content = image_content()
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    as_text = protocol.decode(body(tensor("image", [base64.b64encode(content).decode()])), None, IMAGES).rows
    assert as_text == [{"id": "1", "image": content}]
    binary = len(content).to_bytes(4, "little") + content
    header = json.dumps(
        {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
            ]
        }
    ).encode()
    assert protocol.decode(header + binary, str(len(header)), IMAGES).rows == as_text
    array = protocol.decode(
        body(tensor("image", pixels[None].tolist(), [1, *pixels.shape], "UINT8")), None, IMAGES
    ).rows
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(array[0]["image"]))), pixels)
    raw = pixels.tobytes()
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "UINT8",
                    "shape": [1, 2, 3, 3],
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    assert protocol.decode(header + raw, str(len(header)), IMAGES).rows == array


QUESTION, CONTEXT = tensor("question", ["a"]), tensor("context", ["c"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "inputs: must be a list of objects"),
        (body(), "inputs: must be a list of objects"),
        (body(1), "inputs: must be a list of objects"),
        (body({"datatype": "BYTES"}), "has no name"),
        (body(QUESTION), "context is missing"),
        (body(QUESTION, QUESTION, CONTEXT), "there are two of question"),
        (body(QUESTION, CONTEXT, tensor("x", ["a"])), "the model has no x; it has question, context"),
        (body(QUESTION, tensor("context", ["c", "d"])), "question has 1, context has 2 rows"),
        (body(tensor("question", []), tensor("context", [])), "0 rows; send 1 to 1024"),
        (body(tensor("question", ["a"] * 1025), tensor("context", ["a"] * 1025)), "1025 rows"),
        (body(tensor("question", ["a"], [2]), CONTEXT), "1 elements, but its shape has 2"),
        (body(tensor("question", ["a"], [1, 1, 1]), CONTEXT), r"must be [N] or [N, 1]"),
        (body(tensor("question", ["a"], []), CONTEXT), "a list of 1 to 8 sizes"),
        (body(tensor("question", ["a"], [-1]), CONTEXT), "a list of 1 to 8 sizes"),
        (body(tensor("question", ["a"], [True]), CONTEXT), "a list of 1 to 8 sizes"),
        (body(tensor("question", ["a"], [1.0]), CONTEXT), "a list of 1 to 8 sizes"),
        (body(tensor("question", ["a"], "1"), CONTEXT), "a list of 1 to 8 sizes"),
        (body(tensor("question", ["a"], [2**31 - 1] * 8), CONTEXT), "its shape has"),
        (body(tensor("question", [1]), CONTEXT), "elements of BYTES are texts"),
        (body(tensor("question", ["\ud800"]), CONTEXT), "a text is not Unicode"),
        (body(tensor("question", [None]), CONTEXT), "elements of BYTES are texts"),
        (body({**QUESTION, "data": "a"}, CONTEXT), "data: must be a list"),
        (body(tensor("question", [1], datatype="INT64"), CONTEXT), "datatype: must be BYTES"),
        (body(tensor("question", [1], datatype="TEXT"), CONTEXT), "'TEXT' is none of BYTES, BOOL"),
        (body({**QUESTION, "datatype": {}}, CONTEXT), "'{}' is none of BYTES, BOOL"),
        (body(tensor("question", [True], datatype="INT64"), CONTEXT), "an element is not INT64"),
        (body(tensor("question", [1], datatype="BOOL"), CONTEXT), "an element is not BOOL"),
        (body(tensor("question", [300], datatype="UINT8"), CONTEXT), "an element is not UINT8"),
        (body(tensor("question", [10**400], datatype="FP32"), CONTEXT), "an element is not FP32"),
        (body(QUESTION, CONTEXT, id=7), "id: must be text"),
        (body(QUESTION, CONTEXT, outputs=[1]), "outputs: must be a list of objects"),
        (body(QUESTION, CONTEXT, outputs=[{}]), "an output has no name"),
        (body({**QUESTION, "parameters": {"binary_data_size": 5}}, CONTEXT), "not the size of a part of the body"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(content: bytes, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        protocol.decode(content, None, TEXTS)
    assert message in str(refused.value)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "message"),
    [
        (["no base64!"], [1], "BYTES", "is not base64"),
        ([1] * 12, [1, 2, 2, 3, 1], "UINT8", "UINT8 images are [N, height, width, 3]"),
        ([1] * 4, [1, 2, 2, 1], "UINT8", "UINT8 images are [N, height, width, 3]"),
        ([], [1, 0, 2, 3], "UINT8", "UINT8 images are [N, height, width, 3]"),
        ([1] * 12, [1, 2, 2, 3], "INT32", "must be BYTES, or UINT8"),
    ],
)
def test_a_wrong_image_is_told_what_is_wrong(data: Any, shape: Any, datatype: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        protocol.decode(body(tensor("image", data, shape, datatype)), None, IMAGES)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("length", "change", "message"),
    [
        ("-1", 0, "is not the length of a part"),
        ("x", 0, "is not the length of a part"),
        ("999999", 0, "is not the length of a part"),
        ("²", 0, "is not the length of a part"),
        (None, 1, "1 bytes follow the last binary tensor"),
        (None, -1, "not the size of a part of the body"),
    ],
)
def test_a_wrong_binary_tensor_is_told(length: str | None, change: int, message: str) -> None:
    binary = b"\x01\x00\x00\x00a"
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
        for name in TEXTS
    ]
    header = json.dumps({"inputs": tensors}).encode()
    content = header + binary * 2
    assert protocol.decode(content, str(len(header)), TEXTS).rows[0]["context"] == "a"
    content = content[:change] if change < 0 else content + b"x" * change
    with pytest.raises(RequestError, match=message):
        protocol.decode(content, length or str(len(header)), TEXTS)
    for part in (b"\x02\x00\x00\x00a", b"\xff\xff\xff\xffa", b"\x01\x00\x00\x00\xff"):
        with pytest.raises(RequestError, match=r"elements of its shape|not Unicode"):
            protocol.decode(header + part + binary, str(len(header)), TEXTS)


PREDICTIONS = [
    {"id": "1", "prediction": "ä", "start": None, "score": 0.5, "top": ["x", "y"]},
    {"id": "2", "prediction": "", "start": 3, "score": -1.0, "top": ["y", "x"]},
]


def test_answers_are_tensors() -> None:
    request = protocol.decode(body(QUESTION, CONTEXT, id="i"), None, TEXTS)
    content, length = protocol.encode(request, PREDICTIONS, OUTPUTS, "mine", "2")
    assert length is None
    answer = json.loads(content)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("mine", "2", "i")
    assert answer["outputs"] == [
        tensor("prediction", ["ä", ""]),
        tensor("start", [-1, 3], datatype="INT64"),
        tensor("score", [0.5, -1.0], datatype="FP64"),
        tensor("top", ["x", "y", "y", "x"], [2, 2]),
    ]


def test_an_answer_has_what_was_asked_for_also_in_binary() -> None:
    outputs = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "prediction"}]
    request = protocol.decode(body(QUESTION, CONTEXT, outputs=outputs), None, TEXTS)
    content, length = protocol.encode(request, PREDICTIONS, OUTPUTS, "mine", "2")
    assert length is not None
    score, prediction = json.loads(content[:length])["outputs"]
    assert (score["parameters"], prediction["data"]) == ({"binary_data_size": 16}, ["ä", ""])
    assert np.frombuffer(content[length:]).tolist() == [0.5, -1.0]
    everything = protocol.decode(body(QUESTION, CONTEXT, parameters={"binary_data_output": True}), None, TEXTS)
    content, length = protocol.encode(everything, PREDICTIONS, OUTPUTS, "mine", "2")
    assert length is not None
    assert content[length:].startswith(b"\x02\x00\x00\x00\xc3\xa4\x00\x00\x00\x00")
    wrong = protocol.decode(body(QUESTION, CONTEXT, outputs=[{"name": "absent"}]), None, TEXTS)
    with pytest.raises(RequestError, match="the model has no absent; it has prediction, start, score, top"):
        protocol.encode(wrong, PREDICTIONS, OUTPUTS, "mine", "2")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "datatype", "shape", "data", "parameters", "x"]),
                children,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([None, "0", "5", "30"]),
)
def test_any_json_is_a_request_or_an_error(value: Any, length: str | None) -> None:
    with contextlib.suppress(RequestError):
        assert protocol.decode(json.dumps(value).encode(), length, TEXTS).rows


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=5))
def test_texts_survive_the_binary_form(pairs: list[tuple[str, str]]) -> None:
    pairs = [tuple(text.encode("utf-8", "replace").decode() for text in pair) for pair in pairs]  # no lone surrogates
    contents, tensors = [], []
    for position, name in enumerate(TEXTS):
        content = b"".join(
            len(part).to_bytes(4, "little") + part for part in (pair[position].encode() for pair in pairs)
        )
        contents.append(content)
        tensors.append(
            {"name": name, "datatype": "BYTES", "shape": [len(pairs)], "parameters": {"binary_data_size": len(content)}}
        )
    header = json.dumps({"inputs": tensors}).encode()
    rows = protocol.decode(header + b"".join(contents), str(len(header)), TEXTS).rows
    assert [(row["question"], row["context"]) for row in rows] == pairs
