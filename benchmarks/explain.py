"""Explanations per second against shap's own explainers, and the whole gate on many examples.

`python -m benchmarks.explain --data FOLDER --images FOLDER`; without them on generated data. The same examples, coalitions asked
and precision; weights are random, of a ResNet-18 at 64 pixels and of an encoder of 6 layers, 384 wide.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import measure


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/")
    parser.add_argument("--images", type=Path, help="tiny-imagenet-200")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--whole", action="store_true", help="also the whole gate: 256 images and 128 questions, minutes"
    )
    options = parser.parse_args()
    questions = (
        ["data=squad", f"data.path={(options.data / 'squad').resolve()}"]
        if options.data
        else ["data=squad_sample", "data.sample.val=400"]
    )
    images = ["data=tiny_imagenet", f"data.path={options.images.resolve()}"] if options.images else ["data=shapes"]
    with tempfile.TemporaryDirectory() as folder:
        runs = _trained(Path(folder), images, questions)
        _compare("images", runs[0], options.repeats, 3)
        _compare("questions", runs[1], options.repeats, 5)
        if options.whole:
            _whole(runs)


def _trained(folder: Path, images: list[str], questions: list[str]) -> tuple[Path, Path]:
    """Runs of one step: folders that hold models."""
    import subprocess
    import sys

    found = []
    encoder = ["data.max_val=600", "model=minilm", "model.pretrained=null", "data.pretrained=null"]
    for name, given in (
        ("images", [*images, "model=resnet18", "model.stem=standard"]),
        ("questions", [*questions, *encoder]),
    ):
        found.append(folder / name)
        command = [
            sys.executable,
            "train.py",
            *given,
            "trainer.max_steps=1",
            "trainer.limit_val_batches=1",
            "quality=off",
        ]
        done = subprocess.run(
            [*command, f"hydra.run.dir={found[-1]}"], cwd=measure.ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        measure.progress(f"{name}: a model")
    return found[0], found[1]


def _compare(what: str, run: Path, repeats: int, required: int) -> None:
    """Each contestant in a process of its own: what ours sets for the processor must not help the other."""
    measure.fresh("benchmarks.one_explanation", "prepare", what, str(run))
    rows = []
    for precision in ("float32", "bfloat16"):

        def rate(who: str, precision: str = precision) -> float:
            return float(measure.fresh("benchmarks.one_explanation", who, what, str(run), precision)["rate"])

        found = measure.alternate({"ours": lambda: rate("ours"), "shap": lambda: rate("shap")}, repeats)
        share = measure.ratio(found["ours"], found["shap"])
        rows.append([precision, found["ours"].text(2), found["shap"].text(2), share.text(1)])
    head = [f"explanations of {what}", "ours, 1/s", "shap, 1/s", "faster by"]
    measure.report(f"Explanations: {what}", head, rows, f"Required: {required}.")


def _whole(runs: tuple[Path, Path]) -> None:
    """Seconds of `python -m explain` over 256 images and 128 questions, start-up included."""
    import subprocess
    import sys

    def seconds(run: Path, precision: str) -> float:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as kept:
            command = [sys.executable, "-m", "explain", f"run={run}", f"data.cache_dir={kept}", "explain=warn"]
            more = ["explain.min_agreement=-1", f"explain.precision={precision}"]
            done = subprocess.run(
                [*command, *more], cwd=measure.ROOT / "src", capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return time.perf_counter() - began

    rows = []
    for precision in ("bf16", "32"):
        took = [seconds(run, precision) for run in runs]
        rows.append([precision, *(f"{each:.0f}" for each in (*took, sum(took)))])
        measure.progress(f"the whole gate: {rows[-1]}")
    head = ["the whole gate, seconds", "256 images", "128 questions", "both"]
    measure.report("Explanations: the whole gate", head, rows, "Required: 300 for both.")


if __name__ == "__main__":
    main()
