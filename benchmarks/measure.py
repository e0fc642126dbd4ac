"""What every benchmark shares: alternating runs, medians with their spread, the machine, a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ISOTRAIN_SHARED_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Sample:
    """The repeats of one measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int = 1) -> str:
        """`median (smallest to largest)`."""
        if len(self.values) == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({min(self.values):.{digits}f} to {max(self.values):.{digits}f})"


def alternate(contestants: Mapping[str, Callable[[], float]], repeats: int, *, warm_up: int = 0) -> dict[str, Sample]:
    """Run every contestant `repeats` times, taking turns, so that a slow minute hits all of them.

    Every second round goes backwards, so that nobody always runs behind the same neighbour. A contestant
    returns its own figure (a rate, or seconds). `warm_up` rounds come first and are not counted.
    """
    names = list(contestants)
    values: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            figure = contestants[name]()
            progress(f"{name}: {figure:.4g}" + (" (warm-up)" if turn < 0 else ""))
            if turn >= 0:
                values[name].append(figure)
    return {name: Sample(tuple(found)) for name, found in values.items()}


def ratio(ours: Sample, peer: Sample) -> Sample:
    """Ours over the peer, turn by turn: neighbours in time share the machine's weather."""
    return Sample(tuple(a / b for a, b in zip(ours.values, peer.values, strict=True)))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine(packages: Sequence[str] = ("torch", "lightning", "transformers", "timm", "numpy")) -> str:
    """One line: processor, cores, memory, accelerator, system, package versions, load at the start."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
        known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
        processor += f" ({', '.join(known)})"
    except (OSError, StopIteration):
        pass
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    load = f"; load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor}, {cores} cores{memory}, {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}{load}"
    )


def report(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], *notes: str) -> None:
    """Print a section for `docs/benchmarks.md`: title, command, machine, table, notes."""
    print(f"\n## {title}\n")
    print(f"`{command()}`  ")
    print(f"{machine()}\n")
    print(table(head, rows))
    for note in notes:
        print(f"\n{note}")
    sys.stdout.flush()


def command() -> str:
    """The command that was typed, as `python -m benchmarks.name ...`."""
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def fresh(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `python -m module arguments` in a fresh process; return the JSON object of its last line on stdout.

    Raises:
        RuntimeError: the process failed; the message ends with what it wrote on stderr.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} {shlex.join(arguments)} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def fresh_command(arguments: Sequence[str]) -> None:
    """Runs `python -m ARGUMENTS` in a fresh process.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment(), check=True, capture_output=True)


def environment() -> dict[str, str]:
    """The environment of a fresh process: our packages on the path, no network, no progress bars."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


def progress(line: str) -> None:
    """A line on stderr: the table alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)
