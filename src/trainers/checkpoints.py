"""Checkpoints: the last, the previous and the best one; and resuming from them.

Checkpoints are written after every validation, every few minutes, and on a signal, always between two optimiser steps.
Lightning restores its loops exactly at two moments only: the end of a batch after which no validation is due, and the
end of a validation. Checkpoints are therefore written at these moments. Lightning composes a checkpoint,
`checkpoint_files.CheckpointFiles` writes it.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from config import files
from config.errors import SignalInterrupt
from config.retries import RESTARTED
from runs import digests, metric_lines
from runs import folder as folders
from trainers import best_checkpoint, distributed
from trainers.checkpoint_files import CheckpointFiles as CheckpointFiles
from trainers.checkpoint_files import check_content as check_content
from trainers.checkpoint_files import read as read
from trainers.checkpoint_files import read_latest as read_latest
from trainers.checkpoint_files import write as write
from trainers.lightning_internals import training_ends, validation_is_due
from trainers.signals import Signals
from trainers.task import Task

logger = logging.getLogger(__name__)

_CLOCK_STEPS = 32  # optimiser steps between two looks at rank zero's clock


class Checkpoints(Checkpoint):
    """Callback that writes checkpoints and tracks the best validation.

    Attributes:
        best: metrics, epoch, step and details of the best validation, and on rank zero the SHA-256 of its checkpoint and of
            its predictions; empty before the first.
        recovered: replaces the best validation that a checkpoint remembers.
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
        self.recovered: dict[str, Any] = {}
        self.remembered_step: int | None = None  # of the best validation that last.ckpt remembers
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
        self.best, self.lines = self.recovered or state_dict["best"], state_dict["lines"]
        self.remembered_step = state_dict["best"].get("step")
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
        """Count from the steps of a resumed run, and from the metric lines that it still has."""
        self.step = trainer.global_step
        if trainer.is_global_zero:
            self.lines = metric_lines.count_lines(self.folder.parent / folders.METRICS)

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
                **({"lost": self.best["lost"]} if "lost" in self.best else {}),
            }
            # A full checkpoint, reduced to its weights on writing: callbacks that average weights replace them in it.
            options = {
                "beside_weights": dict(self.best),
                "keep": self.folder / folders.PREVIOUS_BEST_CHECKPOINT,
                "on_written": self._record_digests,
            }
            path = self.folder / folders.BEST_CHECKPOINT
            trainer.save_checkpoint(path, weights_only=False, storage_options=options)
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
        """Write last.ckpt, and move the previous one to last-1.ckpt. A best-1.ckpt that neither remembers is removed."""
        self.saved_at = time.monotonic()
        trainer.save_checkpoint(
            self.folder / folders.LAST_CHECKPOINT,
            weights_only=False,
            storage_options={"keep": self.folder / folders.PREVIOUS_CHECKPOINT},
        )
        step = self.best.get("step")
        if trainer.is_global_zero and step == self.remembered_step:
            (self.folder / folders.PREVIOUS_BEST_CHECKPOINT).unlink(missing_ok=True)
        self.remembered_step = step

    def _record_digests(self, digest: str) -> None:
        """Tie the best validation to its checkpoint and its predictions; called on rank zero, which writes them."""
        self.best[best_checkpoint.DIGEST] = digest
        predictions = self.folder.parent / folders.PREDICTIONS
        if predictions.is_file():
            self.best[best_checkpoint.PREDICTIONS_DIGEST] = digests.file_digest(predictions)

    def _interrupt(self, signum: int) -> None:
        path = self.folder / folders.LAST_CHECKPOINT
        raise SignalInterrupt(signum, f"interrupted; {path} is written, the same command resumes from it")

    def _time_is_up(self, trainer: pl.Trainer) -> bool:
        """Whether `minutes` have passed on rank zero; the clocks of ranks differ. A collective every few steps."""
        if self.minutes is None or (trainer.world_size > 1 and trainer.global_step % _CLOCK_STEPS):
            return False
        late = trainer.is_global_zero and time.monotonic() - self.saved_at > 60 * self.minutes
        return distributed.any_rank(late, trainer.strategy.root_device)


def prepare_resume(folder: Path, copy: Path | None = None) -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
    """Prepare a run folder for training. A collective: all ranks get rank zero's choice.

    metrics.jsonl is truncated to the lines of the checkpoint, which are reported again: the process that goes on may run
    in another pod, whose metrics collector has seen none of them. Without a checkpoint it becomes empty.

    Args:
        folder: the run folder.
        copy: a second file of the metric lines; None if there is none.

    Returns:
        The checkpoint to resume from, None to train from the start; the best validation that it remembers; and the same
        with the digest of its weights, empty if these are lost.

    Raises:
        InputError: there are checkpoints, and none is readable.
    """
    history = folder / folders.METRICS

    def choose() -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
        latest = read_latest(folder / folders.CHECKPOINTS, check_content)
        if latest is None:
            for file in (history, copy):
                if file is not None:
                    metric_lines.truncate_lines(file, 0)
            return None, {}, {}
        path, checkpoint = latest
        logger.info("resuming from %s", path)
        state = next((state for key, state in checkpoint["callbacks"].items() if key.startswith("Checkpoints")), None)
        if state is None:
            return path, {}, {}
        if copy is not None and copy.is_file() and not history.exists():  # a run of a version that wrote one file
            files.copy_file(copy, history)
        lines = metric_lines.truncate_lines(history, state["lines"])
        if lines < state["lines"]:
            logger.warning(
                "%s %s: the checkpoint counts %d metric lines, and %d of them can be read; the others are lost, and training "
                "goes on without them",
                history, "is damaged" if history.exists() else "is missing", state["lines"], lines,
            )  # fmt: skip
        if history.exists():
            metric_lines.repeat(metric_lines.read(history), copy, show=RESTARTED not in os.environ)
        return path, state["best"], best_checkpoint.restore(path.parent, checkpoint, state["best"])

    return distributed.decide_on_rank_zero(choose)
