"""What a run says while it trains: metric lines, the loggers' curves, predictions, and that the loss is finite."""

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
    """Sums up training between validations, and prints a metric line after each.

    The sum of losses stays on the device: reading it at every step would make a GPU wait. So a loss that is not finite
    is noticed within `trainer.log_every_n_steps` steps, and always before anything is saved or printed.
    """

    def __init__(
        self, metrics_file: Path, folder: Path, checkpoints: Checkpoints, every: int, declared: Collection[str]
    ) -> None:
        self.metrics_file, self.folder, self.checkpoints, self.every = metrics_file, folder, checkpoints, every
        self.declared = set(declared)
        self.loss: torch.Tensor | None = None
        self.batches = 0
        self.examples = 0
        self.seconds = 0.0
        self.started: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, so that a resumed run reports the same training loss."""
        loss = None if self.loss is None else float(self.loss)
        return {"loss": loss, "batches": self.batches, "examples": self.examples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up again."""
        loss = state_dict["loss"]
        self.loss = None if loss is None else torch.tensor(loss, dtype=torch.float64)
        self.batches, self.examples = state_dict["batches"], state_dict["examples"]
        self.seconds = state_dict["seconds"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock."""
        if self.started is None:
            self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch up; every few steps logs it."""
        loss = outputs["loss"].detach().to(torch.float64) * trainer.accumulate_grad_batches
        if self.loss is not None and self.loss.device != loss.device:
            self.loss = self.loss.to(loss.device)
        self.loss = loss if self.loss is None else self.loss + loss
        self.batches += 1
        self.examples += len(next(iter(batch.values()))) * trainer.world_size
        if loss.device.type == "cpu" or trainer.global_step % self.every == 0:
            self._check_finite(self.loss, trainer.global_step)
        if trainer.loggers and trainer.global_step % self.every == 0 and trainer.is_global_zero:
            values = {"train_loss": float(loss), "lr": trainer.optimizers[0].param_groups[0]["lr"]}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the clock, once the device has done what it was given."""
        if self.loss is not None:
            self._check_finite(self.loss, trainer.global_step)
        if self.started is not None:
            self.seconds += time.perf_counter() - self.started
            self.started = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the metric line; keeps the predictions when they are the best so far."""
        assert isinstance(pl_module, Task)
        check_metrics(pl_module.metrics, self.declared)
        for name, value in pl_module.metrics.items():
            if not math.isfinite(value):
                raise DivergenceError(
                    f"{name} is {value} at step {trainer.global_step}: training diverged; try a smaller optim.lr"
                )
        values = {**self.training(trainer), **pl_module.metrics}
        best = self.checkpoints.monitor in values and self.checkpoints.improves(values[self.checkpoints.monitor])
        if trainer.is_global_zero:
            if best:
                predictions.write(self.folder / folders.PREDICTIONS, pl_module.rows)
            metric_lines.write(values, trainer.current_epoch + 1, trainer.global_step, jsonl_path=self.metrics_file)
            self.checkpoints.lines += 1
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
        pl_module.rows = ()
        self.loss, self.batches, self.examples, self.seconds = None, 0, 0, 0.0

    def training(self, trainer: pl.Trainer) -> dict[str, float]:
        """Training's own metrics since the last validation."""
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
        """Ends training on all ranks together when the loss of one is not finite. A collective."""
        value = float(total)
        if not distributed.any_rank(not math.isfinite(value), total.device):
            return
        value = next(other for other in distributed.gather(value) if not math.isfinite(other))
        raise DivergenceError(
            f"the training loss is {value} at step {step}: training diverged; try a smaller "
            "optim.lr, or trainer.on_divergence=report_worst where a search must go on"
        )


def check_metrics(reported: Collection[str], declared: Collection[str]) -> None:
    """Holds a validation to the metrics that the task's YAML declares.

    Raises:
        InputError: it reports others.
    """
    if set(reported) != set(declared):
        raise InputError(
            f"the validation reports {', '.join(sorted(reported)) or 'no metrics'}, and the task's YAML declares "
            f"{', '.join(sorted(declared))}: they must be the same"
        )


class StepSeeds(Callback):
    """Makes the randomness of a step a function of the seed, the rank and the step.

    So a resumed run drops the same units and crops the same corners as one that was never stopped, with no state of
    any random number generator to save.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds torch's generators for this step."""
        torch.manual_seed(step_seed(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx))


def step_seed(seed: int, rank: int, epoch: int, batch: int) -> int:
    """63 bits from four whole numbers: each multiplied in and mixed as in SplitMix64 (Steele et al. 2014)."""
    state = 0
    for number in (seed, rank, epoch, batch):
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state >> 1


def peak_memory_mib() -> float:
    """Most memory held at once, in MiB: the GPU's allocations where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
