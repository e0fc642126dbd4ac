"""`python -m serving serve`: a real server, asked by independent clients, over real sockets, ended by real signals."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from tests.conftest import ROOT, Run
from tests.test_pyfunc import TRAININGS, inputs

pytest.importorskip("prometheus_client")
triton = pytest.importorskip("tritonclient.http")
QUESTION = {"question": "Who wrote the report?", "context": "Maria wrote the report in Lyon in 1999."}


@dataclass
class Process:
    """A server.

    Attributes:
        url: its address.
        process: the process.
        log: what it printed.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def post(self, path: str, value: Any, **options: Any) -> requests.Response:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return requests.post(self.url + path, data=data, timeout=60, **options)

    def counter(self, name: str) -> float:
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


Serve = Callable[..., Process]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("serving")}


@pytest.fixture
def trained(run: Run, folders: dict[str, Path]) -> Callable[[str], Path]:
    """Trains for a task, once, and returns the run folder."""

    def train(task: str) -> Path:
        if task not in folders:
            folder = folders["folder"] / task
            settings = (
                "data.sample.train=40",
                "data.sample.val=8",
                "trainer.max_steps=2",
                "trainer.precision=32-true",
                f"hydra.run.dir={folder}",
            )
            done = run("train.py", *TRAININGS[task], *settings)
            assert done.returncode == 0, done.stderr
            folders[task] = folder
        return folders[task]

    return train


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers; by default one that is ready."""
    processes = []

    def start(folder: Path | str, *options: str, ready: bool = True, source: str = "run") -> Process:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = tmp_path / f"server-{port}.log"
        places = [str(tmp_path)] if (tmp_path / "sitecustomize.py").exists() else []
        paths = os.pathsep.join([*places, str(ROOT / "src")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "serving", "serve", f"{source}={folder}", "--port", str(port), *options]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        server = Process(f"http://127.0.0.1:{port}", process, log)
        processes.append(process)
        wait(server, "/v2/health/ready" if ready else "/v2/health/live")
        return server

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait(server: Process, path: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if requests.get(server.url + path, timeout=10).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())


def end(server: Process, number: int = signal.SIGTERM) -> int:
    server.process.send_signal(number)
    return server.process.wait(60)


def close(first: Any, second: Any) -> bool:
    """Whether two predictions are equal, numbers to the digits that differ between batches of other sizes."""
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= 1e-5 + 1e-4 * abs(second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(close, first, second))
    return bool(first == second)


@pytest.mark.parametrize("task", TRAININGS)
def test_a_server_answers_as_predict(
    task: str, trained: Callable[[str], Path], serve: Serve, run: Run, tmp_path: Path
) -> None:
    folder = trained(task)
    names, frame = inputs(task, tmp_path)
    done = run("-m", "trainers", "predict", f"run={folder}", *names)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    server = serve(folder, "--name", "mine")
    columns = [name for name in frame if name != "id"]
    values = frame.to_dict("records")
    plain = [
        {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in row.items()}
        for row in values
    ]
    # The same batch gives the same digits.
    answer = server.post("/predict", plain)
    assert (answer.status_code, answer.json()) == (200, rows), answer.text
    for row, expected in zip(plain, rows, strict=True):
        assert close(server.post("/predict", row).json(), expected)
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert (client.is_server_live(), client.is_server_ready(), client.is_model_ready("mine")) == (True, True, True)
    metadata = client.get_model_metadata("mine")
    assert [tensor["name"] for tensor in metadata["inputs"]] == columns
    tensors = []
    for name in columns:
        tensor = triton.InferInput(name, [len(values)], "BYTES")
        tensor.set_data_from_numpy(np.array([row[name] for row in values], object))
        tensors.append(tensor)
    for version in ("", metadata["versions"][0]):
        result = client.infer("mine", tensors, version, request_id="7")
        assert result.get_response()["id"] == "7"
        assert {entry["name"]: entry["datatype"] for entry in result.get_response()["outputs"]} == {
            entry["name"]: entry["datatype"] for entry in metadata["outputs"]
        }
        for number, row in enumerate(rows):
            for name in row.keys() - {"id"}:
                value = result.as_numpy(name)[number]
                expected = -1 if row[name] is None else row[name]
                value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                decode = lambda part: part.decode() if isinstance(part, bytes) else part  # noqa: E731
                assert (list(map(decode, value)) if isinstance(value, list) else decode(value)) == expected, name
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'; this server has mine"):
        client.infer("other", tensors)
    with pytest.raises(triton.InferenceServerException, match="there is no version '9' of mine"):
        client.infer("mine", tensors, "9")
    for size in (1, 3):
        done = run("-m", "serving", "replay", server.url, f"run={folder}", f"--batch-size={size}", "--wait=1")
        assert done.returncode == 0, done.stderr
        assert f"{server.url}: 8 answers equal the predictions of {folder}" in done.stdout
    assert end(server) == 0
    assert "Traceback" not in server.log.read_text()


def test_answers_that_differ_are_listed(trained: Callable[[str], Path], serve: Serve, run: Run, tmp_path: Path) -> None:
    folder = trained("questions")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    rows = [json.loads(line) for line in (copy / "predictions.jsonl").read_text().splitlines()]
    rows[1]["prediction"], rows[2]["start"] = "another answer", 99
    rows[3]["score"] += 0.5
    rows[4]["score"] *= 1.0001
    (copy / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = serve(folder, "--queue", "2", "--delay-ms", "0")  # requests that are refused for load are sent again
    command = ("-m", "serving", "replay", server.url, f"run={copy}", "--batch-size=1", "--clients=8", "--wait=1")
    done = run(*command)
    assert done.returncode == 5, done.stderr
    assert "3 of 8 answers differ" in done.stderr
    for number, text in ((1, 'instead of "another answer"'), (2, "instead of 99"), (3, "score ")):
        assert any(
            line.strip().startswith(f"{rows[number]['id']}: ") and text in line for line in done.stderr.splitlines()
        )
    done = run(*command, "--json", "--tolerance=0.2", "--limit=5")
    result = json.loads(done.stdout)
    assert (done.returncode, result["count"], result["different"]) == (5, 5, 2)
    done = run(*command, "--limit=1")
    assert done.returncode == 0, done.stderr
    record = json.loads((copy / "run.json").read_text())
    record["data"]["fingerprints"]["val"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(record))
    done = run(*command)
    assert done.returncode == 2
    assert "its validation data has changed since it was trained" in done.stderr
    assert end(server) == 0
    for url, code, message in (
        (server.url, 7, "the server was not ready within 1 s: "),
        ("ftp://host", 2, "ftp://host: name the server as http://HOST:PORT"),
    ):
        done = run(*command[:3], url, f"run={folder}", "--wait=1")
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr


HIDE_ISOTRAIN = """
import importlib.metadata as metadata

