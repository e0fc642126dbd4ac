"""Base class of the tasks' LightningModules: optimisation, and metrics reduced over processes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate

from trainers import distributed
from trainers.lightning_internals import unscale_gradients
from trainers.optimizers import build_scheduler, optimizer_errors, parameter_groups

# Metrics; a row of predictions.jsonl for each example; details for run.json.
Result = tuple[dict[str, float], Iterable[dict[str, Any]], dict[str, Any]]


class Task(pl.LightningModule):
    """A LightningModule whose training step returns the mean loss and whose validation yields metrics and rows.

    Attributes:
        metrics: metrics of the last validation, on every rank.
        rows: rows of predictions.jsonl of the last validation, on rank zero.
        details: details of the last validation for run.json, on every rank.
        collected: what `validation_step` appended on this rank.
        new_parameters: names of the parameters of a pretrained network's head that its checkpoint lacks.
    """

    def __init__(self, optim: Mapping[str, Any]) -> None:
        """Set the optimiser's configuration (conf/optim)."""
        super().__init__()
        self.optim = dict(optim)
        self.metrics: dict[str, float] = {}
        self.rows: Iterable[dict[str, Any]] = ()
        self.details: dict[str, Any] = {}
        self.collected: list[Any] = []
        self.new_parameters: tuple[str, ...] = ()
        # A rank may have no batch of a small validation split.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def configure_optimizers(self) -> Any:
        """Build the optimiser and the schedule of conf/optim."""
        optim = self.optim
        groups = parameter_groups(self.named_parameters(), optim["lr"], optim["weight_decay"], optim["layer_decay"])
        with optimizer_errors():
            optimizer = instantiate(optim["optimizer"], _partial_=True, _convert_="all")(groups, lr=optim["lr"])
        steps = self.trainer.estimated_stepping_batches  # infinite if only the time is limited
        horizon = optim["horizon"] or (int(steps) if math.isfinite(steps) else 1)
        schedule = build_scheduler(optimizer, optim["schedule"], optim["warmup"], horizon)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Unscale gradients, then clip them in one pass.

        Lightning refuses to clip with a fused optimiser under mixed precision, because the optimiser unscales in its step.
        """
        unscale_gradients(self.trainer, optimizer)
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_validation_start(self) -> None:
        """Broadcast buffers (batch norm's running averages may differ), so that all ranks validate the same model."""
        self.collected = []
        if torch.distributed.is_initialized():
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Gather what every rank collected, score it on rank zero, and broadcast the metrics."""
        counted = getattr(getattr(self.trainer.val_dataloaders, "sampler", None), "counted", True)
        parts = distributed.gather(self.collected if counted else [])
        self.collected = []

        def score() -> tuple[dict[str, float], dict[str, Any]]:
            metrics, self.rows, details = self.score([item for part in parts for item in part])
            return metrics, details

        self.metrics, self.details = distributed.decide_on_rank_zero(score)  # divergence ends all ranks
        self.log_dict(self.metrics, logger=False, rank_zero_only=True)

    def score(self, collected: list[Any]) -> Result:
        """Compute metrics, rows and details from what the validation steps of all ranks collected."""
        raise NotImplementedError

    def export(self, folder: str) -> None:
        """Write the model folder, which transformers or timm load without isotrain."""
        raise NotImplementedError
