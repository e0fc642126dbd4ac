"""One case: a seed gives a target, the damage and the files; the command must end as docs/exit_codes.md says."""

import contextlib
import os
import random
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz import children, mutations, processes, world
from tests.fuzz.targets import TARGETS, Target, choose_file

_OUTSIDE = "outside"  # files of others beside the case's own


class Case(NamedTuple):
    """A case and what is wrong with its end.

    Attributes:
        target: The target.
        seed: The seed of the damage.
        damage: What was done to which file, or the override.
        result: How the command ended.
        problems: What is wrong; empty if nothing is.
    """

    target: str
    seed: int
    damage: str
    result: processes.Result
    problems: list[str]


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return kind, size and time of all files and links below a folder; links are not followed."""
    entries = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            is_folder = stat.S_ISDIR(status.st_mode)
            entries[str(path.relative_to(folder))] = (
                kind,
                0 if is_folder else status.st_size,
                0 if is_folder else status.st_mtime_ns,
            )
    return entries


def _is_output(path: str, target: Target) -> bool:
    # Hydra and the system: the cache, temporary files, and what a library keeps at home.
    patterns = (*target.outputs, "cache/*", "tmp/*", "home/*")
    if target.outputs and path.split("/")[0] == mutations.NOT_UTF8:  # an output that was moved there
        return True
    return any(Path(path).match(part) or f"{path}/".startswith(part.removesuffix("*")) for part in patterns)


class Setup(NamedTuple):
    """A prepared case: the damage in words, the command line, limits of its process, codes they may lead to, whether files may appear."""

    damage: str
    arguments: list[str]
    limits: Mapping[str, Any] | None = None
    codes: frozenset[int] = frozenset()
    may_create: bool = False


def copy_inputs(target: Target, origin: Path, folder: Path) -> list[str]:
    """Copy a target's inputs into a new folder, beside files of others; return its command line."""
    for name in ("home", "tmp", _OUTSIDE):
        (folder / name).mkdir(parents=True)
    (folder / _OUTSIDE / "thesis.txt").write_text("of another program\n")
    for name in target.inputs:
        source, copy = origin / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True)
        else:
            shutil.copy2(source, copy)
    return list(target.arguments)


def prepare(target: Target, seed: int, origin: Path, folder: Path) -> Setup:
    """Copy a target's inputs from the world into a new folder, and damage one, or the command line, or the machine."""
    generator = random.Random(f"{target.name} {seed}")
    copy_inputs(target, origin, folder)
    if target.override is not None:
        words = target.override(generator)
        return Setup(" ".join(words), [*target.arguments, *words])
    arguments = list(target.arguments)
    kind = generator.choices(("file", "argument", "disk", "rights"), (6, 2, 1, 1))[0]
    if kind == "argument" and (new := mutations.mutate_arguments(arguments, folder, generator)):
        return Setup(f"the argument {new}", arguments, codes=frozenset({7, 8}), may_create=True)
    if kind == "disk":
        size = generator.choice((0, 100, 1000, 10_000, 40_000, 100_000))
        return Setup(f"files of at most {size} bytes", arguments, {"file_size": size}, frozenset({8}))
    path = choose_file(folder, target, generator)
    if path is None:
        return Setup("nothing", arguments)
    if kind == "rights":
        path = generator.choice([path, *(parent for parent in path.parents if parent.is_relative_to(folder))])
        modes = (0o555,) if path == folder else (0, 0o555, 0o444) if path.is_dir() and not path.is_symlink() else (0,)
        mode = generator.choice(modes)
        with contextlib.suppress(OSError):
            path.chmod(mode)
        return Setup(f"mode {mode:o} of {path.relative_to(folder)}", arguments, {"rights": False})
    if path == folder:
        path = folder / target.inputs[0]
    name = path.relative_to(folder)
    return Setup(f"{mutations.mutate_file(path, generator)} of {name}", arguments)


def judge(target: Target, result: processes.Result, changes: list[str]) -> list[str]:
    """Return what is wrong with the end of a command."""
    problems = []
    if result.code not in target.codes:
        problems.append(f"exit code {result.code}")
    if "Traceback (most recent call last)" in result.stderr:
        problems.append("a traceback")
    messages = re.findall(r"^isotrain: (?!the run is in)", result.stderr, re.MULTILINE)
    if (
        result.code not in (0, 4, 5, 6)
        and len(messages) != 1
        and not (result.code == 2 and _has_findings(target, result))
    ):
        problems.append(f"{len(messages)} messages")
    if not result.in_time or result.seconds > processes.SECONDS:
        problems.append(f"{result.seconds:.0f} s of processor time, {'' if result.in_time else 'not '}ended in time")
    if result.memory > processes.MEMORY:
        problems.append(f"{result.memory / 2**30:.1f} GiB")
    problems += [f"changed {name}" for name in changes[:5]]
    return problems


def _has_findings(target: Target, result: processes.Result) -> bool:
    """Whether the command lists what is wrong on stdout, or is argparse."""
    return ("check" in target.arguments and result.stdout.strip() != "") or ": error: " in result.stderr


def run(target: Target, seed: int, origin: Path, folder: Path) -> Case:
    """Run one case in a new folder."""
    setup = children.call(prepare, target, seed, origin, folder)
    before = snapshot(folder)
    output = folder.with_name(f"{folder.name}.output")
    output.mkdir(exist_ok=True)
    result = processes.run(setup.arguments, folder, world.environment(folder), output, **(setup.limits or {}))
    after = snapshot(folder)
    changes = [
        name
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and not _is_output(name, target)
        and not (setup.may_create and name not in before)
    ]
    problems = judge(target._replace(codes=target.codes | setup.codes), result, changes)
    return Case(target.name, seed, setup.damage, result, problems)


def remove(folder: Path) -> None:
    """Remove a case's folder and its output."""
    shutil.rmtree(folder.with_name(f"{folder.name}.output"), ignore_errors=True)
    if folder.exists():
        for parent, folders, _ in os.walk(folder):
            for name in (".", *folders):
                with contextlib.suppress(OSError):
                    Path(parent, name).chmod(0o755, follow_symlinks=False) if not Path(
                        parent, name
                    ).is_symlink() else None
        shutil.rmtree(folder)


def by_name(name: str) -> Target:
    """Return a target by its name."""
    return next(target for target in TARGETS if target.name == name)
