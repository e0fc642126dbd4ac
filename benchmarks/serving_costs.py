"""Serving: what the server adds to a prediction, its start, and its memory over many requests.

`python -m benchmarks.serving_costs --data ../shared/data`. The overhead is measured with a tiny model: a request by one client
takes turns with the same prediction in this process, without a server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import measure, server_processes
from serving import load as loads

# What any server of the model imports; transformers loads the classes of a model when they are named.
PEER_IMPORTS = "import torch, fastapi, uvicorn; from transformers import AutoTokenizer, BertForQuestionAnswering"
LAZY_IMPORTS = "import torch, fastapi, uvicorn, transformers"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt")
    parser.add_argument("--requests", type=int, default=1000, help="of the overhead (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="of the start (default: 5)")
    parser.add_argument("--memory", type=int, metavar="N", help="measure the memory over N requests instead")
    options = parser.parse_args()
    options.layers, options.width = 1, 32
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as the server sets it; here, too, before torch is imported
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = server_processes.prepare_run(folder, options)
        if options.memory:
            _memory(folder, questions, options.memory)
            return
        _overhead(folder, questions, options.requests)
        _starts(folder, options.repeats)


def _overhead(folder: Path, questions: list[dict[str, str]], count: int) -> None:
    """Milliseconds of a request, of the prediction and of the network, in turns, and the medians of the differences."""
    import torch

    from config import tasks
    from serving.model import keyed_row
    from trainers import hardware, saved_model

    contestant = server_processes.ours(folder)
    model = saved_model.open_model(str(folder / "run"))
    predictor = tasks.load_member(model.task, "predictor", "a benchmark")(model)
    hardware.tune_cpu()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    spans: list[float] = []
    begun = [0.0]
    predictor.network.register_forward_pre_hook(lambda *_: begun.__setitem__(0, time.perf_counter()))
    predictor.network.register_forward_hook(lambda *_: spans.append(time.perf_counter() - begun[0]))
    samples: dict[str, list[float]] = {"request": [], "prediction": [], "network": []}
    with server_processes.servers([contestant], folder) as ports:
        connection = http.client.HTTPConnection("127.0.0.1", ports[contestant.name])
        for number in range(-50, count):
            row = questions[number % len(questions)]
            start = time.perf_counter()
            connection.request("POST", contestant.path, json.dumps(row), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            middle = time.perf_counter()
            spans.clear()
            predictor.predict([keyed_row(predictor, {"id": "1", **row})], 8)
            end = time.perf_counter()
            if number >= 0:
                for name, seconds in zip(samples, (middle - start, end - middle, sum(spans)), strict=True):
                    samples[name].append(1e3 * seconds)

    def row_of(name: str, values: list[float]) -> list[str]:
        quartiles = statistics.quantiles(values, n=20)
        return [name, f"{statistics.median(values):.2f}", f"{quartiles[0]:.2f} to {quartiles[-1]:.2f}"]

    rows = [row_of(name, values) for name, values in samples.items()]
    for name, first, second in (
        ("request - prediction", "request", "prediction"),
        ("prediction - network", "prediction", "network"),
    ):
        differences = [a - b for a, b in zip(samples[first], samples[second], strict=True)]
        rows.append(row_of(name, differences))
    measure.report("Serving, overhead", ["", "ms, median", "5 % to 95 %"], rows, f"{count} requests, one client.")


def _starts(folder: Path, repeats: int) -> None:
    """Time from the start to ready, beside the imports alone and a plain handler."""
    ours, plain = server_processes.ours(folder), server_processes.plain_handler(folder)

    def ready(contestant: server_processes.Contestant) -> float:
        port, begin = server_processes.free_port(), time.perf_counter()
        process = server_processes.start(contestant, port, folder)
        server_processes.wait(f"http://127.0.0.1:{port}{contestant.ready}", process)
        seconds = time.perf_counter() - begin
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return seconds

    def imports(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=measure.environment(), check=True)
        return time.perf_counter() - begin

    samples = measure.alternate(
        {
            "isotrain, ready": lambda: ready(ours),
            "plain handler, ready": lambda: ready(plain),
            PEER_IMPORTS: lambda: imports(PEER_IMPORTS),
            LAZY_IMPORTS: lambda: imports(LAZY_IMPORTS),
        },
        repeats,
        warm_up=1,
    )
    first = samples["isotrain, ready"]
    rows = [[name, sample.text(2), measure.ratio(first, sample).text(2)] for name, sample in samples.items()]
    measure.report("Serving, start", ["", "seconds", "isotrain over it"], rows)


def _memory(folder: Path, questions: list[dict[str, str]], count: int) -> None:
    """Resident memory of the server after each tenth of the requests."""
    contestant = server_processes.ours(folder)
    bodies = [json.dumps(row).encode() for row in questions]
    with server_processes.servers([contestant], folder) as ports:
        url = f"http://127.0.0.1:{ports[contestant.name]}{contestant.path}"
        log = (folder / f"{ports[contestant.name]}.log").read_text()
        pid = int(re.findall(r"server process \[(\d+)\]", log)[0])
        rows, sent = [], 0
        while sent < count:
            load = loads.closed_loop(url, bodies, 32, 5.0)
            sent += len(load.latencies)
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
            measure.progress(f"{sent}: {resident:.1f} MiB, failures {load.failures}")
            rows.append([sent, f"{resident:.1f}", f"{load.rate:.0f}"])
    step = max(1, len(rows) // 10)
    measure.report("Serving, memory", ["requests", "MiB", "answers/s"], rows[::step] + rows[-1:])


if __name__ == "__main__":
    main()
