"""From the start of the process to the first optimiser step, caches warm: `train.py` against the Trainer's recipe.

`python -m benchmarks.startup --data ../shared/data`. Both train the same 2-layer BERT on the same questions, so that the
first step itself takes no time; the recipe finds its tokenised data in the cache of `datasets`, ours in its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import measure
from benchmarks.question_answering import overrides, prepare


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt")
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.data, options.windows, layers=2, width=128)
        found = measure.alternate(
            {"ours": lambda: ours(folder), "peer": lambda: peer(folder), "imports": lambda: imports()},
            options.repeats,
            warm_up=2,
        )
    measure.report(
        "Start-up",
        ["from the process's start to the first optimiser step", "seconds", "over the peer's"],
        [
            ["python train.py", found["ours"].text(2), measure.ratio(found["ours"], found["peer"]).text(2)],
            ["transformers' Trainer, the recipe", found["peer"].text(2), ""],
            ["`import torch, transformers` alone", found["imports"].text(2), ""],
        ],
        f"{options.windows} questions tokenised before, a 2-layer BERT. Required: at most 0.7 times the peer's.",
    )


def ours(folder: Path) -> float:
    """Seconds to the first step of train.py."""
    command = [
        *["train.py", *overrides(folder, "fp32", 0.1), "optim.optimizer._target_=benchmarks.first_step.FirstStep"],
        "quality=off",  # the recipe checks nothing
        f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}/run",
    ]
    return _seconds(command, folder, r"first_step=([\d.]+)")


def peer(folder: Path) -> float:
    """Seconds to the first step of the recipe."""
    command = ["-m", "benchmarks.recipe", "--model", str(folder / "model"), "--data", str(folder / "train.json")]
    command += ["--cache", str(folder / "datasets"), "--batches", "grouped", "--steps", "1"]
    return _seconds(command, folder, r'"first_step": ([\d.]+)')


def imports() -> float:
    """Seconds to import what both need."""
    begin = time.time()
    subprocess.run([sys.executable, "-c", "import torch, transformers"], env=measure.environment(), check=True)
    return time.time() - begin


def _seconds(command: list[str], folder: Path, pattern: str) -> float:
    environment = {**measure.environment(), "ISOTRAIN_CACHE": str(folder / "cache")}
    environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    begin = time.time()
    done = subprocess.run(
        [sys.executable, *command], cwd=measure.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    told = re.search(pattern, done.stdout)
    if told is None:
        raise RuntimeError(f"{command[0]} made no step:\n{done.stderr[-4000:]}")
    return float(told[1]) - begin


if __name__ == "__main__":
    main()
