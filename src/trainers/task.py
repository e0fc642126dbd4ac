"""What the tasks' LightningModules share: optimisation, the reduction of metrics over processes."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate

from trainers import distributed
from trainers.optimizers import build_scheduler, parameter_groups

# Metrics; a row for each example; what else there is to say, for run.json.
Result = tuple[dict[str, float], Iterable[dict[str, Any]], dict[str, Any]]


class Task(pl.LightningModule):
    """A LightningModule whose training step returns the mean loss and whose validation leaves metrics and rows.

    Attributes:
        metrics: of the last validation, on every rank.
        rows: of the last validation, on rank zero: predictions.jsonl's content.
        details: of the last validation, on every rank: what run.json says beside the metrics.
        example_count: examples in the last training batch, over all processes.
    """

    def __init__(self, optim: Mapping[str, Any]) -> None:
        """Takes the optimiser's configuration (conf/optim)."""
        super().__init__()
        self.optim = dict(optim)
        self.metrics: dict[str, float] = {}
        self.rows: Iterable[dict[str, Any]] = ()
        self.details: dict[str, Any] = {}
        self.collected: list[Any] = []
        self.example_count = 0
        # A rank may have no batch of a small validation split.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def configure_optimizers(self) -> Any:
        """The optimiser and schedule of conf/optim."""
        optim = self.optim
        groups = parameter_groups(self.named_parameters(), optim["lr"], optim["weight_decay"], optim["layer_decay"])
        optimizer = instantiate(optim["optimizer"], _partial_=True, _convert_="all")(groups, lr=optim["lr"])
        horizon = optim["horizon"] or int(self.trainer.estimated_stepping_batches)
        schedule = build_scheduler(optimizer, optim["schedule"], optim["warmup"], horizon)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips in one pass. (Lightning refuses to with a fused optimiser under mixed precision.)"""
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_validation_start(self) -> None:
        """Starts a validation with the same buffers on every rank (batch norm's running averages may differ)."""
        self.collected = []
        if torch.distributed.is_initialized():
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Brings together what every rank collected, scores it on rank zero, and tells all."""
        counted = getattr(getattr(self.trainer.val_dataloaders, "sampler", None), "counted", True)
        parts = distributed.gather(self.collected if counted else [])
        self.collected = []

        def score() -> tuple[dict[str, float], dict[str, Any]]:
            metrics, self.rows, details = self.score([item for part in parts for item in part])
            return metrics, details

        self.metrics, self.details = distributed.decide_on_rank_zero(score)  # a model that has diverged ends all ranks
        self.log_dict(self.metrics, logger=False, rank_zero_only=True)

    def score(self, collected: list[Any]) -> Result:
        """Metrics, rows and details from what the validation steps of all ranks collected."""
        raise NotImplementedError

    def export(self, folder: str) -> None:
        """Writes the model folder, for transformers or timm to load without us."""
        raise NotImplementedError
