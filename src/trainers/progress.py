"""Progress of training and remaining time: a bar on a terminal, a log line now and then elsewhere."""

import contextlib
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from runs import trainjob_status
from trainers import console

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 30.0
_LOSS_INTERVAL_S = 0.5


class Progress(Callback):
    """Callback that shows the block at the start of a training, and one bar over all optimiser steps, on stderr."""

    def __init__(self, config: DictConfig, folder: Path) -> None:
        """Start with a disabled bar, which ignores updates.

        Args:
            config: the composed configuration.
            folder: the run folder.
        """
        self.config, self.folder = config, folder
        self.bar = tqdm(disable=True)
        self.log_above_bar = contextlib.ExitStack()
        self.first_step = 0
        self.total_steps: int | None = None
        self.started_at = self.logged_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the block, and open the bar."""
        self.first_step, self.total_steps = trainer.global_step, _total_steps(trainer)
        trainjob_status.report_step(self.first_step, self.total_steps)
        if trainer.is_global_zero:
            print(console.format_start(self.config, trainer, pl_module, self.folder), file=sys.stderr, flush=True)
        self.started_at = self.logged_at = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            self.logged_at = -math.inf  # the first step shows its loss
            self.bar = tqdm(
                total=self.total_steps,
                initial=trainer.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
                mininterval=0.2,
                disable=False,
                file=sys.stderr,
            )
            self.log_above_bar.enter_context(logging_redirect_tqdm())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar and the status of a TrainJob, or log a line."""
        trainjob_status.report_step(trainer.global_step, self.total_steps)
        moment = time.monotonic()
        if not self.bar.disable:
            if moment - self.logged_at > _LOSS_INTERVAL_S:  # a GPU must wait for each loss that is read
                self.logged_at = moment
                self.bar.set_postfix_str(f"loss {_loss(trainer, outputs)}", refresh=False)
            self.bar.update(trainer.global_step - self.bar.n)
        elif trainer.is_global_zero and moment - self.logged_at > _LINE_INTERVAL_S:
            self.logged_at = moment
            step, total = trainer.global_step, self.total_steps
            remaining = ""
            if total and step > self.first_step:
                seconds = (total - step) * (self.logged_at - self.started_at) / (step - self.first_step)
                remaining = f" of {total}, about {_duration(seconds)} left"
            rate = (step - self.first_step) / (moment - self.started_at)
            loss = _loss(trainer, outputs)
            logger.info(
                "epoch %d, step %d%s: loss %s, %.3g steps/s", trainer.current_epoch + 1, step, remaining, loss, rate
            )

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
        self.log_above_bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self.on_train_end(trainer, pl_module)


def _loss(trainer: pl.Trainer, outputs: Any) -> str:
    """The loss of a batch, which Lightning has divided by the number of accumulated batches."""
    return f"{float(outputs['loss']) * trainer.accumulate_grad_batches:.4g}"


def _total_steps(trainer: pl.Trainer) -> int | None:
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes} min" if minutes >= 2 else f"{round(seconds)} s"
