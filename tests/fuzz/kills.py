"""Commands killed at random moments and repeated: the end is that of a command that was never killed.

`python -m tests.fuzz.kills --count 200` draws a command, kills it with SIGKILL up to three times, runs it to its end, and
compares exit code, files and results with those of an uninterrupted run.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz import cases, processes, world
from tests.fuzz.__main__ import make_world
from tests.fuzz.targets import TARGETS, Target

# What differs between two runs of the same command.
_MEASURED = ("timestamp", "examples_per_second", "peak_memory_mib")
_TEMPORARY = (".tmp", ".lock", "-journal", "-wal", "-shm")


def results(folder: Path) -> dict[str, Any]:
    """Return the files that a command left, and the content of those with results."""
    content: dict[str, Any] = {}
    for name in cases.snapshot(folder):
        path = folder / name
        if name.startswith(("home", "tmp", "cache")) or not path.is_file():
            continue
        if name.startswith(("registry/artifacts/", "store/artifacts/")) or "/trials/" in name:  # names with identifiers
            continue
        content[name] = None
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            content[name] = [{k: v for k, v in row.items() if not k.endswith(_MEASURED)} for row in rows]
        elif path.name == "trials.jsonl":
            content[name] = len(path.read_text().splitlines())
        elif path.name in ("predictions.jsonl", "new.yaml", "experiment.yaml", "pipeline.yaml"):
            content[name] = path.read_bytes()
        elif path.name == "bounds.json":
            content[name] = json.loads(path.read_text())["bounds"]
    return content


def run(
    target: Target, seed: int, origin: Path, folder: Path, reference: tuple[int, dict[str, Any], float]
) -> list[str]:
    """Kill a command some times and run it to its end.

    Args:
        target: The command.
        seed: The seed of the moments.
        origin: The world.
        folder: A new folder.
        reference: Exit code, results and seconds of the uninterrupted command.

    Returns:
        What is wrong; empty if nothing is.
    """
    generator = random.Random(f"{target.name} {seed}")
    arguments = cases.copy_inputs(target, origin, folder)
    output = folder.with_name(f"{folder.name}.output")
    output.mkdir(exist_ok=True)
    code, expected, seconds = reference
    moments = []
    for _ in range(generator.choice((1, 1, 2, 3))):
        moments.append(round(generator.uniform(0, 1.05 * seconds), 2))
        process = processes.start(arguments, folder, world.environment(folder), output)
        time.sleep(moments[-1])
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(process.id, signal.SIGKILL)
        processes.finish(process)
    result = processes.run(arguments, folder, world.environment(folder), output)
    if result.code == 2 and " exists: choose another name" in result.stderr:
        result = result._replace(code=code)  # killed after it had written its file, which is not replaced
    problems = [f"killed after {moments} s: exit code {result.code}, not {code}: {result.stderr[-600:]}"] * (
        result.code != code
    )
    if "Traceback" in result.stderr:
        problems.append(f"a traceback: {result.stderr[-1000:]}")
    final = results(folder)
    for name in sorted(expected.keys() | final.keys()):
        if name not in final:
            problems.append(f"killed after {moments} s: {name} is missing")
        elif name not in expected:
            if not name.endswith(_TEMPORARY):
                problems.append(f"killed after {moments} s: {name} is left")
            elif name.endswith(".tmp"):
                problems.append(f"killed after {moments} s: the temporary file {name} is left")
        elif final[name] != expected[name]:
            problems.append(f"killed after {moments} s: {name} has another content")
    return problems


def kill(origin: Path, failures: Path, count: int, first: int, names: list[str], minutes: float) -> int:
    """Run `count` cases, or as many as there is time; return how many failed."""
    processes.warm_up()
    make_world(origin)
    failures.mkdir(parents=True, exist_ok=True)
    targets = [t for t in TARGETS if t.override is None and (not names or any(name in t.name for name in names))]
    references: dict[str, tuple[int, dict[str, Any], float]] = {}
    kills: collections.Counter[str] = collections.Counter()
    failed, end = 0, time.monotonic() + 60 * minutes
    for number in range(count):
        if time.monotonic() > end:
            break
        target = targets[(first + number) % len(targets)]
        folder = failures / f"{target.name.replace(' ', '-').replace('/', '-')}-{first + number}"
        if target.name not in references:
            cases.remove(folder)
            begin = time.monotonic()
            arguments = cases.copy_inputs(target, origin, folder)
            output = folder.with_name(f"{folder.name}.output")
            output.mkdir(exist_ok=True)
            result = processes.run(arguments, folder, world.environment(folder), output)
            references[target.name] = (result.code, results(folder), time.monotonic() - begin)
            if result.code not in (0, 2, 4, 5):
                print(f"FAILED {target.name}: {result.code}: {result.stderr[-800:]}", flush=True)
        cases.remove(folder)
        problems = run(target, first + number, origin, folder, references[target.name])
        kills["cases"] += 1
        if problems:
            failed += 1
            print(f"FAILED {target.name} --seed {first + number}: " + "\n  ".join(problems), flush=True)
        else:
            cases.remove(folder)
        if kills["cases"] % 10 == 0:
            print(f"{kills['cases']} killed, {failed} failed", file=sys.stderr, flush=True)
    print(json.dumps({"killed": kills["cases"], "commands": len(references), "lost": failed}), flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--minutes", type=float, default=90, help="time limit (default: 90)")
    parser.add_argument("--target", action="append", default=[], help="part of a target's name (repeatable)")
    parser.add_argument("--world", type=Path, help="folder of the valid inputs, made if it does not exist")
    parser.add_argument("--failures", type=Path, default=Path("kill-failures"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        origin = args.world or Path(folder) / "world"
        return int(
            kill(origin.absolute(), args.failures.absolute(), args.count, args.seed, args.target, args.minutes) > 0
        )


if __name__ == "__main__":
    sys.exit(main())
