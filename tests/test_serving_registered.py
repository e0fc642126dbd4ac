"""`python -m serving serve model=NAME`: a model of a real registry, followed while its versions change and break."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.conftest import Run
from tests.test_registry import client, registered
from tests.test_serving import QUESTION, Process, Serve, close, end, folders, serve, trained

from config.errors import InputError
from serving import registered as source

__all__ = ["folders", "serve", "trained"]  # fixtures
pytest.importorskip("prometheus_client")


@pytest.fixture
def versions(
    run: Run, trained: Callable[[str], Path], mlflow_store: Callable[[Path], str], tmp_path: Path
) -> tuple[str, Path]:
    """A registry with versions 1 (champion) and 2 of the model "mine", which answer differently, and 3, damaged."""
    store = mlflow_store(tmp_path / "registry" / "mlflow.db")
    first = trained("questions")
    second = tmp_path / "second"
    done = run(
        "train.py", "model=bert_tiny", "data=squad_sample", "data.sample.train=40", "data.sample.val=8", "seed=7",
        "trainer.max_steps=2", "trainer.precision=32-true", f"hydra.run.dir={second}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    damaged = Path(shutil.copytree(second, tmp_path / "damaged"))
    weights = next((damaged / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-50] ^= 255
    weights.write_bytes(content)
    for folder in (first, second, damaged):
        registered(run, folder, "--server", store, "--name", "mine")
    client(store).set_registered_model_alias("mine", "champion", "1")
    return store, second


def log_has(server: Process, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def version(server: Process) -> str:
    return str(requests.get(f"{server.url}/v2/models/mine", timeout=10).json()["versions"][0])


@pytest.mark.parametrize(
    ("text", "follow", "expected"),
    [
        ("squad", None, "squad@champion"),
        ("squad", "candidate", "squad@candidate"),
        ("squad@previous", None, "squad@previous"),
        ("squad/3", None, "squad version 3"),
        ("squad@candidate", "candidate", "squad@candidate"),
    ],
)
def test_names_of_registered_models(text: str, follow: str | None, expected: str) -> None:
    assert str(source.parse(text, follow, None, Path("models"))) == expected


@pytest.mark.parametrize("text", ["", "..", "../3", "a/b", "a@", "a@3", "a@b/c", "a/", "a:b", "a/3/4"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="must be NAME, NAME@ALIAS or NAME/VERSION"):
        source.parse(text, None, None, Path("models"))


def test_a_registered_model_is_served(
    versions: tuple[str, Path], trained: Callable[[str], Path], serve: Serve, run: Run, tmp_path: Path
) -> None:
    store, second = versions
    arguments = ("--server", store, "--models", str(tmp_path / "models"))
    server = serve("mine/2", *arguments, source="model")
    done = run("-m", "serving", "replay", server.url, f"run={second}")
    assert done.returncode == 0, done.stderr
    done = run("-m", "serving", "replay", server.url, f"run={trained('questions')}")
    assert done.returncode == 5, "version 1 answers"
    assert version(server) == "2"
    assert end(server) == 0
    for name, options, message in (
        ("mine@other", (), "the registry has no mine@other"),
        ("mine/9", (), "the registry has no mine version 9"),
        ("mine/3", (), "model.safetensors"),
        ("mine@candidate", ("--follow", "champion"), "name two versions"),
    ):
        done = run("-m", "serving", "serve", f"model={name}", *arguments, "--port", "0", *options)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("swaps", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_versions_are_exchanged_without_a_failed_request(
    swaps: int, versions: tuple[str, Path], serve: Serve, tmp_path: Path
) -> None:
    store, _ = versions
    arguments = ("--server", store, "--models", str(tmp_path / "models"), "--poll", "0.1", "--follow", "champion")
    server = serve("mine", *arguments, source="model")
    expected = {version(server): server.post("/predict", QUESTION).json()}
    failures: list[Any] = []
    answers: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = server.post("/predict", QUESTION)
            (answers if answer.status_code == 200 else failures).append(answer.json())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(swaps):
        name = "21"[number % 2]
        client(store).set_registered_model_alias("mine", "champion", name)
        deadline = time.monotonic() + 60
        while version(server) != name:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.02)
        expected.setdefault(name, server.post("/predict", QUESTION).json())
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(answers) > swaps
    assert not close(expected["1"], expected["2"]), "the versions answer differently"
    assert all(any(close(answer, one) for one in expected.values()) for answer in answers)
    kept = {path.name for path in (tmp_path / "models" / "mine@champion").iterdir()}
    assert kept == {"1", "2", "served.json"}
    # A version that cannot be loaded: the one before goes on.
    client(store).set_registered_model_alias("mine", "champion", "3")
    log_has(server, "goes on answering: ")
    assert "safetensors" in server.log.read_text()
    assert close(server.post("/predict", QUESTION).json(), expected["1"])
    client(store).set_registered_model_alias("mine", "champion", "2")
    log_has(server, "the registry is followed again")
    while version(server) != "2":
        time.sleep(0.02)
    assert end(server) == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def mlflow_server(versions: tuple[str, Path]) -> Iterator[Callable[[int], "subprocess.Popen[bytes]"]]:
    """Starts MLflow's own server of the registry at a port."""
    processes = []

    def start(port: int) -> "subprocess.Popen[bytes]":
        command = ["-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", versions[0], "--workers", "1"]
        processes.append(subprocess.Popen([sys.executable, *command], start_new_session=True))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                    return processes[-1]
            except requests.ConnectionError:
                time.sleep(0.2)
        raise AssertionError

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)


def test_a_registry_that_is_away_at_the_start_and_later(
    versions: tuple[str, Path], mlflow_server: Callable[[int], "subprocess.Popen[bytes]"], serve: Serve, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--server", f"http://127.0.0.1:{port}", "--models", str(tmp_path / "models"), "--poll", "0.2")
    follow = (*arguments, "--follow", "champion")
    server = serve("mine", *follow, source="model", ready=False)
    log_has(server, "not ready until it does")
    assert server.post("/predict", QUESTION).status_code == 503
    registry = mlflow_server(port)
    log_has(server, "mine version 1 answers at")
    expected = server.post("/predict", QUESTION).json()
    registry.terminate()
    registry.wait(30)
    log_has(server, "version 1 goes on answering: ")
    assert server.post("/predict", QUESTION).json() == expected
    assert end(server) == 0
    again = serve("mine", *follow, source="model")
    assert again.post("/predict", QUESTION).json() == expected
    assert "version 1, which was served before, answers meanwhile" in again.log.read_text()
    assert end(again) == 0
    state = json.loads((tmp_path / "models" / "mine@champion" / "served.json").read_text())
    assert state == {"version": "1"}
    (tmp_path / "models" / "mine@champion" / "served.json").unlink()
    waiting = serve("mine", *follow, source="model", ready=False)
    assert end(waiting) == 0, "ended while it waits"
