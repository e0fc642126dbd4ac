"""Serving: answers per second and latencies of `python -m serving`, beside what a user would take instead.

`python -m benchmarks.serving --data ../shared/data`. All servers have the same model (a 6-layer, 384-wide BERT with random weights) and
answer the same questions in turns: a closed loop of 1, 8 and 64 clients, and an open loop at 50 % and 90 % of each server's own
capacity. LitServe is no dependency: pip install litserve, or it is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks import measure, server_processes
from serving import load as loads

CLIENTS = (1, 8, 64)
SHARES = (0.5, 0.9)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="parts of contestants' names")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = server_processes.prepare_run(folder, options)
        chosen = [
            contestant
            for contestant in (*server_processes.contestants(folder), server_processes.int8(folder))
            if not options.only or any(part in contestant.name for part in options.only)
        ]
        with server_processes.servers(chosen, folder) as ports:
            _measure(chosen, ports, questions, options)


def _measure(
    contestants: list[server_processes.Contestant],
    ports: dict[str, int],
    questions: list[dict[str, str]],
    options: argparse.Namespace,
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
    measured: dict[tuple[str, int], list[loads.Load]] = {}
    for turn in range(-1, options.repeats):
        for contestant in contestants if turn % 2 else reversed(contestants):
            name = contestant.name
            for clients in CLIENTS if turn >= 0 else (8,):  # the first round warms up
                load = loads.closed_loop(urls[name], bodies[name], clients, options.seconds)
                measure.progress(f"{name}, {clients} clients: {load.rate:.1f}/s, failures {load.failures}")
                if turn >= 0:
                    measured.setdefault((name, clients), []).append(load)
    rows = []
    for contestant in contestants:
        cells: list[str] = []
        for clients in CLIENTS:
            repeats = measured[contestant.name, clients]
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
        ours = measure.Sample(tuple(load.rate for load in measured[first, CLIENTS[-1]]))
        peer = measure.Sample(tuple(load.rate for load in measured[contestant.name, CLIENTS[-1]]))
        if contestant.name != first:
            ratios.append([contestant.name, measure.ratio(ours, peer).text(2)])
    print("\n" + measure.table([f"{first} over, at {CLIENTS[-1]} clients", "throughput"], ratios))
    rows = []
    for contestant in contestants:
        name = contestant.name
        capacity = statistics.median(load.rate for load in measured[name, CLIENTS[-1]])
        cells = []
        for share in SHARES:
            load = loads.open_loop(urls[name], bodies[name], share * capacity, 2 * options.seconds)
            measure.progress(f"{name}, {share:.0%}: {load.rate:.1f}/s, failures {load.failures}")
            cells += [f"{load.quantile(0.5):.0f} / {load.quantile(0.99):.0f}", str(sum(load.failures.values()))]
        rows.append([name, f"{capacity:.1f}", *cells])
    head = ["server", "capacity, answers/s"]
    for share in SHARES:
        head += [f"at {share:.0%}: ms, 50 % / 99 %", "failed"]
    measure.report("Serving, open loop", head, rows)


if __name__ == "__main__":
    main()
