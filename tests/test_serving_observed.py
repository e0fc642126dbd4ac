"""What a server shows of itself: lines about requests, metrics, the dashboard, and a sample of inputs and answers."""

import base64
import errno
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import tests.test_serving as servers
from tests.conftest import ROOT, Run
from tests.test_pyfunc import inputs
from tests.test_serving import QUESTION, Process, Serve, end

from config.errors import InputError
from serving import input_log
from serving.input_log import InputLog
from serving.request_log import RequestInfo, log_request

folders, trained, serve = servers.folders, servers.trained, servers.serve
Trained = Callable[[str], Path]
TENSORS = {
    "inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in QUESTION.items()]
}


def lines(server: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith('{"time"')]


def logged(server: Process, count: int) -> list[dict[str, Any]]:
    """The lines about requests, once there are so many: a line is written after the answer."""
    deadline = time.monotonic() + 20
    while len(found := lines(server)) < count:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)
    return found


def test_a_line_about_each_request(trained: Trained, serve: Serve) -> None:
    server = serve(trained("questions"), "--log-format", "json", "--name", "mine")
    answers = [
        server.post("/predict", [QUESTION, QUESTION], headers={"X-Request-Id": "a-1"}),
        server.post("/v2/models/mine/infer", {**TENSORS, "id": "b-2"}),
        server.post("/v2/models/mine/infer", {**TENSORS, "id": "b-3"}, headers={"X-Request-Id": "c-3"}),
        server.post("/predict", {"question": 1}, headers={"X-Request-Id": "no id"}),
        requests.request("BREW", f"{server.url}/tea%20pot?token=secret", timeout=10),
        requests.put(f"{server.url}/predict", timeout=10),
    ]
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    found = logged(server, 7)
    assert [row["status"] for row in found] == [200, 200, 200, 400, 404, 405, 499]
    assert [row["rows"] for row in found] == [2, 1, 1, 0, 0, 0, 0]
    assert [row["path"] for row in found[:5]] == ["/predict", *["/v2/models/mine/infer"] * 2, "/predict", "/tea%20pot"]
    assert [row["method"] for row in found] == ["POST"] * 4 + ["other", "PUT", "POST"]
    assert [row["id"] for row in found[:6]] == [answer.headers["X-Request-Id"] for answer in answers]
    assert [row["id"] for row in found[:3]] == ["a-1", "b-2", "c-3"]
    assert len({row["id"] for row in found}) == 7
    assert all(0 <= row["queue_seconds"] <= row["seconds"] for row in found[:3])
    version = requests.get(f"{server.url}/v2/models/mine", timeout=10).json()["versions"][0]
    assert {(row["model"], row["version"]) for row in found[:3]} == {("mine", version)}
    assert found[3]["error"] == "input 1: question must be text"
    requests.get(f"{server.url}/v2/models/mine/ready", timeout=10)
    metrics = requests.get(f"{server.url}/metrics", timeout=10).text
    for labels in (
        'handler="/v2/models/{name}/infer",method="POST",status="200"} 2.0',
        'handler="none",method="other",status="404"} 1.0',
        'handler="/predict",method="PUT",status="405"} 1.0',
        'handler="/predict",method="POST",status="499"} 1.0',
    ):
        assert f"http_requests_total{{{labels}" in metrics
    assert f'model_info{{name="mine",task="question_answering",version="{version}"}} 1.0' in metrics
    assert end(server) == 0
    assert len(lines(server)) == 8  # that of the model's metadata; none of probes and /metrics
    text = server.log.read_text()
    assert "secret" not in text
    assert "Traceback" not in text


def test_a_line_is_one_line_of_words(trained: Trained, serve: Serve) -> None:
    server = serve(trained("questions"))
    requests.get(f"{server.url}/a%0Aid=3%22", timeout=10)
    server.post("/predict", {"a b\n": 1}, headers={"X-Request-Id": "id=4"})
    assert end(server) == 0
    first, second = (line for line in server.log.read_text().splitlines() if " status=" in line)
    assert re.fullmatch(
        r"\S+Z status=404 method=GET path=/a%0Aid=3%22 rows=0 seconds=[\d.e-]+ id=[0-9a-f]{32}", first
    ), first
    assert ' id=id=4 error="input 1: there is no ' in second


