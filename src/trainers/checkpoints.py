"""Checkpoints: last, the one before it, and the best; and going on from them.

Written after every validation, every few minutes, and on a signal, always between two optimiser steps. Lightning's
loops are restored exactly from two kinds of moments only, a batch end at which no validation is due, and the end
of a validation, so those are the moments. Lightning composes a checkpoint, `CheckpointFiles` writes it.
"""

import errno
import logging
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from config import files
from config.errors import InputError, ResourceError, SignalInterrupt
from runs import folder as folders
from runs import metric_lines
from trainers.lightning_internals import validation_is_due
from trainers.signals import Signals
from trainers.task import Task

logger = logging.getLogger(__name__)


class CheckpointFiles(CheckpointIO):
    """Lightning's plugin for checkpoint files: atomic, synced to the disk, and read without running anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: composed by Lightning.
            path: of the file.
            storage_options: `keep`, where the file that is there now is kept; `beside_weights`, what a file holds that
                has the weights and nothing else of the checkpoint.
        """
        options = storage_options or {}
        if "beside_weights" in options:
            checkpoint = {"state_dict": checkpoint["state_dict"], **options["beside_weights"]}
        write(checkpoint, Path(path), keep=options.get("keep"))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads one, to the CPU and weights only, whatever is given."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Removes one."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Writes checkpoints and remembers which validation was the best.

    Attributes:
        best: the best validation so far: its metrics, epoch, step and details; empty before the first.
        lines: how many metric lines had been written.
    """

    def __init__(
        self, folder: Path, monitor: str, mode: str, minutes: float | None, steps: int | None, signals: Signals
    ) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.minutes, self.steps, self.signals = minutes, steps, signals
        self.best: dict[str, Any] = {}
        self.lines = 0
        self.saved_at = time.monotonic()
        self.step = 0  # optimiser steps at the end of the last batch
        self.batch = 0  # batches of this epoch that are done

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know of this one."""
        return {"best": self.best, "lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it up again."""
        self.best, self.lines = state_dict["best"], state_dict["lines"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the position in the data, which is all the state that the data's order has."""
        checkpoint["position"] = {"epoch": trainer.current_epoch, "batch": self.batch}
        # Early stopping is for good; the end of max_steps is not, where a horizon lets it be moved.
        checkpoint["should_stop"] = bool(trainer.should_stop) and not 0 < trainer.max_steps <= trainer.global_step

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the data's order where it was."""
        position = checkpoint["position"]
        self.batch = position["batch"]
        batches = trainer.datamodule.train_batches  # type: ignore[attr-defined]
        batches.set_epoch(position["epoch"])
        batches.set_start(position["batch"] if position["batch"] < len(batches) else 0)
        if position["batch"] >= len(batches):
            batches.set_epoch(position["epoch"] + 1)
        trainer.should_stop = checkpoint["should_stop"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Counts from the steps of a run that is resumed."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time to, and leaves when a signal asked for it."""
        step, before, self.step, self.batch = trainer.global_step, self.step, trainer.global_step, batch_idx + 1
        if step == before:
            return  # gradients are being accumulated
        if 0 < trainer.max_steps <= step:
            trainer.should_stop = True  # so that Lightning validates before it ends
        if validation_is_due(trainer):
            return  # the validation saves
        leaving = self.signals.agreed(step, pl_module.device)
        due = self.steps is not None and step % self.steps == 0
        if trainer.world_size == 1:  # clocks of several processes do not agree
            due = due or (self.minutes is not None and time.monotonic() - self.saved_at > 60 * self.minutes)
        else:
            due = due or self._clock_of_rank_zero(step, pl_module)
        if due or leaving:
            self.save(trainer)
        if leaving:
            self._leave(leaving)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the weights when they are the best so far, and saves."""
        assert isinstance(pl_module, Task)
        if trainer.state.fn != "fit" or self.monitor not in pl_module.metrics:
            return
        if self.improves(pl_module.metrics[self.monitor]):
            self.best = {
                "metrics": dict(pl_module.metrics),
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "details": pl_module.details,
            }
            # Whole, and cut down to the weights when it is written: callbacks that average weights put them in.
            trainer.save_checkpoint(
                self.folder / folders.BEST_CHECKPOINT, weights_only=False, storage_options={"beside_weights": self.best}
            )
        self.save(trainer)
        if leaving := self.signals.agreed(None, pl_module.device):
            self._leave(leaving)

    def improves(self, value: float) -> bool:
        """Whether a value of the monitored metric is better than the best so far."""
        if not self.best:
            return True
        best: float = self.best["metrics"][self.monitor]
        return value < best if self.mode == "min" else value > best

    def save(self, trainer: pl.Trainer) -> None:
        """Writes last.ckpt; the one before it stays as last-1.ckpt."""
        self.saved_at = time.monotonic()
        trainer.save_checkpoint(
            self.folder / folders.LAST_CHECKPOINT,
            weights_only=False,
            storage_options={"keep": self.folder / folders.PREVIOUS_CHECKPOINT},
        )

    def _leave(self, signum: int) -> None:
        raise SignalInterrupt(
            signum, f"interrupted; {self.folder / folders.LAST_CHECKPOINT} is written, the same command goes on from it"
        )

    def _clock_of_rank_zero(self, step: int, module: pl.LightningModule) -> bool:
        from trainers import distributed

        if self.minutes is None or step % 32:
            return False
        return distributed.any_rank(
            module.global_rank == 0 and time.monotonic() - self.saved_at > 60 * self.minutes, module.device
        )


def write(checkpoint: dict[str, Any], path: Path, keep: Path | None = None) -> None:
    """Writes a checkpoint so that a reader, and a crash, sees the old one or the new one.

    Args:
        checkpoint: tensors and plain values only.
        path: where.
        keep: where the file that is there now is kept.

    Raises:
        ResourceError: the disk is full. The old checkpoint is still there.
    """
    try:
        with files.atomic_write(path) as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # before the old one goes
            if keep is not None and path.exists():
                path.replace(keep)
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "PytorchStreamWriter" in str(error):
            raise ResourceError(f"no space left for {path}; what was saved before is still there") from error
        raise


def read(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, tensors and plain values only: nothing in it is executed.

    Raises:
        InputError: not a checkpoint, or a torn one.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise InputError(f"{path} is not a whole checkpoint")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {path}") from error
    except Exception as error:
        raise InputError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error


def read_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its content; None where there is none.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    damaged = []
    for path in (folder / folders.LAST_CHECKPOINT, folder / folders.PREVIOUS_CHECKPOINT):
        if path.exists():
            try:
                return path, read(path)
            except InputError as error:
                damaged.append(str(error))
                logger.warning("%s; trying the one before it", error)
    if damaged:
        raise InputError("; ".join(damaged) + ": start in another folder, or delete this one")
    return None


def truncate_metrics(metrics_file: Path, checkpoint: dict[str, Any]) -> None:
    """Cuts metrics.jsonl back to what had been written when the checkpoint was."""
    state = next((state for key, state in checkpoint["callbacks"].items() if key.startswith("Checkpoints")), None)
    if state is not None and metrics_file.exists():
        metric_lines.truncate_lines(metrics_file, state["lines"])
