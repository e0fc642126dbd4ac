"""Server processes of the benchmarks of serving: ours and what a user would take instead."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.question_answering import overrides, prepare

QUESTIONS = 200


@dataclass
class Contestant:
    """A server.

    Attributes:
        name: for the table.
        command: starts it; {port} is its port.
        path: where questions are sent.
        ready: path that answers 200 when it is ready.
        wraps: whether a question is sent as MLflow wants it.
    """

    name: str
    command: list[str]
    path: str = "/predict"
    ready: str = "/health"
    wraps: bool = False


def prepare_run(folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """Train one step, so that there is a run folder; return the questions."""
    prepare(folder, options.data, QUESTIONS, options.layers, options.width)
    settings = [
        *overrides(folder, "fp32", 0.0),
        "trainer.max_steps=1",
        f"data.val_file={folder / 'train.json'}",  # enough examples for the gate of an export
        "quality=off",
        f"hydra.run.dir={folder / 'run'}",
    ]
    environment = {**measure.environment(), "ISOTRAIN_CACHE": str(folder / "cache")}
    train = subprocess.run(
        [sys.executable, "train.py", *settings],
        cwd=measure.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if train.returncode:
        raise RuntimeError(train.stderr[-4000:])
    rows = json.loads((folder / "train.json").read_text())["data"]
    return [{"question": row["question"], "context": row["context"]} for row in rows]


def ours(folder: Path, *options: str, run: str = "run", name: str = "isotrain") -> Contestant:
    """Our server of a run in the folder."""
    command = ["-m", "serving", "serve", f"run={folder / run}", "--port", "{port}", *options]
    return Contestant(name, command, ready="/v2/health/ready")


def plain_handler(folder: Path) -> Contestant:
    """A FastAPI handler that calls transformers."""
    return Contestant("FastAPI handler, transformers", _peer("plain", folder))


def _peer(name: str, folder: Path) -> list[str]:
    return ["-m", "benchmarks.serving_peers", name, "--model", str(folder / "run" / "model"), "--port", "{port}"]


def contestants(folder: Path) -> list[Contestant]:
    """Ours, and the peers that are installed; all need `prepare_run`."""
    cores = str(len(os.sched_getaffinity(0)))
    workers = ours(folder, "--workers", cores, name=f"isotrain, {cores} workers")
    contestants = [ours(folder), workers, plain_handler(folder)]
    if importlib.util.find_spec("litserve"):
        contestants.append(Contestant(f"LitServe, batches, {cores} workers", _peer("litserve", folder)))
    else:
        measure.progress("LitServe is left out: pip install litserve")
    if importlib.util.find_spec("mlflow"):
        uri = _register(folder)
        command = ["-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", "{port}"]
        contestants.append(Contestant("mlflow models serve, our pyfunc", command, "/invocations", "/ping", wraps=True))
    return contestants


def int8(folder: Path) -> Contestant:
    """Ours with the run exported to 8-bit integers; a network that has learned nothing passes no gate, so bounds are wide."""
    bounds = ["--margin", "101", "--metric", "val_f1", "--explanations", "0", "--requests", "10"]
    export = folder / "int8"
    command = ["serving", "export", f"run={folder / 'run'}", "--to", "onnx-int8", "--output", str(export), *bounds]
    measure.fresh_command(command)
    cores = str(len(os.sched_getaffinity(0)))
    return ours(folder, "--workers", cores, run=export.name, name=f"isotrain int8, {cores} workers")


def _register(folder: Path) -> str:
    """Register the run, and return the path of the model for MLflow."""
    store = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    measure.fresh_command(["runs", "register", str(folder / "run"), "--server", store, "--name", "bench"])
    return str(next((folder / "mlflow").rglob("MLmodel")).parent)


@contextmanager
def servers(contestants: list[Contestant], folder: Path) -> Iterator[dict[str, int]]:
    """Start all servers; an idle one costs nothing."""
    processes, ports = [], {}
    try:
        for contestant in contestants:
            port = ports[contestant.name] = free_port()
            processes.append(start(contestant, port, folder))
            wait(f"http://127.0.0.1:{port}{contestant.ready}", processes[-1])
        yield ports
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def start(contestant: Contestant, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a server; its output is in PORT.log of the folder."""
    command = [part.format(port=port) for part in contestant.command]
    environment = {**measure.environment(), "ISOTRAIN_CACHE": str(folder / "cache")}
    # MLflow calls uvicorn by its name.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["PYTHONPATH"] += os.pathsep + os.pathsep.join(path for path in sys.path if path)
    with (folder / f"{port}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=measure.ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server is ready, three minutes at most."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{url} was not ready")
