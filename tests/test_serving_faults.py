"""What a server survives: damaged requests, and more of them than it can answer."""

import base64
import json
import random
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image
from tests.test_serving import QUESTION, Serve, close, end, folders, serve, trained

__all__ = ["folders", "serve", "trained"]  # fixtures
pytest.importorskip("prometheus_client")


def damaged(content: bytes, generator: random.Random) -> bytes:
    """A request with some bytes changed, inserted, removed or repeated, or with one value replaced."""
    if generator.random() < 0.4:
        value = json.loads(content)
        replace_value(value, generator)
        return json.dumps(value).encode()
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        start = generator.randrange(len(data) or 1)
        part = generator.randbytes(generator.choice((0, 1, 4, 64)))
        data[start : start + generator.choice((0, 1, 4, 64))] = generator.choice((part, bytes(data[start:]) * 2, b""))
    return bytes(data)


def replace_value(value: Any, generator: random.Random) -> None:
    """Replace one value somewhere in lists and objects."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = generator.choice(keys)
    if isinstance(value[key], dict | list) and generator.random() < 0.7:
        return replace_value(value[key], generator)
    choices = [None, True, -1, 1e300, 2**70, "", "\ud800", "x" * 5000, [], {}, [[]], {"a": [1]}, "\0", "∞"]
    value[key] = generator.choice(choices)
    if isinstance(value, dict) and generator.random() < 0.2:
        value[generator.choice(["", "id", "parameters", "\ud800"])] = value.pop(key)
    return None


def test_damaged_requests_are_answered(trained: Callable[[str], Path], serve: Serve) -> None:
    picture = BytesIO()
    Image.new("RGB", (40, 40), "red").save(picture, "PNG")
    image = base64.b64encode(picture.getvalue()).decode()
    tensors = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text], "parameters": {}}
        for name, text in QUESTION.items()
    ]
    cases = {
        "questions": [QUESTION, [QUESTION, {"id": "b", **QUESTION}], {"id": "1", "inputs": tensors, "outputs": []}],
        "images": [
            {"image": image},
            [{"image": image}] * 2,
            {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}]},
        ],
    }
    generator, counts = random.Random(1), dict.fromkeys((200, 400), 0)
    for task, bodies in cases.items():
        server = serve(trained(task), "--max-body", "0.2", "--log-format", "none")
        session = requests.Session()
        for number in range(300):
            value = bodies[number % 3]
            path = f"/v2/models/{task}/infer" if "inputs" in value else "/predict"
            content = damaged(json.dumps(value).encode(), generator)
            headers = {"Inference-Header-Content-Length": str(generator.choice((0, 10, len(content))))}
            options = {"headers": headers} if number % 7 == 0 else {}
            answer = session.post(server.url + path, content, timeout=60, **options)
            assert answer.status_code in (200, 400, 413), (content, answer.text)
            counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                assert isinstance(answer.json()["error"], str), content
        whole = session.post(f"{server.url}/predict", json=bodies[0], timeout=60)
        assert whole.status_code == 200
        assert end(server) == 0
        assert "Traceback" not in server.log.read_text()
    assert min(counts[200], counts[400]) > 50, counts


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_an_overload_is_refused_and_costs_no_memory(seconds: int, trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), "--queue", "16", "--batch-size", "4", "--log-format", "none")
    expected = server.post("/predict", QUESTION).json()
    statuses: dict[int, int] = {}
    problems: list[Any] = []
    memory: list[int] = []
    stop = time.monotonic() + seconds

    def ask() -> None:
        session = requests.Session()
        while time.monotonic() < stop:
            answer = session.post(f"{server.url}/predict", json=[QUESTION] * 8, timeout=60)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 503:
                time.sleep(0.02)
                if answer.headers["Retry-After"] != "1":
                    problems.append(answer.headers)
            elif answer.status_code != 200 or not all(close({**row, "id": "1"}, expected) for row in answer.json()):
                problems.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(24)]  # 192 rows, of which 16 may wait
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(psutil.Process(server.process.pid).memory_info().rss)
        assert server.counter("inference_queue_rows") <= 16
        time.sleep(0.3)
    assert not problems
    assert set(statuses) == {200, 503}, statuses
    assert min(statuses.values()) > 10, statuses
    middle = memory[len(memory) // 3]  # after all buffers have been allocated once
    assert memory[-1] - middle < 32 * 2**20, memory
    assert server.counter("inference_queue_rows") == 0
    assert close(server.post("/predict", QUESTION).json(), expected)
    assert end(server) == 0
