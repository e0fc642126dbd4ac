"""A pipe or a socket in the place of each file that a command reads, one at a time: `python -m tests.fuzz.special_files`.

Of files that are many alike, such as images, a command reads one.
"""

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import cases, processes, world
from tests.fuzz.__main__ import make_world
from tests.fuzz.targets import TARGETS, Target

SECONDS = 30  # in which a command ends that waits for nobody
MANY = 12  # files of one kind


def inputs(target: Target, origin: Path) -> Iterator[str]:
    """Iterate over the files that a target reads, relative to the world."""
    paths = sorted({path for pattern in target.damaged for path in origin.glob(pattern) if path.is_file()})
    seen = set()
    for path in paths:
        kind = path.suffix if len(paths) > MANY and path.suffix in (".png", ".jpg", ".npy") else path.name
        if (path.parent, kind) not in seen:
            seen.add((path.parent, kind))
            yield str(path.relative_to(origin))


def replace(path: Path, kind: str) -> None:
    """Put a pipe or a socket in the place of a file."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            folder = os.open(path.parent, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be too long
            os.close(folder)


def run(target: Target, name: str, kind: str, origin: Path, folder: Path) -> list[str]:
    """Run a command with one special file; return what is wrong with its end."""
    arguments = cases.copy_inputs(target, origin, folder)
    if not (folder / name).is_file():
        return []
    replace(folder / name, kind)
    output = folder.with_name(f"{folder.name}.output")
    output.mkdir()
    result = processes.finish(processes.start(arguments, folder, world.environment(folder), output), SECONDS)
    return cases.judge(target, result, [])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.special_files", description=__doc__)
    parser.add_argument("--target", default="", help="part of a target's name")
    parser.add_argument("--world", type=Path, help="folder of the valid inputs, made if it does not exist")
    args = parser.parse_args()
    processes.warm_up()
    count = failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        origin = (args.world or Path(temporary) / "world").absolute()
        make_world(origin)
        for target in TARGETS:
            for name in inputs(target, origin) if args.target in target.name and target.override is None else ():
                for kind in ("pipe", "socket"):
                    folder = Path(temporary) / "case"
                    problems = run(target, name, kind, origin, folder)
                    cases.remove(folder)
                    count += 1
                    failed += bool(problems)
                    if problems:
                        print(f"FAILED {', '.join(problems)}: {kind} for {name}: {target.name}", flush=True)
    print(f'{{"special_files": {count}, "failed": {failed}}}', flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
