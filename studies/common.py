"""What every study shares: units that are done once, command lines with their time, shares with intervals, figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT as ROOT
from benchmarks.measure import table as table

Settings = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, what it said, and its seconds."""

    code: int
    out: str
    err: str
    seconds: float


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> Done:
    """Runs one of our command lines, as a person would.

    Args:
        command: after python: "train.py", or "-m", "quality", and arguments.
        cwd: where; our folder if not given.
        environment: added to this process's.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    words = [str(ROOT / "train.py") if word == "train.py" else str(word) for word in command]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd or ROOT, env=env, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr, time.perf_counter() - began)


def unit(folder: Path, name: str, compute: Callable[[], Row]) -> Row:
    """One measurement, kept in `folder/name.json`: a study that was stopped goes on where it was."""
    path = folder / f"{name}.json"
    if path.exists():
        found: Row = json.loads(path.read_text())
        return found
    found = compute()
    keep(path, json.dumps(found, indent=1))
    print(f"{folder.parent.name}: {name}: {_short(found)}", file=sys.stderr, flush=True)
    return found


def keep(path: Path, text: str) -> None:
    """Writes a file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _short(row: Row) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
    )[:160]


def failed(done: Done) -> RuntimeError:
    """For a command that should have ended well."""
    return RuntimeError(f"exit code {done.code}: {done.err[-1500:]}")


def record(folder: Path) -> Row:
    """A run's run.json."""
    found: Row = json.loads((folder / "run.json").read_text())
    return found


def wilson(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, max(of, 1), method="wilson") if of else (0.0, 1.0)
    return float(low), float(high)


def share(count: int, of: int) -> str:
    """A share with its interval, for a table."""
    low, high = wilson(count, of)
    return f"{count} of {of} ({low:.0%} to {high:.0%})"


def bars(path: Path, title: str, values: Mapping[str, tuple[float, float, float]], unit_: str) -> str:
    """Writes a figure of values with their intervals, and returns the Markdown that shows it.

    Args:
        path: an SVG file.
        title: what it shows.
        values: value, low, high by name.
        unit_: of them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.45 * len(values) + 1.1), layout="constrained")
    axes = figure.subplots()
    names = list(values)
    for place, name in enumerate(reversed(names)):
        value, low, high = values[name]
        axes.plot([low, high], [place, place], color="#3b6ea5", linewidth=2.5)
        axes.plot([value], [place], "o", color="#3b6ea5", markersize=7)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel(unit_)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title, loc="left", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and with fixed ids the same data gives the same file.
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "isotrain"}):
        figure.savefig(path, metadata={"Date": None})
    return f"![{title}](studies/{path.name})\n\n*Made by `python -m studies {path.stem}`.*"
