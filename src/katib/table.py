"""Trials as a table, for a terminal or a pipe."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from config import terminal
from config.numbers import format_number
from katib.trials import ENDED, Trial


def trial_lines(
    trials: Sequence[Trial], objective: str, maximize: bool, room: int, most: int | None = None
) -> list[str]:
    """A head and a line for each trial, the best marked with *.

    Args:
        trials: in order of their beginning.
        objective: the metric searched by.
        maximize: its direction.
        room: columns.
        most: rows at most: running ones first, then the latest.
    """
    valued = [each for each in trials if each.value is not None]
    best = (max if maximize else min)(valued, key=lambda each: each.value or 0.0, default=None)
    shown = list(trials)
    if most is not None and len(shown) > most:
        kept = [each for each in shown if each.status not in ENDED or each is best]
        rest = [each for each in shown if each not in kept]
        kept += rest[len(rest) - max(0, most - len(kept)) :] if most > len(kept) else []
        shown = [each for each in shown if each in kept]
    names = list(trials[0].assignments) if trials else []
    # A parameter's last word is enough where it is unique.
    short = [name.rpartition(".")[2] for name in names]
    heads = [word if short.count(word) == 1 else name for name, word in zip(names, short, strict=True)]
    rows = [
        [
            each.name,
            each.status,
            ("*" if each is best else "") + ("" if each.value is None else format_number(each.value, 6)),
            *(_short(each.assignments[name]) for name in names),
        ]
        for each in shown
    ]
    return terminal.format_table(["trial", "status", objective, *heads], rows, room).split("\n") if rows else []


def status_counts(trials: Sequence[Trial]) -> str:
    """`3 Running, 8 Succeeded, 1 Failed`."""
    found = Counter(each.status for each in trials)
    order = ("Running", *ENDED)
    return ", ".join(f"{found[status]} {status}" for status in order if found[status]) or "no trials yet"


def _short(value: str) -> str:
    try:
        return format_number(float(value), 4) if "." in value or "e" in value.lower() else value
    except ValueError:
        return value


class LiveTable:
    """Shows a search while it runs: a table that is drawn again on a terminal, a line for each end elsewhere."""

    def __init__(self, objective: str, maximize: bool, total: int | None, stream: TextIO = sys.stderr) -> None:
        self.objective, self.maximize, self.total, self.stream = objective, maximize, total, stream
        self.drawn = 0
        self.said: set[str] = set()
        self.terminal = stream.isatty()

    def show(self, trials: Sequence[Trial]) -> None:
        """Takes all trials so far."""
        if self.terminal:
            return self._draw(trials)
        for each in trials:
            if each.status in ENDED and each.name not in self.said:
                self.said.add(each.name)
                value = "" if each.value is None else f" {self.objective}={format_number(each.value, 6)}"
                reason = f" ({each.reason})" if each.reason else ""
                told = " ".join(f"{name}={_short(text)}" for name, text in each.assignments.items())
                print(f"{each.name} {each.status}{value} {told}{reason}", file=self.stream, flush=True)

    def already(self, trials: Sequence[Trial]) -> None:
        """Trials that had ended before: nothing is said of them again."""
        self.said |= {each.name for each in trials if each.status in ENDED}

    def _draw(self, trials: Sequence[Trial]) -> None:
        import shutil

        room, height = shutil.get_terminal_size((80, 24))
        total = f" of {self.total}" if self.total else ""
        ended = sum(each.status in ENDED for each in trials)
        text = [f"{ended}{total} trials: {status_counts(trials)}"]
        text += trial_lines(trials, self.objective, self.maximize, max(room, 40), max(4, height - 4))
        back = f"\x1b[{self.drawn}F\x1b[J" if self.drawn else ""
        self.stream.write(back + "\n".join(text) + "\n")
        self.stream.flush()
        self.drawn = len(text)
