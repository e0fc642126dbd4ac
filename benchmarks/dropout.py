"""What dropout does to F1: `model=bert_tiny data=squad_sample` over five seeds, without dropout and with 0.1.

`python -m benchmarks.dropout`. A seed draws the weights and the order of the data; the data is the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measure

RATES = (0.0, 0.1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="2 or more")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = {rate: [_f1(Path(name), rate, seed, options.epochs) for seed in range(options.seeds)] for rate in RATES}
    rows = [
        [f"{rate:g}", *(f"{value:.1f}" for value in values), f"{statistics.mean(values):.1f}"]
        for rate, values in found.items()
    ]
    gains = [a - b for a, b in zip(*found.values(), strict=True)]
    measure.report(
        "Dropout and F1",
        ["dropout", *(f"seed {seed}" for seed in range(options.seeds)), "mean"],
        rows,
        f"Best validation F1 of {options.epochs} epochs. Without dropout minus with: {statistics.mean(gains):.1f} on "
        f"average, standard error {statistics.stdev(gains) / len(gains) ** 0.5:.1f} over the seeds.",
    )


def _f1(folder: Path, rate: float, seed: int, epochs: int) -> float:
    run = folder / f"{rate}-{seed}"
    overrides = [f"model.dropout={rate}", f"model.attention_dropout={rate}", f"seed={seed}"]
    command = [sys.executable, "train.py", *overrides, f"trainer.max_epochs={epochs}", f"hydra.run.dir={run}"]
    subprocess.run(command, cwd=measure.ROOT, env=measure.environment(), check=True, capture_output=True)
    f1 = float(json.loads((run / "run.json").read_text())["metrics"]["val_f1"])
    measure.progress(f"dropout {rate} seed {seed}: {f1:.1f}")
    return f1


if __name__ == "__main__":
    main()
