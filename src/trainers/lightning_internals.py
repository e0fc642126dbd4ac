"""Private parts of Lightning that training needs; tests/test_lightning_internals.py checks them."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the training batch that is ending."""
    # There is no public way, and a checkpoint before a validation that is due would be resumed without it.
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def training_ends(trainer: pl.Trainer) -> bool:
    """Whether the training batch that is ending is the last one: of max_steps, of max_epochs, or of a stop."""
    fit_loop = trainer.fit_loop
    if 0 < fit_loop.max_steps <= trainer.global_step or (trainer.should_stop and fit_loop._can_stop_early):
        return True
    if not fit_loop.epoch_loop._num_ready_batches_reached():
        return False
    epochs = fit_loop.epoch_progress.current.processed + 1  # type: ignore[attr-defined]  # once this epoch has ended
    # A stop before min_epochs or min_steps takes effect at the end of an epoch.
    stops = epochs >= (fit_loop.min_epochs or 0) and trainer.global_step >= (fit_loop.min_steps or 0)
    return 0 < (fit_loop.max_epochs or -1) <= epochs or (trainer.should_stop and stops)


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, which always validates at the end of training, too."""

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        if super()._should_check_val_fx(data_fetcher):
            return True
        # A checkpoint that is written after a validation is resumed behind it, also if more steps or epochs follow.
        validated = self.restarting and self.restarted_on_last
        return bool(self.trainer.enable_validation) and (validated or training_ends(self.trainer))


def validate_at_the_end(trainer: pl.Trainer) -> None:
    """Make a new Trainer validate after the last batch of training."""
    loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = EpochLoop(trainer, loop.min_steps, loop.max_steps)


def unscale_gradients(trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> None:
    """Unscale the gradients of an optimiser that would do so in its step, as the fused ones of torch do.

    `torch.amp.GradScaler.step` passes no scale to an optimiser whose gradients are unscaled. Lightning unscales those of
    the other optimisers.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and _optimizer_handles_unscaling(optimizer):
        scaler.unscale_(optimizer)
