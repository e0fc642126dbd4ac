"""Explanations per second against shap's own explainers, and the whole gate on many examples.

`python -m benchmarks.explain --data FOLDER --images FOLDER`; without them on generated data. The same examples and precision; first
the same coalitions, then the same error. A ResNet-18 at 64 pixels, trained for some steps, and an encoder of 6 layers, 384 wide,
with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import measure
from benchmarks.one_explanation import GRID


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/")
    parser.add_argument("--images", type=Path, help="tiny-imagenet-200")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="that the model of images is trained for")
    parser.add_argument("--orders", type=int, default=100, help="random orders of the values to compare with")
    parser.add_argument("--examples", type=int, default=6, help="images and questions whose errors are measured")
    parser.add_argument("--only-error", action="store_true", help="without the first tables")
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
        runs = _trained(Path(folder), images, questions, options.steps)
        for what, run in zip(("images", "questions"), runs, strict=True):
            measure.fresh("benchmarks.one_explanation", "prepare", what, str(run))
            if not options.only_error:
                _compare(what, run, options.repeats, {"images": 3, "questions": 5}[what])
            _compare_errors(what, run, options.repeats, options.orders, options.examples)
        if options.whole:
            _whole(runs)


def _trained(folder: Path, images: list[str], questions: list[str], steps: int) -> tuple[Path, Path]:
    """Runs of some steps, and of one: folders that hold models."""
    import subprocess
    import sys

    found = []
    encoder = ["data.max_val=600", "model=minilm", "model.pretrained=null", "data.pretrained=null"]
    for name, given in (
        ("images", [*images, "model=resnet18", "model.stem=standard", f"trainer.max_steps={steps}"]),
        ("questions", [*questions, *encoder, "trainer.max_steps=1"]),
    ):
        found.append(folder / name)
        command = [
            sys.executable,
            "train.py",
            *given,
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
    rows = []
    for precision in ("float32", "bfloat16"):

        def rate(who: str, precision: str = precision) -> float:
            return float(measure.fresh("benchmarks.one_explanation", who, what, str(run), precision)["rate"])

        found = measure.alternate({"ours": lambda: rate("ours"), "shap": lambda: rate("shap")}, repeats)
        share = measure.ratio(found["ours"], found["shap"])
        rows.append([precision, found["ours"].text(2), found["shap"].text(2), share.text(1)])
    head = [f"explanations of {what}", "ours, 1/s", "shap, 1/s", "faster by"]
    measure.report(f"Explanations: {what}", head, rows, f"Required: {required}.")


def _compare_errors(what: str, run: Path, repeats: int, orders: int, examples: int) -> None:
    """Seconds to the error of ours, in float32.

    shap's explainers run with their own default, and then with the budget at which their error should be ours: it decreases
    with the root of the coalitions. Where ours is exact, so are they at their default, or never.
    """
    script = "benchmarks.explanation_error"
    standard_error = measure.fresh(script, "reference", what, str(run), str(orders), str(examples))["error"]

    def run_contestant(who: str, budget: int) -> dict[str, float]:
        return measure.fresh(script, who, what, str(run), str(budget), str(examples))

    ours = run_contestant("ours", 0)
    contestants = [("isotrain", "ours", 0, ours)]
    names = {"permutation": "shap Permutation", "kernel": "shap Kernel"}
    if what == "questions":
        names = {"exact": "shap Exact", **names}
    for who, name in names.items():
        default = run_contestant(who, 0)
        contestants.append((f"{name}, its default", who, 0, default))
        if what == "images":
            players = GRID**2
            budget = (default["coalitions"] - 3) if who == "kernel" else default["coalitions"] / (2 * players + 1)
            budget = min(round(budget * (default["error"] / ours["error"]) ** 2), 50 * round(budget))
            budget = max(budget, 4 * players if who == "kernel" else 1)
            contestants.append((f"{name}, equal error", who, budget, run_contestant(who, budget)))
    seconds = measure.alternate(
        {
            name: lambda who=who, budget=budget: run_contestant(who, budget)["seconds"]
            for name, who, budget, _ in contestants
        },
        repeats,
    )
    rows = []
    for name, _, _, result in contestants:
        share = measure.ratio(seconds[name], seconds["isotrain"])
        counts = [f"{result['coalitions']:.0f}", f"{result['error']:.5f}"]
        rows.append([name, *counts, seconds[name].text(2), share.text(1)])
    head = [f"{what}, float32", "coalitions", "root mean square error", "seconds", "isotrain faster by"]
    note = f"{examples} examples. Standard error of the values compared with: {standard_error:.5f}. Required at equal error: 5."
    measure.report(f"Explanations at equal error: {what}", head, rows, note)


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