found = metadata.distribution


def distribution(name):
    if name == "isotrain":
        raise metadata.PackageNotFoundError(name)
    return found(name)


metadata.distribution = distribution
"""


def test_a_server_in_the_image_where_isotrain_is_no_installed_package(
    trained: Callable[[str], Path], serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE_ISOTRAIN)
    server = serve(trained("questions"))
    answer = requests.get(f"{server.url}/v2", timeout=10)
    assert answer.json()["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_requests_that_are_wrong(trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("images"), "--max-body", "0.01")
    name = requests.get(f"{server.url}/v2/health/ready", timeout=10).json()
    assert name == {"ready": True}
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/images/versions/1/ready", 404),
        ("DELETE", "/predict", 405),
    ):
        answer = requests.request(method, server.url + path, timeout=10)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    image = base64.b64encode(b"no image").decode()
    for path in ("/predict", "/v2/models/images/infer"):
        for value, status, message in (
            (b"x" * 11_000, 413, "more than 10,485 bytes"),
            (b"\xff", 400, "not JSON"),
            (b"", 400, "not JSON"),
            (
                {"image": image} if path == "/predict" else [],
                400,
                "1 cannot be read as an image" if path == "/predict" else "object",
            ),
        ):
            answer = server.post(path, value)
            assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    for value, message in (
        ([], "0 inputs; send 1 to 1024"),
        ([1], "input 1: must be an object with image"),
        ({}, "input 1: image must be text, the base64 of a file"),
        ({"image": 1}, "input 1: image must be text"),
        ({"image": "?"}, "input 1: image is not base64"),
        ({"image": image, "size": 1}, "there is no 'size'; an input has image, and may have id"),
        ({"image": image, "id": []}, "id must be text or a whole number"),
        ({"image": image, "id": "\ud800"}, "not Unicode"),
    ):
        answer = server.post("/predict", value)
        assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text
    assert server.counter('http_requests_total{handler="/predict",method="POST",status="400"}') == 11
    assert "Traceback" not in server.log.read_text()


def test_concurrent_requests_are_batches_with_everybodys_own_answer(
    trained: Callable[[str], Path], serve: Serve
) -> None:
    server = serve(trained("questions"), "--delay-ms", "500")
    rows = [
        {"id": f"r{number}", "question": "Where?", "context": f"{'Long. ' * (number % 9)}It was in town {number}."}
        for number in range(16)
    ]
    alone = [server.post("/predict", row).json() for row in rows]
    before = server.counter("inference_batch_size_count")
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda row: server.post("/predict", row).json(), rows))
    assert server.counter("inference_batch_size_count") - before < 10
    assert [row["id"] for row in together] == [row["id"] for row in rows]
    assert all(map(close, together, alone))
    assert server.counter("inference_queue_rows") == 0


def test_too_many_requests_are_told_to_come_later(trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), "--queue", "2", "--batch-size", "1")
    expected = server.post("/predict", QUESTION).json()
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: server.post("/predict", QUESTION), range(120)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json() == expected
        else:
            assert answer.headers["Retry-After"] == "1"
            assert answer.json() == {"error": "at most 2 inputs may wait; send it again later"}
    assert server.post("/predict", QUESTION).json() == expected


def test_a_signal_ends_the_server_after_the_requests_under_way(trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), "--delay-ms", "8000", "--batch-size", "32", "--drain", "0.3")
    answer = server.post("/predict", [QUESTION] * 20)  # the next batch waits for as many
    assert "Connection" not in answer.headers
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.post, "/predict", QUESTION) for _ in range(8)]
        deadline = time.monotonic() + 20
        while server.counter("inference_queue_rows") < 8:
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)
        states = set()
        while server.process.poll() is None and len(states) < 2:
            try:
                answer = requests.get(f"{server.url}/v2/health/ready", timeout=10)
                states.add(answer.status_code)
                # So that the next request of a kept connection is sent to another server.
                assert answer.status_code == 200 or answer.headers["Connection"] == "close"
            except requests.ConnectionError:
                break
        assert 503 in states
        assert [answer.result().status_code for answer in answers] == [200] * 8
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()


def test_clients_that_leave_or_are_slow_cost_nothing(trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), "--delay-ms", "5000", "--batch-size", "32", "--timeout", "12")
    server.post("/predict", [QUESTION] * 20)  # the next batch waits for as many
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(QUESTION).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    connections = [socket.create_connection((host, int(port))) for _ in range(5)]
    for connection in connections:
        connection.sendall(head + content)
    deadline = time.monotonic() + 20
    while server.counter("inference_queue_rows") < 5:
        assert time.monotonic() < deadline
    for connection in connections:
        connection.close()
    while server.counter("inference_queue_rows") > 0:
        assert time.monotonic() < deadline
    assert server.post("/predict", QUESTION).status_code == 200
    assert server.counter("inference_batch_size_sum") == 21  # none of them was predicted
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(head + content[:5])
        answer = b""
        while b"}" not in answer and (part := slow.recv(65536)):
            answer += part
    assert b" 504 " in answer.split(b"\r\n")[0]
    assert b"no answer within 12 s" in answer
    assert server.post("/predict", QUESTION).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_loaded(number: int, trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), ready=False)
    assert requests.get(f"{server.url}/v2/health/ready", timeout=10).status_code in (200, 503)
    assert end(server, number) == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run=none"], "run=none: no such folder"),
        (["model"], "name one model by run=FOLDER"),
        (["run=empty"], "run=empty: neither a run nor a model folder"),
        (["run=empty", "--batch-size", "0"], "--batch-size 0: must be from 1 to 4096"),
        (["run=empty", "--port", "70000"], "--port 70000: must be from 0 to 65535"),
        (["run=empty", "--timeout", "nan"], "--timeout nan"),
        (["run=empty", "--name", "a/b"], "--name 'a/b': must not"),
        (["run=empty", "--host", "203.0.113.1"], "--host 203.0.113.1 --port 8080: "),
    ],
)
def test_what_cannot_be_served(options: list[str], message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("-m", "serving", "serve", *options)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        done = run("-m", "serving", "serve", "run=empty", "--port", str(port))
    assert (done.returncode, done.stderr.strip()) == (
        2,
        f"isotrain: --host 127.0.0.1 --port {port}: Address already in use",
    )


def test_requests_made_from_the_description(trained: Callable[[str], Path], serve: Serve, tmp_path: Path) -> None:
    """Schemathesis makes them, and checks that no answer is a server error or other than described."""
    server = serve(trained("questions"), "--name", "mine")
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json", "--max-examples", "25", "--request-timeout", "60",
        "--seed", "1", "--exclude-checks", "negative_data_rejection,positive_data_acceptance", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Selected: 11/11" in done.stdout, done.stdout[-3000:]
    assert "Missing test data" not in done.stdout, done.stdout[-3000:]  # names of models that there are not
    assert "Traceback" not in server.log.read_text()
