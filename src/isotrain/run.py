"""A run: its folder, and what is in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import InputError


@dataclass(frozen=True)
class Run:
    """A run folder, as it was read.

    Attributes:
        folder: The folder.
        record: run.json, see docs/runs.md.
    """

    folder: Path
    record: dict[str, Any]

    def __repr__(self) -> str:
        """Folder, status and metrics: what a notebook shows."""
        metrics = ", ".join(f"{name}={value:.5g}" for name, value in self.metrics.items())
        return f"Run({str(self.folder)!r}, {self.status}, {metrics})"

    @property
    def status(self) -> str:
        """The status: finished, interrupted, diverged, failed, running, or one of `python -m runs list`."""
        from runs.listing import run_status

        return run_status(self.folder, self.record)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics, of the weights in model/; empty before the end."""
        return dict(self.record.get("metrics") or {})

    @property
    def history(self) -> Any:
        """A pandas data frame of the metric lines: time, epoch, step and metrics."""
        from runs import metric_lines
        from runs.folder import METRICS

        lines = metric_lines.read(self.folder / METRICS) if (self.folder / METRICS).exists() else []
        rows = [{"time": line.time, "epoch": line.epoch, "step": line.step, **line.values} for line in lines]
        return data_frame(rows)

    @property
    def predictions(self) -> Any:
        """A pandas data frame of predictions.jsonl: a row for each example of the validation split."""
        import json

        from runs.folder import PREDICTIONS

        path = self.folder / PREDICTIONS
        if not path.exists():
            raise InputError(f"{self.folder} has no {PREDICTIONS}: the run is {self.status}")
        return data_frame([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def data_frame(rows: list[dict[str, Any]]) -> Any:
    """Return rows as a pandas data frame.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise InputError("data frames need pandas: pip install pandas") from None
    return pd.DataFrame(rows)
