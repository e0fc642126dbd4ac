"""Every precision that Lightning offers learns a small regression with every optimiser, or is refused before data is read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader, TensorDataset

from config.compose import compose
from config.errors import InputError
from trainers import fit
from trainers.task import Task

SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9, "nesterov": True}
ADAMW = {"_target_": "torch.optim.AdamW"}
FUSED = {"fused": True}
PRECISIONS = ("64-true", "32-true", "bf16-true", "16-true", "bf16-mixed", "scaled")


class Regression(Task):
    def __init__(self, optimizer: dict[str, Any]) -> None:
        constant = {"weight_decay": 0.0, "layer_decay": 1.0, "schedule": "constant", "warmup": 0, "horizon": None}
        super().__init__({"optimizer": optimizer, "lr": 0.05, **constant})
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.model(inputs), targets)


def loss_after_training(optimizer: dict[str, Any], precision: str, **settings: Any) -> float:
    torch.manual_seed(0)
    inputs = torch.randn(128, 4)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]]) + 1
    module = Regression(optimizer)
    # Lightning scales no loss on a CPU, torch does; a scale above float16's largest number skips the first steps.
    scaler = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    trainer = pl.Trainer(
        **({"plugins": [scaler]} if precision == "scaled" else {"precision": precision}),
        **settings,
        max_epochs=25,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(inputs, targets), batch_size=16))
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(module.model.float()(inputs), targets))


@pytest.mark.parametrize("optimizer", [SGD, ADAMW, SGD | FUSED, ADAMW | FUSED], ids=["sgd", "adamw", "fsgd", "fadamw"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_are_clipped_after_they_are_unscaled(optimizer: dict[str, Any], precision: str) -> None:
    # Clipped before, or not unscaled at all, it ends above 1.
    assert loss_after_training(optimizer, precision, gradient_clip_val=1.0) < 0.05


@pytest.mark.parametrize(
    "settings", [{"gradient_clip_val": None}, {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}]
)
@pytest.mark.parametrize("optimizer", [SGD | FUSED, ADAMW | FUSED], ids=["sgd", "adamw"])
def test_other_kinds_of_clipping_learn_with_a_scaled_loss(optimizer: dict[str, Any], settings: dict[str, Any]) -> None:
    assert loss_after_training(optimizer, "scaled", **settings) < 0.05


@pytest.mark.parametrize(
    "override",
    [
        "trainer.precision=fp8",
        "trainer.precision=transformer-engine",
        "trainer.precision=8",
        "trainer.strategy=fsdp",
        "trainer.strategy=deepspeed",
        "trainer.accelerator=gpu",
        "trainer.devices=0",
        "trainer.devices=2",
        "trainer.overfit_batches=1.5",
        "trainer.max_time=tomorrow",
        "trainer.profiler=none_such",
    ],
)
def test_values_that_lightning_refuses_are_refused_before_data_is_read(override: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trainer"):
        fit.check_trainer(
            compose([*(["trainer.accelerator=cpu"] if "accel" not in override else []), override]), tmp_path
        )


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_shard_weights_are_refused(
    strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning itself refuses them on a machine without a GPU."""
    monkeypatch.setattr(pl, "Trainer", lambda **_: SimpleNamespace(strategy=strategy()))
    with pytest.raises(InputError, match="distributes the weights over processes"):
        fit.check_trainer(compose(["trainer.accelerator=cpu"]), tmp_path)


def test_a_baseline_needs_no_trainer(tmp_path: Path) -> None:
    fit.check_trainer(compose(["model=majority", "trainer.precision=fp8"]), tmp_path)
