"""Progress of training and remaining time: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 30.0


class Progress(Callback):
    """Callback that shows one bar over all optimiser steps of the run, on stderr."""

    def __init__(self) -> None:
        """Start with a disabled bar, which ignores updates."""
        self.bar = tqdm(disable=True)
        self.first_step = 0
        self.started_at = self.logged_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self.first_step = trainer.global_step
        self.started_at = self.logged_at = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(
                total=_total_steps(trainer),
                initial=trainer.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
                mininterval=0.2,
                file=sys.stderr,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar, or log a line."""
        if not self.bar.disable:
            self.bar.update(trainer.global_step - self.bar.n)
        elif trainer.is_global_zero and time.monotonic() - self.logged_at > _LINE_INTERVAL_S:
            self.logged_at = time.monotonic()
            step, total = trainer.global_step, _total_steps(trainer)
            remaining = ""
            if total and step > self.first_step:
                seconds = (total - step) * (self.logged_at - self.started_at) / (step - self.first_step)
                remaining = f" of {total}, about {_duration(seconds)} left"
            logger.info("epoch %d, step %d%s", trainer.current_epoch + 1, step, remaining)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Label the bar as validating."""
        self.bar.set_description("validating")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clear the bar, so that the metric line is printed on a line of its own."""
        self.bar.set_description("training")
        self.bar.clear()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self.on_train_end(trainer, pl_module)


def _total_steps(trainer: pl.Trainer) -> int | None:
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes} min" if minutes >= 2 else f"{round(seconds)} s"
