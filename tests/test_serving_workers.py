"""`serve --workers`: processes that predict, killed, replaced and ended."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from tests.conftest import Run
from tests.test_serving import QUESTION, Process, Serve, close, end, folders, serve, trained

__all__ = ["folders", "serve", "trained"]  # fixtures
pytest.importorskip("prometheus_client")


def workers(server: Process) -> list[psutil.Process]:
    """The processes that predict, by what multiprocessing's spawn calls them with."""
    processes = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                processes.append(child)
    return processes


def until(condition: Callable[[], Any], server: Process | None = None) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, server and server.log.read_text()
        time.sleep(0.02)


def test_a_worker_that_is_killed_costs_no_request(
    trained: Callable[[str], Path], serve: Serve, run: Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained("questions"), tmp_path / "copy"))
    server = serve(folder, "--workers", "2", "--threads", "1")
    done = run("-m", "serving", "replay", server.url, f"run={folder}")
    assert done.returncode == 0, done.stderr
    expected = server.post("/predict", QUESTION).json()
    stop, statuses, different = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            answer = server.post("/predict", QUESTION)
            statuses.append(answer.status_code)
            if answer.status_code == 200 and not close(answer.json(), expected):
                different.append(answer.json())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    first = workers(server)
    assert len(first) == 2
    for number, worker in enumerate(first, 1):
        count = len(statuses)
        worker.send_signal(signal.SIGKILL)
        until(lambda number=number: server.log.read_text().count("has loaded the model in its place") == number, server)
        until(lambda count=count: len(statuses) > count + 10, server)
    assert server.log.read_text().count("(signal 9) and is started again") == 2
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert not different
    # The folder is deleted underneath: the model stays in memory, and a process that is killed cannot be replaced.
    shutil.rmtree(folder)
    assert close(server.post("/predict", QUESTION).json(), expected)
    last = workers(server)
    last[0].send_signal(signal.SIGKILL)
    message = "a process could not be started again, and is tried later: "
    for _ in range(2):
        assert close(server.post("/predict", QUESTION).json(), expected)
    until(lambda: message in server.log.read_text(), server)
    assert close(server.post("/predict", QUESTION).json(), expected)
    last[1].send_signal(signal.SIGKILL)  # the last one
    with pytest.raises(requests.Timeout):
        requests.post(f"{server.url}/predict", json=QUESTION, timeout=1)
    assert requests.get(f"{server.url}/v2/health/ready", timeout=10).status_code == 503
    assert end(server) == 0
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in last)
    assert "Traceback" not in server.log.read_text()


def test_workers_end_with_their_server(trained: Callable[[str], Path], serve: Serve) -> None:
    server = serve(trained("questions"), "--workers", "2", "--threads", "1")
    processes = workers(server)
    assert len(processes) == 2
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    until(lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in processes))


def test_a_model_that_workers_cannot_load(trained: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained("texts"), tmp_path / "copy"))
    weights = next((folder / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    done = run("-m", "serving", "serve", f"run={folder}", "--workers", "2", "--port", "0")
    assert (done.returncode, "model.safetensors" in done.stderr, "Traceback" in done.stderr) == (2, True, False), done
    done = run("-m", "serving", "serve", f"run={folder}", "--workers", "200")
    assert (done.returncode, "--workers=200: as many processes would start" in done.stderr) == (2, True), done.stderr
