"""How far training is and how long it still takes: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 30.0


class Progress(Callback):
    """One bar over all optimiser steps of the run, on stderr."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.said_at = time.monotonic()
        self.first = 0
        self.began_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar."""
        self.first, self.began_at = trainer.global_step, time.monotonic()
        self.said_at = self.began_at
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(
                total=_steps(trainer),
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
        """Moves it."""
        if self.bar is not None:
            self.bar.update(trainer.global_step - self.bar.n)
        elif trainer.is_global_zero and time.monotonic() - self.said_at > _LINE_EVERY_S:
            self.said_at = time.monotonic()
            done, total = trainer.global_step, _steps(trainer)
            left = ""
            if total and done > self.first:
                seconds = (total - done) * (self.said_at - self.began_at) / (done - self.first)
                left = f" of {total}, about {_duration(seconds)} left"
            logger.info("epoch %d, step %d%s", trainer.current_epoch + 1, done, left)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that it is validating."""
        if self.bar is not None:
            self.bar.set_description("validating")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clears the line, so that the metric line stands on one of its own."""
        if self.bar is not None:
            self.bar.set_description("training")
            self.bar.clear()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves the terminal as it was."""
        self.on_train_end(trainer, pl_module)


def _steps(trainer: pl.Trainer) -> int | None:
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes} min" if minutes >= 2 else f"{round(seconds)} s"
