"""Training on one GPU: examples per second, use of the device, waiting for data, memory, time to the first step.

    python -m benchmarks.gpu --data ../shared/data --images <unpacked tiny-imagenet-200> --minutes 6 --output FOLDER

measures isotrain, eager and compiled, beside the public recipes of transformers' Trainer and of timm, all in bf16, with
equal networks, random weights, data, batches and dropout. Every measurement is a process of its own, forked from
one that has imported all libraries. Each result is printed and written to FOLDER/results.json at once; a failed one is
reported, and the others go on. `--smoke` tries everything with tiny networks on a CPU in a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.gpu import clock as clocks
from benchmarks.gpu import data as files
from benchmarks.gpu import device, isotrain_method, processes, timm_method, trainer_method
from benchmarks.gpu.workloads import COMPILED, METHODS, SMOKE, WORKLOADS, Workload, methods

TIMEOUT = 240.0  # seconds of one measurement
EXPECTED = {False: 14.0, True: 40.0}  # seconds of a measurement that was not made yet, by whether it compiles
WARM_UP = 30  # steps: kernels are chosen, and compiled, for texts of several widths


def main() -> int:
    """Measures; returns the number of measurements that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with squad/ and bert-base-uncased-vocab.txt; default: generated"
    )
    parser.add_argument("--images", type=Path, help="an unpacked tiny-imagenet-200; default: generated")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="time for all; what does not fit is left out, and named"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement, after its warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each method, if there is time")
    parser.add_argument("--output", type=Path, default=Path("gpu-benchmark"), help="folder of results.json and logs")
    parser.add_argument("--only", nargs="*", metavar="WORKLOAD", help=", ".join(each.name for each in WORKLOADS))
    parser.add_argument("--methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument(
        "--jobs", type=int, default=4, help="compilations at a time, before anything is measured; 0: none"
    )
    parser.add_argument(
        "--profile", action="store_true", help="also write a profile of ten steps of isotrain's methods"
    )
    parser.add_argument("--smoke", action="store_true", help="try everything with tiny networks on a CPU")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="further overrides of isotrain's configuration"
    )
    options = parser.parse_intermixed_args()
    known = SMOKE if options.smoke else WORKLOADS
    if unknown := sorted(set(options.only or ()) - {each.name for each in known}):
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(each.name for each in known)}")
    if unknown := sorted(set(options.methods or ()) - set(METHODS)):
        parser.error(f"no such method: {', '.join(unknown)}; there are {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory() as folder:
        return Benchmark(
            options, [each for each in known if each.name in (options.only or [each.name])], Path(folder)
        ).run()


class Benchmark:
    """The measurements of one call, and their results so far."""

    def __init__(self, options: argparse.Namespace, workloads: list[Workload], folder: Path) -> None:
        """Set the options, and import all libraries."""
        self.options, self.workloads, self.folder = options, workloads, folder
        self.deadline = time.monotonic() + 60 * options.minutes
        self.output = options.output.resolve()
        (self.output / "logs").mkdir(parents=True, exist_ok=True)
        os.environ["ISOTRAIN_CACHE"] = str(folder / "cache")
        if options.smoke:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
            os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiling takes minutes: the compiled methods run eagerly
        else:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        processes.load_libraries()
        self.rows = {
            (workload.name, name): {"workload": workload.name, "method": name, "runs": [], "failures": []}
            for workload in workloads
            for name in methods(workload)
            if name in (options.methods or METHODS)
        }
        self.seconds: dict[tuple[str, str], float] = {}
        self.results: dict[str, Any] = {
            "command": measure.shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": measure.machine(),
            "workloads": [asdict(each) for each in workloads],
        }

    def run(self) -> int:
        """Measure everything, and print the table."""
        print(f"{self.results['machine']}\n", flush=True)
        self._note("device", lambda: self._call("device", device.describe))
        print(json.dumps(self.results.get("device")), flush=True)
        ready = [workload for workload in self.workloads if self._prepare(workload)]
        if self.options.jobs and not self.options.smoke:
            self._compile(ready)
        for turn in range(1 if self.options.smoke else self.options.rounds):
            order = [(workload, name) for workload in ready for name in methods(workload)]
            for workload, name in order if turn % 2 == 0 else reversed(order):
                if (workload.name, name) in self.rows:
                    self._measure(workload, name, turn)
        if self.options.profile:
            for workload in ready:
                for name in [name for name in methods(workload) if name.startswith("isotrain")]:
                    if (workload.name, name) in self.rows and time.monotonic() < self.deadline:
                        self._note(f"profile {workload.name} {name}", lambda w=workload, n=name: self._profile(w, n))
        self._print_table()
        return len(self.results.get("failures", {})) + sum(bool(row["failures"]) for row in self.rows.values())

    def _call(self, name: str, target: Any, *arguments: Any, timeout: float = TIMEOUT) -> Any:
        return processes.call(target, *arguments, log=self.output / "logs" / f"{name}.log", timeout=timeout)

    def _note(self, name: str, measurement: Any) -> bool:
        """Store a result under its name, or the reason why there is none."""
        try:
            self.results[name] = measurement()
        except processes.Failed as error:
            self.results.setdefault("failures", {})[name] = str(error)
            print(f"{name}: FAILED: {error}", flush=True)
        self._save()
        return name in self.results

    def _prepare(self, workload: Workload) -> bool:
        name = f"operations {workload.name}"
        return self._note(
            name, lambda: self._call(f"prepare-{workload.name}", prepare, workload, self.folder, *self._sources())
        )

    def _sources(self) -> tuple[Path | None, Path | None]:
        return self.options.data, self.options.images

    def _compile(self, workloads: list[Workload]) -> None:
        """Compile, several at a time, so that measurements find the compiler's cache filled; note the cold times."""
        waiting = [
            (w, name) for w in workloads for name in methods(w) if name in COMPILED and (w.name, name) in self.rows
        ]
        running: list[tuple[Workload, str, processes.Process]] = []
        while waiting or running:
            while waiting and len(running) < self.options.jobs:
                workload, name = waiting.pop(0)
                running.append((workload, name, self._start(workload, name, "compile", seconds=0.0)))
            workload, name, process = running.pop(0)
            row = self.rows[workload.name, name]
            try:
                row["cold_first_step_s"] = process.result(TIMEOUT)["first_step_s"]
                print(f"{workload.name}, {name}: compiled in {row['cold_first_step_s']:.1f} s", flush=True)
            except processes.Failed as error:
                row["failures"].append(f"compiling: {error}")
                print(f"{workload.name}, {name}: compiling FAILED: {error}", flush=True)
            self._save()

    def _start(self, workload: Workload, name: str, label: str, seconds: float, profile: Path | None = None) -> Any:
        warm_up, most_steps = (2, 2) if self.options.smoke else (WARM_UP, 100_000)
        log = self.output / "logs" / f"{label}-{workload.name}-{name}.log"
        settings = (warm_up, seconds, most_steps, profile)
        arguments = (workload, name, self.folder, self.options.images, settings, self.options.overrides)
        return processes.start(run_method, *arguments, log=log)

    def _measure(self, workload: Workload, name: str, turn: int) -> None:
        row, key = self.rows[workload.name, name], (workload.name, name)
        expected = self.seconds.get(key, EXPECTED[name in COMPILED and not self.options.jobs])
        if row["failures"]:
            return
        if time.monotonic() + expected > self.deadline:
            if turn == 0:
                row["skipped"] = "no time was left"
            return
        before = time.monotonic()
        try:
            found = self._start(workload, name, f"run{turn}", self.options.seconds).result(TIMEOUT)
        except processes.Failed as error:
            row["failures"].append(str(error))
            print(f"{workload.name}, {name}: FAILED: {error}", flush=True)
        else:
            operations = self.results[f"operations {workload.name}"]
            found["operations_per_second"] = operations * found["examples_per_second"]
            row["runs"].append(found)
            print(f"{workload.name}, {name}: {_describe(found, self._peak())}", flush=True)
        self.seconds[key] = time.monotonic() - before
        self._save()

    def _profile(self, workload: Workload, name: str) -> str:
        path = self.output / f"profile-{workload.name}-{name}.txt"
        self._start(workload, name, "profile", self.options.seconds, path).result(TIMEOUT)
        return path.name

    def _peak(self) -> float | None:
        return (self.results.get("device") or {}).get("peak")

    def _save(self) -> None:
        content = {**self.results, "rows": list(self.rows.values())}
        temporary = self.output / "results.json.tmp"
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(self.output / "results.json")

    def _print_table(self) -> None:
        text = format_table({**self.results, "rows": list(self.rows.values())})
        print(f"\n{text}", flush=True)
        (self.output / "table.md").write_text(text + "\n", encoding="utf-8")


def prepare(workload: Workload, folder: Path, data: Path | None, images: Path | None) -> float:
    """Prepare a workload; return the operations of training on one example."""
    files.prepare(workload, folder, data, images)
    isotrain_method.prepare(workload, folder, images)
    return device.training_operations(workload, isotrain_method.lengths(workload, folder))


def run_method(
    workload: Workload, name: str, folder: Path, images: Path | None, settings: tuple[Any, ...], overrides: list[str]
) -> dict[str, Any]:
    """Train a workload by a method; return the clock's figures."""
    clock = clocks.Clock(workload.batch, *settings)
    compiled = name.endswith("-compiled")
    try:
        if name.startswith("isotrain"):
            compile_ = {"isotrain": "false", "isotrain-graphs": "reduce-overhead"}.get(name, "true")
            isotrain_method.train(workload, compile_, folder, images, clock, overrides)
        elif name.startswith("timm"):
            timm_method.train(workload, compiled, folder, images, clock)
        else:
            # Full windows have one length, but for the last of a text.
            batches = "padded" if name.endswith("-padded") or workload.full else "grouped"
            if name.endswith("-flash"):
                trainer_method.avoid_cudnn()
            trainer_method.train(workload, batches, compiled, folder, clock)
    except clocks.Measured:
        pass
    if not clock.figures:
        raise RuntimeError("training ended before it was measured")
    return clock.figures


def _describe(found: dict[str, Any], peak: float | None) -> str:
    share = f"MFU {100 * found['operations_per_second'] / peak:.1f} %, " if peak else ""
    return (
        f"{found['examples_per_second']:,.1f} examples/s, {found['step_ms']:.2f} ms a step, {share}"
        f"{100 * found['waiting']:.1f} % waiting for data, {found['peak_mib']:,.0f} MiB, first step after {found['first_step_s']:.1f} s"
    )


def format_table(results: dict[str, Any]) -> str:
    """The Markdown table of results.json, with the median and the range of each method's runs."""
    peak = (results.get("device") or {}).get("peak")
    rows = []
    for workload in results["workloads"]:
        of_workload = [row for row in results["rows"] if row["workload"] == workload["name"]]
        rates = {row["method"]: _sample(row, "examples_per_second") for row in of_workload}
        for row in of_workload:
            rate = rates[row["method"]]
            title = f"{workload['title']}, batches of {workload['batch']}" if row is of_workload[0] else ""
            if rate is None:
                reason = "; ".join(row["failures"]) or row.get("skipped", "not measured")
                rows.append([title, METHODS[row["method"]], reason, "", "", "", "", "", ""])
                continue
            ours = [rates.get("isotrain"), rates.get("isotrain-compiled")]
            ratios = [
                "" if row["method"].startswith("isotrain") or own is None else f"{own.median / rate.median:.2f}"
                for own in ours
            ]
            use = _median(row, "operations_per_second")
            rows.append(
                [
                    title,
                    METHODS[row["method"]],
                    rate.text(0),
                    *ratios,
                    f"{100 * use / peak:.1f}" if peak else "",
                    f"{100 * _median(row, 'waiting'):.1f}",
                    f"{_median(row, 'peak_mib') / 1024:.1f}",
                    f"{_median(row, 'first_step_s'):.1f}"
                    + (f" ({row['cold_first_step_s']:.1f} cold)" if "cold_first_step_s" in row else ""),
                ]
            )
    head = [
        "workload",
        "method",
        "examples/s",
        "isotrain is faster by",
        "compiled by",
        "MFU, %",
        "% of a step for data",
        "peak GiB",
        "first step, s",
    ]
    return measure.table(head, rows)


def _sample(row: dict[str, Any], key: str) -> measure.Sample | None:
    values = tuple(run[key] for run in row["runs"])
    return measure.Sample(values) if values else None


def _median(row: dict[str, Any], key: str) -> float:
    return statistics.median(run[key] for run in row["runs"])


if __name__ == "__main__":
    sys.exit(min(main(), 1))
