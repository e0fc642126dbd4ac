"""Serving: answers per second and latencies of `python -m serving`, beside what a user would take instead.

`python -m benchmarks.serving --data ../shared/data`. All servers have the same model (a 6-layer, 384-wide BERT with random weights) and
answer the same questions in turns: a closed loop of 1, 8 and 64 clients, and an open loop at 50 % and 90 % of each server's own
capacity. LitServe is no dependency: pip install litserve, or it is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import http_load, measure
from benchmarks.question_answering import overrides, prepare

CLIENTS = (1, 8, 64)
SHARES = (0.5, 0.9)
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


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="parts of contestants' names")
    parser.add_argument(
        "--memory", type=int, metavar="N", help="measure the memory over N requests of a tiny model instead"
    )
    options = parser.parse_args()
    if options.memory:
        options.layers, options.width = 1, 32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = _prepare(folder, options)
        if options.memory:
            return _memory(folder, questions, options.memory)
        contestants = [
            contestant
            for contestant in _contestants(folder)
            if not options.only or any(part in contestant.name for part in options.only)
        ]
        with _servers(contestants, folder) as ports:
            _measure(contestants, ports, questions, options)
        _starts(folder, options.repeats)


def _prepare(folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """Train one step, so that there is a run folder; return the questions."""
    prepare(folder, options.data, QUESTIONS, options.layers, options.width)
    settings = [
        *overrides(folder, "fp32", 0.0),
        "trainer.max_steps=1",
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


def _contestants(folder: Path) -> list[Contestant]:
    cores = str(len(os.sched_getaffinity(0)))
    ours = ["-m", "serving", "serve", f"run={folder / 'run'}", "--port", "{port}"]
    peers = ["-m", "benchmarks.serving_peers"]
    model = ["--model", str(folder / "run" / "model"), "--port", "{port}"]
    contestants = [
        Contestant("isotrain", ours, ready="/v2/health/ready"),
        Contestant(f"isotrain, {cores} workers", [*ours, "--workers", cores], ready="/v2/health/ready"),
        Contestant("FastAPI handler, transformers", [*peers, "plain", *model]),
    ]
    if importlib.util.find_spec("litserve"):
        contestants.append(Contestant(f"LitServe, batches, {cores} workers", [*peers, "litserve", *model]))
    else:
        measure.progress("LitServe is left out: pip install litserve")
    if importlib.util.find_spec("mlflow"):
        uri = _register(folder)
        command = ["-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", "{port}"]
        contestants.append(Contestant("mlflow models serve, our pyfunc", command, "/invocations", "/ping", wraps=True))
    return contestants


def _register(folder: Path) -> str:
    """Register the run, and return the path of the model for MLflow."""
    store = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    measure.fresh_command(["runs", "register", str(folder / "run"), "--server", store, "--name", "bench"])
    return str(next((folder / "mlflow").rglob("MLmodel")).parent)


@contextmanager
def _servers(contestants: list[Contestant], folder: Path) -> Iterator[dict[str, int]]:
    """Start all servers; an idle one costs nothing."""
    processes, ports = [], {}
    try:
        for contestant in contestants:
            port = ports[contestant.name] = _free_port()
            processes.append(_start(contestant, port, folder))
            _wait(f"http://127.0.0.1:{port}{contestant.ready}", processes[-1])
        yield ports
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _start(contestant: Contestant, port: int, folder: Path) -> subprocess.Popen[bytes]:
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


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{url} was not ready")


def _measure(
    contestants: list[Contestant], ports: dict[str, int], questions: list[dict[str, str]], options: argparse.Namespace
) -> None:
    urls = {
        contestant.name: f"http://127.0.0.1:{ports[contestant.name]}{contestant.path}" for contestant in contestants
    }
    bodies = {
        contestant.name: [
            json.dumps({"dataframe_records": [row]} if contestant.wraps else row).encode() for row in questions
        ]
        for contestant in contestants
    }
    loads: dict[tuple[str, int], list[http_load.Load]] = {}
    for turn in range(-1, options.repeats):
        for contestant in contestants if turn % 2 else reversed(contestants):
            name = contestant.name
            for clients in CLIENTS if turn >= 0 else (8,):  # the first round warms up
                load = http_load.closed_loop(urls[name], bodies[name], clients, options.seconds)
                measure.progress(f"{name}, {clients} clients: {load.rate:.1f}/s, failures {load.failures}")
                if turn >= 0:
                    loads.setdefault((name, clients), []).append(load)
    rows = []
    for contestant in contestants:
        cells: list[str] = []
        for clients in CLIENTS:
            repeats = loads[contestant.name, clients]
            rate = measure.Sample(tuple(load.rate for load in repeats))
            failures = sum(sum(load.failures.values()) for load in repeats)
            cells += [
                rate.text(1),
                " / ".join(f"{statistics.median(load.quantile(q) for load in repeats):.0f}" for q in (0.5, 0.99))
                + (f" ({failures} failed)" if failures else ""),
            ]
        rows.append([contestant.name, *cells])
    head = ["server"]
    for clients in CLIENTS:
        head += [f"{clients} client{'s' * (clients > 1)}, answers/s", "ms, 50 % / 99 %"]
    measure.report(
        "Serving, closed loop", head, rows,
        f"{len(questions)} questions about contexts of mixed lengths, {options.layers} layers, width {options.width}.",
    )  # fmt: skip
    first = contestants[0].name if len(contestants) == 1 else contestants[1].name
    ratios = []
    for contestant in contestants:
        ours = measure.Sample(tuple(load.rate for load in loads[first, CLIENTS[-1]]))
        peer = measure.Sample(tuple(load.rate for load in loads[contestant.name, CLIENTS[-1]]))
        if contestant.name != first:
            ratios.append([contestant.name, measure.ratio(ours, peer).text(2)])
    print("\n" + measure.table([f"{first} over, at {CLIENTS[-1]} clients", "throughput"], ratios))
    rows = []
    for contestant in contestants:
        name = contestant.name
        capacity = statistics.median(load.rate for load in loads[name, CLIENTS[-1]])
        cells = []
        for share in SHARES:
            load = http_load.open_loop(urls[name], bodies[name], share * capacity, 2 * options.seconds)
            measure.progress(f"{name}, {share:.0%}: {load.rate:.1f}/s, failures {load.failures}")
            cells += [f"{load.quantile(0.5):.0f} / {load.quantile(0.99):.0f}", str(sum(load.failures.values()))]
        rows.append([name, f"{capacity:.1f}", *cells])
    head = ["server", "capacity, answers/s"]
    for share in SHARES:
        head += [f"at {share:.0%}: ms, 50 % / 99 %", "failed"]
    measure.report("Serving, open loop", head, rows)


def _starts(folder: Path, repeats: int) -> None:
    """Time from the start to ready, beside the imports alone."""
    contestant = _contestants(folder)[0]
    code = "import torch, transformers, fastapi, uvicorn"

    def ready() -> float:
        port, begin = _free_port(), time.perf_counter()
        process = _start(contestant, port, folder)
        _wait(f"http://127.0.0.1:{port}{contestant.ready}", process)
        seconds = time.perf_counter() - begin
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return seconds

    def imports() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=measure.environment(), check=True)
        return time.perf_counter() - begin

    samples = measure.alternate({"ready": ready, "imports": imports}, repeats, warm_up=1)
    measure.report(
        "Serving, start",
        ["", "seconds"],
        [
            ["start to ready", samples["ready"].text(2)],
            [f"`{code}`", samples["imports"].text(2)],
            ["ratio", measure.ratio(samples["ready"], samples["imports"]).text(2)],
        ],
    )


def _memory(folder: Path, questions: list[dict[str, str]], count: int) -> None:
    """Resident memory of the server after each tenth of the requests."""
    contestant = _contestants(folder)[0]
    bodies = [json.dumps(row).encode() for row in questions]
    with _servers([contestant], folder) as ports:
        url = f"http://127.0.0.1:{ports[contestant.name]}{contestant.path}"
        log = (folder / f"{ports[contestant.name]}.log").read_text()
        pid = int(re.findall(r"server process \[(\d+)\]", log)[0])
        rows, sent = [], 0
        while sent < count:
            load = http_load.closed_loop(url, bodies, 32, 5.0)
            sent += len(load.latencies)
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
            measure.progress(f"{sent}: {resident:.1f} MiB, failures {load.failures}")
            rows.append([sent, f"{resident:.1f}", f"{load.rate:.0f}"])
    step = max(1, len(rows) // 10)
    measure.report("Serving, memory", ["requests", "MiB", "answers/s"], rows[::step] + rows[-1:])


if __name__ == "__main__":
    main()
