"""What the pipeline costs over its steps' own time: `python -m benchmarks.pipeline_overhead`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import measure

SMALL = [
    "model=bert_tiny", "data=squad_sample", "data.sample.train=2000", "data.sample.val=200", "explain.examples=32",
    "explain.min_correct=1", "-p", "explain=warn",
]  # fmt: skip


def main() -> None:
    """Runs the pipeline a few times, each with a seed of its own, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="of training (default: 200)")
    options = parser.parse_args()
    totals, own, counts = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.repeats):
            command = [sys.executable, "-m", "pipelines", "run", *SMALL, f"trainer.max_steps={options.steps}"]
            began = time.perf_counter()
            subprocess.run(
                [*command, f"seed={seed}", "--root", folder, "--name", str(seed)],
                cwd=measure.ROOT, env=measure.environment(), check=True, capture_output=True,
            )  # fmt: skip
            totals.append(time.perf_counter() - began)
            records = [json.loads(path.read_text()) for path in Path(folder, "pipelines", str(seed), "steps").iterdir()]
            counts = len(records)
            own.append(sum(each["seconds"] for record in records for each in record["commands"]))
            measure.progress(f"{totals[-1]:.1f} s, {own[-1]:.1f} s of it in commands")
    whole, commands = measure.Sample(tuple(totals)), measure.Sample(tuple(own))
    over = measure.Sample(tuple(a - b for a, b in zip(totals, own, strict=True)))
    share = measure.Sample(tuple(100 * (a / b - 1) for a, b in zip(totals, own, strict=True)))
    head = ["pipeline of " + str(counts) + " steps", "seconds"]
    rows = [
        ["from the command to its end", whole.text()],
        ["in the steps' own commands", commands.text()],
        ["over", f"{over.text()}, {share.text()} %"],
        ["over, for each step", f"{over.median / counts:.2f}"],
    ]
    note = "Without pods: on a cluster each step's pod takes its time to start, too. Repeats differ by their seed, so that nothing is trained twice."
    measure.report("The pipeline over its steps", head, rows, note)


if __name__ == "__main__":
    main()
