"""Checkpoints: the last, the previous and the best one; and resuming from them.

Checkpoints are written after every validation, every few minutes, and on a signal, always between two optimiser steps.
Lightning restores its loops exactly at two moments only: the end of a batch after which no validation is due, and the
end of a validation. Checkpoints are therefore written at these moments. Lightning composes a checkpoint,
`CheckpointFiles` writes it.
"""

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
from config.errors import InputError, ResourceError, SignalInterrupt, input_errors
from config.retries import RESTARTED
from config.system_errors import to_expected_error
from runs import folder as folders
from runs import metric_lines
from trainers import distributed
from trainers.lightning_internals import training_ends, validation_is_due
from trainers.signals import Signals
from trainers.task import Task
from trainers.weights import describe_read_error

logger = logging.getLogger(__name__)

_CLOCK_STEPS = 32  # optimiser steps between two looks at rank zero's clock


class CheckpointFiles(CheckpointIO):
    """Lightning's plugin for checkpoint files: written atomically and synced, read without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: composed by Lightning.
            path: the file.
            storage_options: `keep`, a path to which an existing file is moved; `beside_weights`, entries of a file that
                holds these and the weights only.
        """
        options = storage_options or {}
        if "beside_weights" in options:
            checkpoint = {"state_dict": checkpoint["state_dict"], **options["beside_weights"]}
        write(checkpoint, Path(path), keep=options.get("keep"))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, tensors and plain values only, whatever the arguments."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Callback that writes checkpoints and tracks the best validation.

    Attributes:
        best: metrics, epoch, step and details of the best validation; empty before the first.
        lines: number of metric lines written.
        validated_step: optimiser steps at the last validation; None before the first, and in old checkpoints.
    """

    def __init__(
        self, folder: Path, monitor: str, mode: str, minutes: float | None, steps: int | None, signals: Signals
    ) -> None:
        """Set when to write.

        Args:
            folder: the folder of the checkpoints.
            monitor: name of the metric that decides which validation is the best.
            mode: "min" or "max".
            minutes: time between two checkpoints; None for no limit.
            steps: optimiser steps between two checkpoints; None for no limit.
            signals: signals after which training ends.
        """
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.minutes, self.steps, self.signals = minutes, steps, signals
        self.best: dict[str, Any] = {}
        self.lines = 0
        self.validated_step: int | None = None
        self.saved_at = time.monotonic()
        self.step = 0  # optimiser steps at the end of the last batch
        self.batch = 0  # finished batches of this epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the best validation, the step of the last one and the number of metric lines."""
        return {"best": self.best, "lines": self.lines, "validated_step": self.validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best validation, the step of the last one and the number of metric lines."""
        self.best, self.lines = state_dict["best"], state_dict["lines"]
        self.validated_step = state_dict.get("validated_step")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the position in the data, which is all the state of the data's order."""
        checkpoint["position"] = {"epoch": trainer.current_epoch, "batch": self.batch}
        # Early stopping is final; the end of max_steps is not, as a longer run with the same horizon may follow.
        checkpoint["should_stop"] = bool(trainer.should_stop)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the position in the data."""
        position = checkpoint["position"]
        self.batch = position["batch"]
        batches = trainer.datamodule.train_batches  # type: ignore[attr-defined]
        epoch_done = position["batch"] >= len(batches)
        batches.set_epoch(position["epoch"] + epoch_done)
        batches.set_start(0 if epoch_done else position["batch"])
        trainer.should_stop = checkpoint["should_stop"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the steps of a resumed run."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when a checkpoint is due, and end training after a signal."""
        step, previous_step = trainer.global_step, self.step
        self.step, self.batch = step, batch_idx + 1
        if step == previous_step:
            return  # gradients are being accumulated
        if validation_is_due(trainer):
            return  # the validation saves
        signum = self.signals.agreed(step, pl_module.device)
        due = (self.steps is not None and step % self.steps == 0) or self._time_is_up(trainer) or training_ends(trainer)
        if due or signum:
            self.save(trainer)
        if signum:
            self._interrupt(signum)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the weights if they are the best so far, and a checkpoint."""
        assert isinstance(pl_module, Task)
        if trainer.state.fn != "fit" or self.monitor not in pl_module.metrics:
            return
        self.validated_step = trainer.global_step
        if self.improves(pl_module.metrics[self.monitor]):
            self.best = {
                "metrics": dict(pl_module.metrics),
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "details": pl_module.details,
            }
            # A full checkpoint, reduced to its weights on writing: callbacks that average weights replace them in it.
            trainer.save_checkpoint(
                self.folder / folders.BEST_CHECKPOINT, weights_only=False, storage_options={"beside_weights": self.best}
            )
        self.save(trainer)
        if signum := self.signals.agreed(None, pl_module.device):
            self._interrupt(signum)

    def improves(self, value: float) -> bool:
        """Whether a value of the monitored metric is better than the best so far."""
        if not self.best:
            return True
        best: float = self.best["metrics"][self.monitor]
        return value < best if self.mode == "min" else value > best

    def save(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt, and move the previous one to last-1.ckpt."""
        self.saved_at = time.monotonic()
        trainer.save_checkpoint(
            self.folder / folders.LAST_CHECKPOINT,
            weights_only=False,
            storage_options={"keep": self.folder / folders.PREVIOUS_CHECKPOINT},
        )

    def _interrupt(self, signum: int) -> None:
        path = self.folder / folders.LAST_CHECKPOINT
        raise SignalInterrupt(signum, f"interrupted; {path} is written, the same command resumes from it")

    def _time_is_up(self, trainer: pl.Trainer) -> bool:
        """Whether `minutes` have passed on rank zero; the clocks of ranks differ. A collective every few steps."""
        if self.minutes is None or (trainer.world_size > 1 and trainer.global_step % _CLOCK_STEPS):
            return False
        late = trainer.is_global_zero and time.monotonic() - self.saved_at > 60 * self.minutes
        return distributed.any_rank(late, trainer.strategy.root_device)


def write(checkpoint: dict[str, Any], path: Path, keep: Path | None = None) -> None:
    """Write a checkpoint atomically: a reader, or a crash, sees the old file or the new one.

    Args:
        checkpoint: tensors and plain values only.
        path: the file.
        keep: a path to which an existing file is moved.

    Raises:
        ResourceError: the disk is full. The old checkpoint is unchanged.
    """
    try:
        with files.atomic_write(path) as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # before the old file is moved
            if keep is not None and path.exists():
                path.replace(keep)
    except (OSError, RuntimeError) as error:
        expected = to_expected_error(error)
        if isinstance(expected, ResourceError):
            previous = "; the previous checkpoint is unchanged" if path.exists() else ""
            raise ResourceError(f"{path}: {expected}{previous}") from error
        raise


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain values only: nothing in it is executed.

    Raises:
        InputError: not a checkpoint, or an incomplete one.
    """
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a complete checkpoint")
    with input_errors(lambda error: f"{path} cannot be read as a checkpoint: {describe_read_error(error)}"):
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def read_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest checkpoint that is readable.

    Returns:
        Its path and content; None if there is no checkpoint.

    Raises:
        InputError: there are checkpoints, and none is readable.
    """
    problems = []
    for path in (folder / folders.LAST_CHECKPOINT, folder / folders.PREVIOUS_CHECKPOINT):
        if path.exists():
            try:
                return path, read(path)
            except InputError as error:
                problems.append(str(error))
                logger.warning("%s; trying the previous one", error)
    if problems:
        raise InputError("; ".join(problems) + ": start in another folder, or delete this one")
    return None


def prepare_resume(folder: Path, copy: Path | None = None) -> Path | None:
    """Prepare a run folder for training. A collective: all ranks get rank zero's choice.

    metrics.jsonl is truncated to the lines of the checkpoint, which are reported again: the process that goes on may run
    in another pod, whose metrics collector has seen none of them. Without a checkpoint it becomes empty.

    Args:
        folder: the run folder.
        copy: a second file of the metric lines; None if there is none.

    Returns:
        The checkpoint to resume from; None to train from the start.

    Raises:
        InputError: there are checkpoints, and none is readable.
    """
    history = folder / folders.METRICS

    def choose() -> Path | None:
        latest = read_latest(folder / folders.CHECKPOINTS)
        if latest is None:
            for file in (history, copy):
                if file is not None:
                    metric_lines.truncate_lines(file, 0)
            return None
        path, checkpoint = latest
        logger.info("resuming from %s", path)
        state = next((state for key, state in checkpoint["callbacks"].items() if key.startswith("Checkpoints")), None)
        if state is None:
            return path
        if copy is not None and copy.is_file() and not history.exists():  # a run of a version that wrote one file
            files.copy_file(copy, history)
        metric_lines.truncate_lines(history, state["lines"])
        if history.exists():
            metric_lines.repeat(metric_lines.read(history), copy, show=RESTARTED not in os.environ)
        return path

    return distributed.decide_on_rank_zero(choose)
