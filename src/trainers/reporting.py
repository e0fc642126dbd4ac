"""Callbacks of training: metric lines, logged curves, predictions, finite losses, and the seed of each step."""

import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from config.errors import DivergenceError, InputError
from runs import folder as folders
from runs import metric_lines, predictions
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.task import Task


class Reporting(Callback):
    """Callback that aggregates training between validations, and prints a metric line after each.

    The sum of losses stays on the device: reading it at every step would make a GPU wait. A loss that is not finite is
    therefore detected within `trainer.log_every_n_steps` steps, and always before anything is saved or printed.
    """

    def __init__(
        self, folder: Path, copy: Path | None, checkpoints: Checkpoints, log_steps: int, declared: Collection[str]
    ) -> None:
        """Set the outputs.

        Args:
            folder: the run folder, for metric lines and predictions.
            copy: a second file of the metric lines; None if there is none.
            checkpoints: callback that tracks the best validation.
            log_steps: optimiser steps between two points of the loggers' curves.
            declared: metrics that the task's YAML declares.
        """
        self.folder, self.copy, self.checkpoints = folder, copy, checkpoints
        self.log_steps, self.declared = log_steps, declared
        self.loss: torch.Tensor | None = None
        self.batches = 0
        self.examples = 0
        self.seconds = 0.0
        self.started: float | None = None
        self.lr = 0.0  # of the step that a batch belongs to

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last validation, so that a resumed run reports the same training loss."""
        loss = None if self.loss is None else float(self.loss)
        return {"loss": loss, "batches": self.batches, "examples": self.examples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums since the last validation."""
        loss = state_dict["loss"]
        self.loss = None if loss is None else torch.tensor(loss, dtype=torch.float64)
        self.batches, self.examples = state_dict["batches"], state_dict["examples"]
        self.seconds = state_dict["seconds"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, and note the learning rate, which the scheduler changes before the end of the step."""
        self.lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        if self.started is None:
            self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch to the sums, and log it every few steps."""
        loss = outputs["loss"].detach().to(torch.float64) * trainer.accumulate_grad_batches
        if self.loss is not None and self.loss.device != loss.device:
            self.loss = self.loss.to(loss.device)
        self.loss = loss if self.loss is None else self.loss + loss
        self.batches += 1
        self.examples += len(next(iter(batch.values()))) * trainer.world_size
        log_step = trainer.global_step % self.log_steps == 0
        if loss.device.type == "cpu" or log_step:
            self._check_finite(self.loss, trainer.global_step)
        if trainer.loggers and log_step and trainer.is_global_zero:
            values = {"train_loss": float(loss), "lr": self.lr}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock, after the device has finished training."""
        if self.loss is not None:
            self._check_finite(self.loss, trainer.global_step)
        if self.started is not None:
            self.seconds += time.perf_counter() - self.started
            self.started = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the metric line, and write the predictions if they are the best so far."""
        assert isinstance(pl_module, Task)
        check_metrics(pl_module.metrics, self.declared)
        for name, value in pl_module.metrics.items():
            if not math.isfinite(value):
                raise DivergenceError(
                    f"{name} is {value} at step {trainer.global_step}: training diverged; try a smaller optim.lr"
                )
        values = {**self.training_metrics(trainer), **pl_module.metrics}
        best = self.checkpoints.monitor in values and self.checkpoints.improves(values[self.checkpoints.monitor])
        if trainer.is_global_zero:
            if best:
                predictions.write(self.folder / folders.PREDICTIONS, pl_module.rows)
            epoch, step = trainer.current_epoch + 1, trainer.global_step
            line = metric_lines.write(values, epoch, step, jsonl_path=self.folder / folders.METRICS, copy=self.copy)
            self.checkpoints.lines += 1
            for logger in trainer.loggers:
                logger.log_metrics(line.values, step=step)
        pl_module.rows = ()
        self.loss, self.batches, self.examples, self.seconds = None, 0, 0, 0.0

    def training_metrics(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the metrics of training since the last validation. A collective."""
        values: dict[str, float] = {}
        if self.loss is not None and self.batches:
            mean = float(self.loss) / self.batches
            values["train_loss"] = sum(distributed.gather(mean)) / trainer.world_size
        if self.seconds > 0:
            values["train_examples_per_second"] = round(self.examples / self.seconds, 3)
        values["peak_memory_mib"] = round(peak_memory_mib(), 1)
        return values

    @staticmethod
    def _check_finite(total: torch.Tensor, step: int) -> None:
        """End training on all ranks together if the loss of one is not finite. A collective."""
        value = float(total)
        if not distributed.any_rank(not math.isfinite(value), total.device):
            return
        value = next(loss for loss in distributed.gather(value) if not math.isfinite(loss))
        raise DivergenceError(
            f"the training loss is {value} at step {step}: training diverged; try a smaller "
            "optim.lr, or trainer.on_divergence=report_worst in a search that must continue"
        )


def check_metrics(reported: Collection[str], declared: Collection[str]) -> None:
    """Check that a validation reports the metrics that the task's YAML declares.

    Raises:
        InputError: it reports others.
    """
    if set(reported) != set(declared):
        raise InputError(
            f"the validation reports {', '.join(sorted(reported)) or 'no metrics'}, and the task's YAML declares "
            f"{', '.join(sorted(declared))}: they must be the same"
        )


class StepSeeds(Callback):
    """Callback that makes the randomness of a step a function of the seed, the rank and the step.

    A resumed run thus drops the same units and crops the same corners as an uninterrupted one, without saving the state
    of random number generators.
    """

    def __init__(self, seed: int) -> None:
        """Set the seed of the run."""
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch's generators for this step."""
        torch.manual_seed(step_seed(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx))


def step_seed(seed: int, rank: int, epoch: int, batch: int) -> int:
    """Derive a seed of 63 bits, each number multiplied in and mixed as in SplitMix64 (Steele et al. 2014)."""
    state = 0
    for number in (seed, rank, epoch, batch):
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state >> 1


def peak_memory_mib() -> float:
    """Return the peak memory in MiB: the GPU's allocations if the process uses one, else the resident set of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
