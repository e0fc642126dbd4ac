"""Damage inputs of every command for some minutes: `python -m tests.fuzz --minutes 10`.

A case that fails is printed with its target and seed, and its input stays in the folder of failures;
`python -m tests.fuzz --target NAME --seed N` repeats it.
"""

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import cases, processes, world
from tests.fuzz.targets import TARGETS


def command(folder: Path, arguments: list[str]) -> None:
    """Run a command that makes a part of the world."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as output:
        result = processes.run(arguments, folder, world.environment(folder), Path(output))
    if result.code:
        raise SystemExit(f"{' '.join(arguments)} ended with {result.code}: {result.stderr}")


def make_world(folder: Path) -> None:
    """Make the valid inputs in a folder, if it does not exist."""
    if not folder.exists():
        print("making valid inputs", file=sys.stderr, flush=True)
        world.build(folder, command)


def fuzz(
    origin: Path, failures: Path, minutes: float, first: int, names: list[str], count: int | None = None
) -> list[cases.Case]:
    """Run cases until the time is over.

    Args:
        origin: The world; it is made if it does not exist.
        failures: The folder in which the input of a failed case stays.
        minutes: The time.
        first: The first seed; each case has the next one.
        names: Parts of the names of the targets; empty for all.
        count: The number of cases; None for as many as there is time.

    Returns:
        The failed cases.
    """
    processes.warm_up()
    make_world(origin)
    targets = [target for target in TARGETS if not names or any(name in target.name for name in names)]
    failures.mkdir(parents=True, exist_ok=True)
    codes: collections.Counter[int] = collections.Counter()
    seconds = {target.name: 1.0 for target in targets}  # processor time of the last case
    slowest = largest = 0.0
    failed, seed, begin, generator = [], first, time.monotonic(), random.Random(first)
    queue = generator.sample(targets, len(targets))  # each once, then cheap ones more often than expensive ones
    while time.monotonic() - begin < 60 * minutes and (count is None or codes.total() < count):
        target = queue.pop() if queue else generator.choices(targets, [1 / seconds[t.name] ** 0.5 for t in targets])[0]
        folder = failures / f"{target.name.replace(' ', '-').replace('/', '-')}-{seed}"
        cases.remove(folder)
        case = cases.run(target, seed, origin, folder)
        codes[case.result.code] += 1
        seconds[target.name] = max(0.1, case.result.seconds)
        slowest, largest = max(slowest, case.result.seconds), max(largest, case.result.memory)
        if (codes.total()) % 50 == 0:
            print(f"{codes.total()} inputs: {dict(sorted(codes.items()))}", file=sys.stderr, flush=True)
        if case.problems:
            failed.append(case)
            print(describe(case), flush=True)
        else:
            cases.remove(folder)
        seed += 1
    figures = {
        "inputs": codes.total(), "codes": dict(sorted(codes.items())), "failed": len(failed), "seeds": [first, seed],
        "seconds": round(time.monotonic() - begin), "slowest_s": round(slowest, 1), "largest_mib": round(largest / 2**20),
    }  # fmt: skip
    print(json.dumps(figures), flush=True)
    return failed


def describe(case: cases.Case) -> str:
    """Return a failed case in words: what is wrong, how to repeat it, and the last lines of stderr."""
    lines = case.result.stderr.strip().splitlines()[-6:]
    return (
        f"FAILED {', '.join(case.problems)}: {case.damage}\n  python -m tests.fuzz --target '{case.target}' --seed {case.seed}\n"
        + "".join(f"    {line[:300]}\n" for line in lines)
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="first seed (default: from the clock)")
    parser.add_argument("--count", type=int, help="number of cases (with --target and --seed: 1)")
    parser.add_argument("--target", action="append", default=[], help="part of a target's name (repeatable)")
    parser.add_argument("--world", type=Path, help="folder of the valid inputs, made if it does not exist")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    args = parser.parse_args()
    count = args.count or (1 if args.target and args.seed is not None else None)
    seed = int(time.time()) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as folder:
        origin = args.world or Path(folder) / "world"
        return 1 if fuzz(origin.absolute(), args.failures.absolute(), args.minutes, seed, args.target, count) else 0


if __name__ == "__main__":
    sys.exit(main())
