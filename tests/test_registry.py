"""`python -m runs register`: a real MLflow, its store a SQLite file, and once its server."""

import errno
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import requests
from tests import made_runs
from tests.conftest import Run

from config import files
from config.errors import InputError, ResourceError, UnreachableError
from runs import folder as folders
from runs import lineage, model_card, registry

mlflow = pytest.importorskip("mlflow")

Store = Callable[[Path], str]


def made(folder: Path, seed: int = 1, **verdicts: str) -> Path:
    """A finished run with a model folder, and verdicts of gates."""
    made_runs.write(folder, made_runs.questions(60, 0.6, seed))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(bytes([seed]) * 1000)
    for gate, status in verdicts.items():
        (folder / gate).mkdir()
        (folder / gate / "verdict.json").write_text(json.dumps({"status": status}))
        (folder / gate / "report.html").write_text("evidence")
    return folder


def client(server: str) -> Any:
    return mlflow.MlflowClient(tracking_uri=server, registry_uri=server)


def registered(run: Run, *arguments: str | Path) -> Any:
    done = run("-m", "runs", "register", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_is_registered_with_its_card_and_lineage(run: Run, tmp_path: Path) -> None:
    folder, server = made(tmp_path / "a", quality="passed", explain="warned"), f"sqlite:///{tmp_path}/m/mlflow.db"
    found = registered(run, folder, "--server", server, "--licence", "MIT", "--use", "Answers about ships.")
    assert found == {
        "name": "question_answering-squad_sample",
        "version": "1",
        "aliases": ["candidate"],
        "new": True,
        "reason": "",
    }
    version = client(server).get_model_version(found["name"], "1")
    assert version.tags["model_sha256"] == lineage.folder_digest(folder / "model")
    assert version.tags["data_val"] == made_runs.MARK
    assert (version.tags["quality"], version.tags["explain"]) == ("passed", "warned")
    back = Path(
        mlflow.artifacts.download_artifacts(run_id=version.run_id, tracking_uri=server, dst_path=str(tmp_path / "back"))
    )
    for name in ("config.json", "model.safetensors"):
        assert (back / "model" / name).read_bytes() == (folder / "model" / name).read_bytes()
    assert (back / "run.json").read_bytes() == (folder / "run.json").read_bytes()
    assert (back / "explain" / "report.html").read_text() == "evidence"
    text = (back / "model" / "README.md").read_text()
    assert "Answers about ships." in text
    assert "MIT" in text
    metrics = folders.read_record(folder)["metrics"]
    assert f"| val_f1 | {metrics['val_f1']:.5g} | " in text
    assert "- Explanations: warned" in text
    assert version.tags["model_sha256"] in text
    logged = client(server).get_run(version.run_id).data.metrics
    assert logged == pytest.approx(metrics)


def test_aliases_move_and_go_back(run: Run, tmp_path: Path, mlflow_store: Store) -> None:
    server = ["--server", mlflow_store(tmp_path / "mlflow.db"), "--name", "it's mine"]
    one, two, three = (made(tmp_path / name, seed) for seed, name in enumerate("abc", 1))
    champion = ("--champion", "--justification", "a test")
    assert registered(run, one, *champion, *server)["aliases"] == ["champion"]
    assert registered(run, two, *server)["aliases"] == ["candidate"]
    assert registered(run, two, *champion, *server) == {
        "name": "it's mine",
        "version": "2",
        "aliases": ["champion"],
        "new": False,
        "reason": "",
    }
    assert registered(run, one, *server)["aliases"] == ["previous", "candidate"]
    assert registered(run, three, *champion, *server)["version"] == "3"
    back = registered(run, "--rollback", *server)
    assert (back["version"], back["aliases"]) == ("2", ["champion"])
    known = client(server[1]).get_registered_model("it's mine").aliases
    assert {name: str(version) for name, version in known.items()} == {
        "champion": "2",
        "previous": "3",
        "candidate": "1",
    }
    assert len(client(server[1]).search_model_versions('name="it\'s mine"')) == 3


@pytest.mark.parametrize(
    ("gate", "status"), [("quality", "failed"), ("quality", "unevaluated"), ("explain", "inconclusive")]
)
def test_what_a_gate_failed_is_not_registered(
    gate: str, status: str, run: Run, tmp_path: Path, mlflow_store: Store
) -> None:
    folder, server = made(tmp_path / "a", **{gate: status}), f"sqlite:///{tmp_path}/mlflow.db"
    done = run("-m", "runs", "register", str(folder), "--server", server)
    assert (done.returncode, status in done.stderr, "report.html" in done.stderr) == (2, True, True)
    assert not (tmp_path / "mlflow.db").exists()
    mlflow_store(tmp_path / "mlflow.db")
    assert registered(run, folder, "--server", server, "--despite-gates")["version"] == "1"


def test_what_cannot_be_registered(run: Run, tmp_path: Path, mlflow_store: Store) -> None:
    server = ("--server", mlflow_store(tmp_path / "mlflow.db"))
    bare = made_runs.write(tmp_path / "bare", made_runs.questions(10, 0.5, 1))
    running = made(tmp_path / "running")
    files.write_json(running / "run.json", folders.read_record(running) | {"status": "failed"})
    for arguments, said in (
        ([bare, *server], "no model/"),
        ([running, *server], "not finished"),
        ([tmp_path / "none", *server], "no such folder"),
        ([*server], "name a run"),
        (["--rollback", *server], "--name"),
        (["--rollback", "--name", "x", *server], "no previous champion"),
    ):
        done = run("-m", "runs", "register", *map(str, arguments))
        assert (done.returncode, said in done.stderr) == (2, True), (said, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["a text", "a half"])
def test_a_file_that_is_no_complete_store_stays(content: str, tmp_path: Path, mlflow_store: Store) -> None:
    path = tmp_path / "notes.db"
    if content == "a text":
        path.write_text("somebody's text\n" * 100)
    else:
        mlflow_store(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = path.read_bytes()
    with pytest.raises(
        InputError, match=r"notes\.db is no complete database of MLflow .*name another one with --server"
    ):
        registry.find_champion("ships", f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_server_and_one_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    done = run("-m", "runs", "register", str(folder), "--server", address)
    assert (done.returncode, "does not answer" in done.stderr) == (7, True), done.stderr
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/s.db", "--artifacts-destination", str(tmp_path / "files")]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *store,
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                assert server.poll() is None
                time.sleep(0.3)
        assert registered(run, folder, "--server", address, "--champion", "--floor", "1")["aliases"] == ["champion"]
        version = client(address).get_model_version_by_alias("question_answering-squad_sample", "champion")
        assert version.tags["model_sha256"] == lineage.folder_digest(folder / "model")
    finally:
        server.terminate()
        server.wait(30)


def test_a_card_lives_with_any_record(tmp_path: Path) -> None:
    for strange in ({}, {"metrics": 3, "data": {"train": 4}, "config": {"task": []}, "explain": "x"}):
        assert model_card.format_card(tmp_path, {"status": "finished", **strange}).startswith("# a model on its data")


class KubeflowRegistry(BaseHTTPRequestHandler):
    """As much of a Kubeflow Model Registry's REST API (v1) as registering asks for."""

    known: dict[str, list[dict[str, Any]]]

    def do_GET(self) -> None:
        path = urlparse(self.path)
        kind, asked = path.path.rsplit("/", 1)[1], {name: each[0] for name, each in parse_qs(path.query).items()}
        if kind == "registered_models":
            found = self.known["registered_models"]
            self._say({"items": found, "size": len(found), "pageSize": 1, "nextPageToken": ""})
            return
        parent = asked.get("parentResourceId")
        for each in self.known[f"{kind}s"]:
            if each["name"] == asked["name"] and parent in (None, each.get("registeredModelId")):
                self._say(each)
                return
        self._say({"code": "404", "message": "no such thing"}, 404)

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = urlparse(self.path).path.rsplit("/", 1)[1]
        made = content | {
            "id": str(len(self.known[kind]) + 1),
            "createTimeSinceEpoch": "1",
            "lastUpdateTimeSinceEpoch": "1",
        }
        self.known[kind].append(made)
        self._say(made, 201)

    def _say(self, content: Any, code: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.mark.slow
def test_a_kubeflow_model_registry_is_told(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("model_registry")
    known: dict[str, list[dict[str, Any]]] = {"registered_models": [], "model_versions": [], "artifacts": []}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (KubeflowRegistry,), {"known": known}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder, address = made(tmp_path / "a"), f"http://127.0.0.1:{server.server_address[1]}"
    arguments = (folder, "--server", f"sqlite:///{tmp_path}/mlflow.db", "--kubeflow", address, "--name", "ships")
    assert registered(run, *arguments)["version"] == "1"
    assert [each["name"] for each in known["registered_models"]] == ["ships"]
    (version,) = known["model_versions"]
    assert (version["name"], version["registeredModelId"]) == ("1", "1")
    assert version["customProperties"]["model_sha256"]["string_value"] == lineage.folder_digest(folder / "model")
    assert "## Metrics" in version["description"]
    (artifact,) = known["artifacts"]
    files = Path(urlparse(artifact["uri"]).path)
    assert (files / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()
    registered(run, *arguments)  # it is there already
    assert len(known["model_versions"]) == 1
    server.shutdown()
    server.server_close()
    done = run("-m", "runs", "register", *map(str, arguments))
    assert (done.returncode, "does not answer" in done.stderr) == (7, True), done.stderr


@pytest.mark.slow
def test_only_the_version_that_was_compared_with_is_replaced(run: Run, tmp_path: Path) -> None:
    """Two pipelines at a time, and a rollback: neither may put a model where nobody compared it."""
    more = ("--server", f"sqlite:///{tmp_path}/m/mlflow.db", "--name", "ships")
    one, two, three = (made(tmp_path / str(number), seed=number) for number in (1, 2, 3))

    def aliases(folder: Path, instead: str) -> list[str]:
        judged = ("--floor", "1") if instead == "none" else ()
        return list(registered(run, folder, *more, "--champion", "--instead-of", instead, *judged)["aliases"])

    assert aliases(one, "none") == ["champion"]
    assert aliases(two, "none") == ["candidate"]  # another was first
    assert aliases(two, "1") == ["champion"]
    assert aliases(three, "1") == ["candidate"]
    assert aliases(two, "1") == ["champion"]  # it is already
    assert run("-m", "runs", "register", "--rollback", *more).returncode == 0
    assert "champion" not in aliases(two, "1")  # it was taken down, and stays so until a person says otherwise
    assert "champion" in registered(run, two, *more, "--champion", "--floor", "1")["aliases"]


@pytest.mark.slow
def test_a_champions_run_can_be_had_from_anywhere(run: Run, tmp_path: Path) -> None:
    """What the pipeline compares with: the folder it was registered from may be gone, or on another machine."""
    server = f"sqlite:///{tmp_path}/m/mlflow.db"
    asked = ("-m", "runs", "champion", "ships", "--server", server, "--folder", str(tmp_path / "back"))
    assert json.loads(run(*asked, "--json").stdout) is None
    assert "has no champion" in run(*asked).stdout
    for number in (1, 2):
        folder = made(tmp_path / str(number), seed=number, quality="passed")
        (folder / "quality" / "sample.parquet").write_bytes(b"reference")
        registered(run, folder, "--server", server, "--name", "ships", "--champion", "--floor", "1")
        found = json.loads(run(*asked, "--json").stdout)
        assert (found["version"], found["run"], found["data"]["val"]) == (str(number), str(folder), made_runs.MARK)
        for name in ("run.json", "predictions.jsonl", "model/model.safetensors", "quality/sample.parquet"):
            assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    assert f"version 2, from {tmp_path / '2'}" in run(*asked).stdout
    assert not list(tmp_path.glob(".back*"))


def test_keys_of_tags_keep_to_mlflows_limit():
    assert registry.tag_key("task's code", "a b") == "task_s_code_a_b"
    key = registry.tag_key("task's code", "/x" * 200 + "/weather")
    assert len(key) == 250
    assert key.startswith("task_s_code_")
    assert key.endswith("_x_weather")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database or disk is full"), 8),
        (mlflow.exceptions.MlflowException("(sqlite3.OperationalError) disk I/O error"), 8),
        (OSError(errno.ENOSPC, "No space left on device", "mlflow.db"), 8),
        (PermissionError(errno.EACCES, "Permission denied", "artifacts"), 2),
        (mlflow.exceptions.MlflowException("no such version"), 2),
        (mlflow.exceptions.MlflowException("Max retries exceeded"), 7),
        (requests.exceptions.ConnectionError("refused"), 7),
    ],
    ids=lambda value: type(value).__name__ + "-" + str(value).replace(" ", "-"),
)
def test_errors_of_a_store_have_true_exit_codes(error: Exception, code: int, tmp_path: Path) -> None:
    """SQLite's errors reach the client as texts in MLflow's own exception."""
    with (
        pytest.raises((InputError, ResourceError, UnreachableError)) as caught,
        registry._client(f"sqlite:///{tmp_path}/mlflow.db"),
    ):
        raise error
    assert caught.value.exit_code == code
    assert f"MLflow at sqlite:///{tmp_path}/mlflow.db" in str(caught.value)
