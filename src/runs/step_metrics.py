"""Values of every logged training step, from the files of the CSV logger in a run folder."""

import csv
import math
from pathlib import Path

from config import parsing

NAMES = ("train_loss", "lr")  # what training logs every trainer.log_every_n_steps steps
MAX_BYTES = 64 << 20  # of all files of a run: a million steps


def read(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the training loss and the learning rate of a run at every logged step.

    A resumed run has a file for each session (csv/version_0, version_1, ...); from the first step of a session on, its
    values count.

    Args:
        folder: the run folder.

    Returns:
        (step, value) by name, in the order of steps; empty if the run's logger is another one, or a file cannot be read.
    """
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=_session)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    try:
        if sum(file.stat().st_size for file in files) > MAX_BYTES:
            return {}
        for file in files:
            session = _read_session(file)
            if not session["lr"]:
                continue
            first = session["lr"][0][0]
            for name, points in session.items():
                rows[name] = [point for point in rows[name] if point[0] < first] + points
    except (OSError, ValueError, csv.Error):
        return {}
    return {name: points for name, points in rows.items() if points}


def _session(file: Path) -> int:
    number = file.parent.name.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _read_session(file: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the points of one file. Rows of training steps have a learning rate; those of validations do not.

    Raises:
        ValueError: the file is not a table of numbers.
    """
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    parsing.check_regular(file)
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if not row.get("lr") or not row.get("step"):
                continue
            step = float(row["step"])
            for name in NAMES:
                value = float(row.get(name) or "nan")
                if math.isfinite(step) and math.isfinite(value):
                    points[name].append((step, value))
    return points
