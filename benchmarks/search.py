"""`python -m katib run`: what it costs beside the trials themselves, and whether its algorithms beat random search.

`python -m benchmarks.search`. A trial is an awk line that computes a known function of four parameters, so that hundreds of
searches take minutes. `--minutes 1` adds twenty trials of one minute, as in life.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

TRIALS = 24
# Lowest at lr 1e-3, x 0.3, n 5, c b: 0. A trial of resource r adds 1/r - 1/9.
FUNCTION = (
    "awk -v lr=${trialParameters.lr} -v x=${trialParameters.x} -v n=${trialParameters.n} -v c=${trialParameters.c} "
    "-v r=${trialParameters.r} 'BEGIN { e = log(lr)/log(10) + 3; "
    'printf "loss=%.9f\\n", e*e + 9*(x-0.3)^2 + (n-5)^2/10 + (c == "b" ? 0 : 0.5) + 1/r - 1/9 }\''
)
CURVE = (
    "awk -v lr=${trialParameters.lr} -v x=${trialParameters.x} 'BEGIN { e = log(lr)/log(10) + 3; f = e*e + 9*(x-0.3)^2; "
    'for (s = 1; s <= 20; s++) { printf "loss=%.9f\\n", f + 2/s; fflush(); system("sleep 0.1") } }\''
)
SPACE = {
    "lr": ("double", {"min": "1e-5", "max": "1e-1", "distribution": "logUniform"}),
    "x": ("double", {"min": "0.01", "max": "1"}),
    "n": ("int", {"min": "1", "max": "16"}),
    "c": ("categorical", {"list": ["a", "b", "d"]}),
    "r": ("discrete", {"list": ["9"]}),
}
# Katib searches with these on a uniform scale: the exponent is not theirs to find.
ALGORITHMS = ("random", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol", "grid", "hyperband")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--minutes", type=float, default=0, help="length of twenty trials, to measure overhead as in life"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _overhead(folder, options.minutes)
        _algorithms(folder, options.seeds)
        _medianstop(folder, max(3, options.seeds // 4))


def _overhead(folder: Path, minutes: float) -> None:
    rows = []
    for title, line, trials, parallel in (
        ("does nothing, one at a time", "echo loss=${trialParameters.x}", 40, 1),
        ("does nothing, two at a time", "echo loss=${trialParameters.x}", 40, 2),
        *((("sleeps", f"sleep {60 * minutes:g} && echo loss=${{trialParameters.x}}", 20, 5),) if minutes else ()),
    ):
        file = _file(folder, line, {"x": SPACE["x"]}, "random", {"random_state": "0"}, trials, parallel)
        began = time.perf_counter()
        measure.fresh_command(
            ["katib", "run", str(file), "--folder", str(folder / title.replace(" ", "-")), "--no-check"]
        )
        seconds = time.perf_counter() - began
        alone = trials / parallel * 60 * minutes if title == "sleeps" else 0.0
        over = f"{100 * (seconds / alone - 1):.2f} %" if alone else ""
        rows.append(
            [
                title,
                str(trials),
                f"{seconds:.1f}",
                f"{(seconds - alone) / trials * (parallel if alone else 1):.3f}",
                over,
            ]
        )
        measure.progress(str(rows[-1]))
    measure.report(
        "Overhead of a search",
        [
            "a trial that",
            "trials",
            "seconds, start-up included",
            "seconds beyond the trial, each",
            "of the trials' time",
        ],
        rows,
        "Required: under 0.2 s for a trial that does nothing; under 2 % for trials of a minute.",
    )


def _algorithms(folder: Path, seeds: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    for seed in range(seeds):
        for name in ALGORITHMS:
            found[name].append(_best(folder, name, seed))
        measure.progress(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in found.items()))
    random = statistics.median(found["random"])
    rows = []
    for name, values in found.items():
        median = statistics.median(values)
        wins = sum(a < b for a, b in zip(values, found["random"], strict=True))
        verdict = "" if name == "random" else ("yes" if median < random else "no")
        rows.append([name, f"{median:.3f} ({min(values):.3f} to {max(values):.3f})", f"{wins} of {seeds}", verdict])
    measure.report(
        "Algorithms on a known function",
        ["algorithm", f"lowest value after {TRIALS} trials", "better than random", "beats random's median"],
        rows,
        f"Medians of {seeds} seeds (smallest to largest); 0 is the least there is. Hyperband has as much of the resource as "
        f"{TRIALS} trials, in more and shorter ones.",
    )


def _best(folder: Path, name: str, seed: int) -> float:
    settings = {"random_state": str(seed)} if name not in ("sobol", "grid", "hyperband") else {}
    space, trials = dict(SPACE), TRIALS
    if name == "grid":
        space |= {"lr": ("discrete", {"list": ["1e-4", "1e-2"]}), "n": ("discrete", {"list": ["4", "12"]})}
        space |= {"x": ("discrete", {"list": ["0.25", "0.75"]})}
    if name == "hyperband":
        settings = {"r_l": "9", "eta": "3", "resource_name": "r"}
        space["r"] = ("int", {"min": "1", "max": "9"})
        trials = 0  # its own plan, twice and a half
    lows = []
    spent = 0.0
    while not lows or (name == "hyperband" and spent < 9 * TRIALS - 87):
        results = _search(folder, FUNCTION, space, name, settings, trials or 22, seed * 10 + len(lows))
        spent += sum(float(each["assignments"]["r"]) for each in results)
        lows.append(min(each["value"] for each in results if each["value"] is not None))
    return min(lows)


def _medianstop(folder: Path, seeds: int) -> None:
    space = {"lr": SPACE["lr"], "x": SPACE["x"]}
    stopping = {"min_trials_required": "3", "start_step": "4"}
    saved, lost = [], 0
    for seed in range(seeds):
        settings = {"random_state": str(seed)}
        plain = _search(folder, CURVE, space, "random", settings, 16, seed, parallel=4)
        stopped = _search(folder, CURVE, space, "random", settings, 16, seed, parallel=4, stopping=stopping)
        steps = [sum(len(each["history"]) for each in results) for results in (plain, stopped)]
        saved.append(1 - steps[1] / steps[0])
        best = [min(each["value"] for each in results) for results in (plain, stopped)]
        lost += best[1] > best[0] + 1e-9
        measure.progress(f"medianstop seed {seed}: {steps}, best {best}")
    share = measure.Sample(tuple(100 * each for each in saved))
    measure.report(
        "medianstop",
        ["searches", "steps saved, %", "searches whose best was lost"],
        [[str(seeds), share.text(0), str(lost)]],
        "16 trials of 20 steps, four at a time, with the same points as a search without it.",
    )


def _search(
    folder: Path,
    line: str,
    space: dict[str, Any],
    name: str,
    settings: dict[str, str],
    trials: int,
    seed: int,
    parallel: int = 2,
    stopping: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """One search in this process; its trials' rows."""
    from katib.documents import read
    from katib.experiment import Experiment
    from katib.search import Search

    file = _file(folder, line, space, name, settings, trials, parallel, stopping)
    place = folder / f"{name}-{seed}-{'stop' if stopping else 'all'}-{time.monotonic_ns()}"
    search = Search(Experiment(read(str(file))[0]), place)
    search.run()
    search.store.close()
    return [json.loads(each) for each in (place / "trials.jsonl").read_text().splitlines()]


def _file(
    folder: Path,
    line: str,
    space: dict[str, Any],
    name: str,
    settings: dict[str, str],
    trials: int,
    parallel: int,
    stopping: dict[str, str] | None = None,
) -> Path:
    parameters = [
        {"name": key, "parameterType": kind, "feasibleSpace": values} for key, (kind, values) in space.items()
    ]
    container = {"name": "main", "image": "none", "command": ["sh", "-c", line]}
    job = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    named = [{"name": key, "value": value} for key, value in settings.items()]
    spec: dict[str, Any] = {
        "objective": {"type": "minimize", "objectiveMetricName": "loss"},
        "algorithm": {"algorithmName": name, **({"algorithmSettings": named} if named else {})},
        "parallelTrialCount": 9 if name == "hyperband" else parallel,
        "maxTrialCount": trials,
        "parameters": parameters,
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": key, "reference": key} for key in space],
            "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
        },
    }
    if stopping:
        rules = [{"name": key, "value": value} for key, value in stopping.items()]
        spec["earlyStopping"] = {"algorithmName": "medianstop", "algorithmSettings": rules}
    path = folder / "search.yaml"
    value = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "f"}, "spec": spec}
    path.write_text(json.dumps(value))
    return path


if __name__ == "__main__":
    main()