def test_a_server_without_lines(trained: Trained, serve: Serve) -> None:
    server = serve(trained("questions"), "--log-format", "none")
    assert server.post("/predict", QUESTION).status_code == 200
    assert end(server) == 0
    assert "status=" not in server.log.read_text()


def test_a_line_that_nobody_reads_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr("sys.stdout", os.fdopen(writer, "w"))
    log_request(request(1), "text")
    assert os.read(reader, 1000).endswith(b" id=1\n")
    os.close(reader)
    log_request(request(1), "text")
    os.close(writer)
    log_request(request(1), "text")


def test_every_metric_of_the_dashboard_is_exported(trained: Trained, serve: Serve, tmp_path: Path) -> None:
    server = serve(trained("questions"), "--log-inputs", str(tmp_path / "inputs"))
    assert server.post("/predict", QUESTION).status_code == 200
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    labels: dict[str, set[str]] = {}
    for name, part in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(name, {"job", "instance"}).update(re.findall(r'(\w+)="', part))
    value = json.loads((ROOT / "deploy/grafana/serving.json").read_text())
    assert {panel["datasource"]["uid"] for panel in value["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in value["panels"]}) == len(value["panels"])
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in value["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    variables = {entry["name"] for entry in value["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    expressions = [target["expr"] for panel in value["panels"] for target in panel["targets"]]
    expressions += [entry["expr"] for entry in value["annotations"]["list"]]
    used = set()
    for expression in expressions:
        assert set(re.findall(r"\$(\w+)", expression)) <= {"job", "instance", "__rate_interval"}
        selectors = re.findall(r"(\w+)\{([^}]*)\}", expression)
        assert selectors, expression
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        for name, selector in selectors:
            used.add(name)
            assert name in labels, f"{expression}: the server has no {name}"
            assert set(re.findall(r"(\w+)[=!]~?\"", selector)) | grouped <= labels[name], expression
    own = {name for name in labels if name.startswith(("http_", "inference_", "model_"))}
    known = {name for name in own if not name.endswith(("_sum", "_count"))} | {"inference_batch_size_sum"}
    assert known <= used, f"no panel shows {known - used}"
    assert 'handler=~"/predict|.*/infer"' in expressions[2]


@pytest.mark.parametrize("task", ["questions", "images"])
def test_inputs_and_answers_are_logged(task: str, trained: Trained, serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    server = serve(trained(task), "--log-inputs", str(folder), "--log-sample", "1", "--log-max-mib", "64")
    assert f"100 % of the requests are written to {folder}, 64 MiB at most" in server.log.read_text()
    _, frame = inputs(task, tmp_path)
    rows = [
        {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]
    answer = server.post("/predict", rows, headers={"X-Request-Id": "a-1"})
    assert server.post("/predict", {"wrong": 1}).status_code == 400
    assert end(server) == 0
    assert folder.stat().st_mode & 0o777 == 0o700
    (part,) = folder.iterdir()
    found = [json.loads(line) for line in part.read_text().splitlines()]
    assert [row["prediction"] for row in found] == answer.json()
    assert [row["inputs"] for row in found] == [
        {key: value for key, value in row.items() if key != "id"} for row in rows
    ]
    assert [(row["id"], row["row"]) for row in found] == [("a-1", number) for number in range(len(rows))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log-sample", "0.5"], "--log-sample 0.5: has no effect without --log-inputs FOLDER"),
        (["--log-max-mib", "5"], "--log-max-mib 5: has no effect without --log-inputs FOLDER"),
        (["--log-inputs", "a", "--log-sample", "2"], "--log-sample 2: must be more than 0 and at most 1"),
        (["--log-inputs", "a", "--log-max-mib", "nan"], "--log-max-mib nan: must be 1 or more"),
        (["--log-inputs", "file/a"], "--log-inputs file/a: cannot be written: Not a directory"),
        (["--log-inputs", "nothing://a"], "cannot open nothing://a: Protocol not known: nothing"),
    ],
)
def test_inputs_that_cannot_be_logged(options: list[str], message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = run("-m", "serving", "serve", "run=empty", *options)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def request(number: int, size: int = 10) -> RequestInfo:
    return RequestInfo(
        str(number), "POST", "/predict", status=200, rows=[{"id": "1", "text": "x" * size}],
        predictions=[{"id": "1", "prediction": "a"}],
    )  # fmt: skip


@pytest.fixture
def counts() -> dict[str, int]:
    return {"written": 0, "dropped": 0}


@pytest.fixture
def opened(counts: dict[str, int]) -> Iterator[Callable[..., InputLog]]:
    logs = []

    def count(result: str, rows: int) -> None:
        counts[result] += rows

    def open_log(folder: Any, sample: float = 1.0, max_bytes: int = 2**30) -> InputLog:
        log = InputLog(str(folder), sample, max_bytes, seed=1)
        log.on_rows = count
        logs.append(log)
        return log

    yield open_log
    for log in logs:
        log.close()


def test_a_share_of_the_requests(tmp_path: Path, opened: Any, counts: dict[str, int]) -> None:
    log = opened(tmp_path, sample=0.1)
    for number in range(2000):
        log.add(request(number))
    log.add(RequestInfo("1", "POST", "/predict", rows=[{"id": "1", "text": "no answer"}]))
    log.close()
    assert counts["dropped"] == 0
    assert 140 < counts["written"] < 260
    (part,) = tmp_path.iterdir()
    ids = [int(json.loads(line)["id"]) for line in part.read_text().splitlines()]
    assert ids == sorted(set(ids))
    assert len(ids) == counts["written"]


def test_the_oldest_parts_make_room(tmp_path: Path, opened: Any, counts: dict[str, int]) -> None:
    other = tmp_path / "20200101-notes.jsonl"
    other.write_text("x" * 20_000)
    earlier = tmp_path / "20200101T000000000000Z-host-1.jsonl"
    earlier.write_text("x" * 9_000)
    log = opened(tmp_path, max_bytes=10_000)
    for number in range(200):
        log.add(request(number, 200))
    log.add(request(200, 20_000))
    log.close()
    assert counts == {"written": 200, "dropped": 1}
    assert not earlier.exists()
    assert len(other.read_text()) == 20_000
    parts = sorted(path for path in tmp_path.iterdir() if path != other)
    assert len(parts) > 2
    assert sum(path.stat().st_size for path in parts) <= 10_000
    last = [int(json.loads(line)["id"]) for path in parts for line in path.read_text().splitlines()]
    assert last == list(range(last[0], 200))


def test_a_full_disk_costs_no_request(
    tmp_path: Path, opened: Any, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    write = input_log.atomic_write
    state = {"full": True}

    def write_or_fail(path: Path) -> Any:
        if state["full"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path)

    monkeypatch.setattr(input_log, "atomic_write", write_or_fail)
    monkeypatch.setattr(input_log, "PART_SECONDS", 0.01)
    log = opened(tmp_path)
    log.add(request(1))
    log.add(request(2))
    wait_until(lambda: counts["dropped"] == 2)
    state["full"] = False
    log.add(request(3))
    wait_until(lambda: counts["written"] == 1)
    log.close()
    assert counts == {"written": 1, "dropped": 2}
    assert caplog.text.count("inputs and answers cannot be logged") == 1
    assert "No space left on device" in caplog.text


def test_a_disk_that_hangs_costs_no_request_and_no_memory(
    tmp_path: Path, opened: Any, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free, busy = threading.Event(), threading.Event()
    write = input_log.atomic_write

    def hang(path: Path) -> Any:
        busy.set()
        assert free.wait(30)
        return write(path)

    monkeypatch.setattr(input_log, "atomic_write", hang)
    monkeypatch.setattr(input_log, "PENDING_BYTES", 1000)
    log = opened(tmp_path, max_bytes=80)  # a row fills a part
    log._max_bytes = 2**20
    log.add(request(0, 100))
    assert busy.wait(10)
    for number in range(1, 30):
        log.add(request(number, 100))
    assert counts["dropped"] == 20  # nine wait: 101 bytes each
    log.close(timeout=0.1)
    free.set()
    wait_until(lambda: counts["written"] == 10)


def test_an_object_store(opened: Any, counts: dict[str, int]) -> None:
    import fsspec

    log = opened("memory://bucket/inputs")
    log.add(request(1))
    log.close()
    store = fsspec.filesystem("memory")
    (name,) = store.ls("/bucket/inputs", detail=False)
    assert json.loads(store.cat_file(name))["inputs"] == {"text": "x" * 10}
    assert counts["written"] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        InputLog(str(tmp_path / "a"), 1, 100)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
