"""Does standardisation lower the time spent on environments? From a bare machine to a first trained model."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from studies import common
from studies.common import ROOT, Row, Settings

TITLE = "Does standardisation lower the time spent on environments?"
HYPOTHESIS = (
    "One locked set-up takes one command and trains immediately. The set-up that the transformers project publishes for its question answering "
    "example takes several commands, installs about as fast, and installs other versions on another day."
)
# Its README: a virtual environment, the requirements of the example, the script. Data from the Hub is left out: both train on made data.
PEER = ["torch", "transformers", "datasets", "evaluate", "accelerate"]
OURS_STEPS = ["git clone", "make train"]
PEER_STEPS = [
    "git clone transformers",
    "python -m venv",
    "pip install torch",
    "pip install transformers",
    "pip install -r requirements.txt",
    "python run_qa.py …",
]


def run(settings: Settings, folder: Path) -> list[Row]:
    """One row for each set-up and repeat: seconds to installed, and for ours to a trained model."""
    rows = []
    for repeat in range(settings["environment"]["repeats"]):
        for who, compute in (("isotrain", _ours), ("transformers' example", _peer)):

            def once(compute=compute, repeat: int = repeat) -> Row:  # type: ignore[no-untyped-def]
                return dict(compute(folder / f"place-{repeat}"))

            rows.append(
                {"who": who, "repeat": repeat, **common.unit(folder, f"{who.replace(' ', '-')}-{repeat}", once)}
            )
    return rows


def _ours(place: Path) -> Row:
    """A clean clone with an empty home: make train."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HOME": str(place / "home"),
        "PIP_NO_CACHE_DIR": "1",
    }
    (place / "home").mkdir()
    began = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place / "clone")], check=True)
    done = subprocess.run(
        ["make", "train", f"PYTHON={sys.executable}", "ARGS=trainer.max_steps=1 quality=off"], cwd=place / "clone", env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    versions = _versions(place / "clone" / ".venv" / "bin" / "python")
    shutil.rmtree(place)
    return {"seconds": seconds, "steps": len(OURS_STEPS), "packages": len(versions), "pinned": True}


def _peer(place: Path) -> Row:
    """A fresh virtual environment with what the example asks for."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    python = place / "venv" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *PEER],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    subprocess.run(
        [str(python), "-c", "import torch, transformers, datasets, evaluate"], check=True, capture_output=True
    )
    seconds = time.perf_counter() - began
    versions = _versions(python)
    shutil.rmtree(place)
    return {"seconds": seconds, "steps": len(PEER_STEPS), "packages": len(versions), "pinned": False}


def _versions(python: Path) -> list[str]:
    found = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def report(rows: list[Row], figures: Path) -> str:
    """The section."""
    cells = []
    for who in dict.fromkeys(row["who"] for row in rows):
        of = [row for row in rows if row["who"] == who]
        seconds = sorted(row["seconds"] for row in of)
        said = f"{statistics.median(seconds):.0f}" + (
            f" ({seconds[0]:.0f} to {seconds[-1]:.0f})" if len(seconds) > 1 else ""
        )
        until = "a first trained model" if who == "isotrain" else "packages that import"
        cells.append([who, of[0]["steps"], said, until, of[0]["packages"], "yes" if of[0]["pinned"] else "no"])
    return "\n\n".join([
        common.table(["set-up", "commands", "seconds", "until", "packages", "fixed versions"], cells),
        f"Commands of isotrain: {'; '.join(OURS_STEPS)}. Of the example, by its README: {'; '.join(PEER_STEPS)}. Nothing is cached except by the package "
        "registry. isotrain also installs searches, contracts and explanations, and is timed until a trained model; the example is timed until its packages "
        "import, because its data comes from the Hub. Commands are counted, not the time people take for them.",
    ])  # fmt: skip
