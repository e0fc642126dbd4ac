"""What training needs of Lightning's private parts is in one file, and still there."""

import os
import re
import subprocess
import sys
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from tests.conftest import ROOT
from torch.utils.data import DataLoader

from trainers.lightning_internals import validate_at_the_end, validation_is_due

# An attribute with one underscore, of anything but the object itself and modules of ours.
PRIVATE = re.compile(r"(?<!self)(?<!cls)\.(?!_\w*__)_[a-z]\w*")
HOLDERS = re.compile(r"trainer|loop|fetcher|connector|strategy|callback|pl_module|datamodule")


def test_they_are_in_one_file() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if path.name != "lightning_internals.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in PRIVATE.finditer(line)
        if HOLDERS.search(re.split(r"[\s(,]", line[: match.start()])[-1])
    ]
    assert found == []


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watch(Checkpoint):  # called last, as the callback that writes checkpoints
    """Notes what `validation_is_due` says after each batch, and whether Lightning validated then."""

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at
        self.due: list[bool] = []
        self.validated: list[bool] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.stop_at
        self.due.append(validation_is_due(trainer))
        self.validated.append(False)

    def on_validation_start(self, *_: Any) -> None:
        self.validated[-1] = True


def build_trainer(settings: dict[str, Any], *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        **settings,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )


# Settings whose last batch, of 5 in each epoch, Lightning does not validate; the batch at which training is told to stop.
UNVALIDATED = [
    ({"max_epochs": 3, "check_val_every_n_epoch": 2}, None),
    ({"max_epochs": 2, "check_val_every_n_epoch": 5}, None),
    ({"max_epochs": 2, "val_check_interval": 0.4}, None),
    ({"max_epochs": 2, "val_check_interval": 3}, None),
    ({"max_epochs": 2, "val_check_interval": 4, "check_val_every_n_epoch": None}, None),
    ({"max_epochs": -1, "max_steps": 7}, None),
    ({"max_epochs": 9, "max_steps": 7, "check_val_every_n_epoch": 4}, None),
    ({"max_epochs": 9, "max_steps": 3, "min_epochs": 5}, None),
    ({"max_epochs": 3, "check_val_every_n_epoch": 2, "accumulate_grad_batches": 2}, None),
    ({"max_epochs": -1, "max_steps": 4, "check_val_every_n_epoch": 7, "accumulate_grad_batches": 2}, None),
    ({"max_epochs": 9, "check_val_every_n_epoch": 4}, 7),
    ({"max_epochs": 9, "check_val_every_n_epoch": 4, "min_epochs": 3}, 7),
    ({"max_epochs": 9, "check_val_every_n_epoch": 4, "min_steps": 13}, 7),
    ({"max_epochs": -1, "max_time": {"microseconds": 1}, "check_val_every_n_epoch": 4}, None),
    ({"max_epochs": 3, "check_val_every_n_epoch": 2, "limit_train_batches": 0.5}, None),
]
VALIDATED = [
    ({"max_epochs": 2}, None),
    ({"max_epochs": 2, "max_steps": 10}, None),
    ({"max_epochs": 4, "check_val_every_n_epoch": 2}, None),
    ({"max_epochs": 3}, 7),
]


@pytest.mark.parametrize(("settings", "stop_at"), [*UNVALIDATED, *VALIDATED])
def test_the_last_batch_of_training_is_validated_once(settings: dict[str, Any], stop_at: int | None) -> None:
    counts = []
    for final in (False, True):
        watch = Watch(stop_at)
        trainer = build_trainer(settings, watch)
        if final:
            validate_at_the_end(trainer)
        batches = DataLoader(torch.zeros(10, 1), batch_size=2)
        trainer.fit(Module(), batches, batches)
        assert watch.due == watch.validated
        counts.append(watch.validated)
    without, validated = counts
    assert without == [*validated[:-1], (settings, stop_at) in VALIDATED]
    assert validated[-1]


@pytest.mark.parametrize(
    ("settings", "stop_at"),
    [
        ({"max_epochs": 2}, None),
        ({"max_epochs": 2, "val_check_interval": 0.4}, None),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, None),
        ({"max_epochs": 2, "val_check_interval": 3, "check_val_every_n_epoch": None}, None),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, None),
        ({"max_epochs": 3}, 7),
    ],
)
def test_a_validation_is_due_when_lightning_validates(settings: dict[str, Any], stop_at: int | None) -> None:
    watch = Watch(stop_at)
    trainer = build_trainer(settings, watch)
    batches = DataLoader(torch.zeros(10, 1), batch_size=2)
    trainer.fit(Module(), batches, batches)
    assert any(watch.due)
    assert watch.due == watch.validated


def test_without_validations_none_is_due() -> None:
    watch = Watch(None)
    trainer = build_trainer({"max_epochs": 2, "limit_val_batches": 0}, watch)
    validate_at_the_end(trainer)
    batches = DataLoader(torch.zeros(10, 1), batch_size=2)
    trainer.fit(Module(), batches, batches)
    assert watch.due == [False] * 10


def test_imports_change_no_other_library() -> None:
    """torchmetrics' optional parts are there after ours: Lightning imports torchmetrics with them."""
    code = "import trainers.fit, trainers.encoders, datamodules.factory; from torchmetrics.detection import MeanAveragePrecision"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
