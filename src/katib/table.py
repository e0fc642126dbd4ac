"""Trials as a table, for a terminal or a pipe."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence

from config import terminal
from config.numbers import format_number
from katib.experiment import Experiment
from katib.trials import ENDED, Trial, best_trial


def trial_lines(trials: Sequence[Trial], experiment: Experiment, max_rows: int | None = None) -> list[str]:
    """Return a header and a line for each trial, as wide as the terminal (in a pipe, as wide as they are); the best value is marked with *.

    Args:
        trials: in the order of their start.
        experiment: the Experiment that they belong to.
        max_rows: number of rows to show: running trials and the best first, then the latest.
    """
    if not trials:
        return []
    best, rows = best_trial(trials, experiment.maximize), list(trials)
    if max_rows is not None and len(rows) > max_rows:
        important = [trial for trial in rows if trial.status not in ENDED or trial is best]
        rest = [trial for trial in rows if trial not in important]
        free = max(0, max_rows - len(important))
        selection = important + rest[len(rest) - free :]
        rows = [trial for trial in rows if trial in selection]
    names = list(trials[0].assignments)
    # The last part of a parameter's name is enough if it is unique.
    short_names = [name.rpartition(".")[2] for name in names]
    header = [short if short_names.count(short) == 1 else name for name, short in zip(names, short_names, strict=True)]
    cells = [
        [
            trial.name,
            trial.status,
            ("*" if trial is best else "") + ("" if trial.value is None else format_number(trial.value, 6)),
            *(_format_assignment(trial.assignments[name]) for name in names),
        ]
        for trial in rows
    ]
    titles = ["trial", "status", experiment.objective, *header]
    return terminal.format_table(titles, cells, _width()).split("\n")


def _width() -> int:
    """Columns of the terminal; a pipe has no end, so that a program finds whole names."""
    return terminal.terminal_width() if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000


def status_counts(trials: Sequence[Trial]) -> str:
    """Return the number of trials of each status: `3 Running, 8 Succeeded, 1 Failed`."""
    counts = Counter(trial.status for trial in trials)
    order = ("Running", *ENDED)
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "no trials yet"


def _format_assignment(value: str) -> str:
    try:
        return format_number(float(value), 4) if "." in value or "e" in value.lower() else value
    except ValueError:
        return value


class LiveTable:
    """Progress of a search: a table that is redrawn on a terminal, a line for each ended trial elsewhere."""

    def __init__(self, experiment: Experiment, total: int | None) -> None:
        self.experiment, self.total = experiment, total
        self.drawn_lines = 0
        self.reported: set[str] = set()

    def show(self, trials: Sequence[Trial]) -> None:
        """Show all trials so far."""
        if sys.stderr.isatty():
            return self._draw(trials)
        for trial in trials:
            if trial.status in ENDED and trial.name not in self.reported:
                self.reported.add(trial.name)
                value = "" if trial.value is None else f" {self.experiment.objective}={format_number(trial.value, 6)}"
                reason = f" ({trial.reason})" if trial.reason else ""
                point = " ".join(f"{name}={_format_assignment(text)}" for name, text in trial.assignments.items())
                print(f"{trial.name} {trial.status}{value} {point}{reason}", file=sys.stderr, flush=True)

    def show_message(self, text: str) -> None:
        """Print a message; on a terminal the table is drawn below it."""
        print(f"isotrain: {text}", file=sys.stderr, flush=True)
        self.drawn_lines = 0

    def skip_ended(self, trials: Sequence[Trial]) -> None:
        """Skip the trials that have already ended."""
        self.reported |= {trial.name for trial in trials if trial.status in ENDED}

    def _draw(self, trials: Sequence[Trial]) -> None:
        total = f" of {self.total}" if self.total else ""
        ended = sum(trial.status in ENDED for trial in trials)
        lines = [f"{ended}{total} trials: {status_counts(trials)}"]
        lines += trial_lines(trials, self.experiment, max(4, shutil.get_terminal_size((80, 24)).lines - 4))
        erase = f"\x1b[{self.drawn_lines}F\x1b[J" if self.drawn_lines else ""
        print(erase + "\n".join(lines), file=sys.stderr, flush=True)
        self.drawn_lines = len(lines)
