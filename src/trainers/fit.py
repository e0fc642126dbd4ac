"""Training with Lightning: the Trainer as configured, with our callbacks, from the start or from a checkpoint."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from config import process
from config.errors import InputError
from runs import folder as folders
from runs import metric_lines, predictions
from trainers import checkpoints, hardware, run
from trainers.checkpoints import CheckpointFiles, Checkpoints
from trainers.progress import Progress
from trainers.reporting import Reporting, StepSeeds, check_metrics
from trainers.signals import Signals
from trainers.task import Task

# Keys of conf/trainer that are ours; every other one is an argument of Lightning's Trainer.
ISOTRAIN_KEYS = (
    "threads",
    "on_divergence",
    "compile",
    "ema_decay",
    "early_stopping",
    "checkpoint_minutes",
    "checkpoint_steps",
)
# Arguments that are ours to give.
RESERVED_ARGUMENTS = (
    "logger",
    "callbacks",
    "enable_checkpointing",
    "enable_progress_bar",
    "default_root_dir",
    "num_sanity_val_steps",
    "use_distributed_sampler",
    "barebones",
)


def fit(
    config: DictConfig, data: pl.LightningDataModule, module: Any, loggers: list[Any], folder: Path
) -> dict[str, Any]:
    """Trains, or goes on training, until the configuration's end.

    Args:
        config: the whole composed configuration.
        data: prepared.
        module: of the same task; or a baseline, which learns without gradients.
        loggers: Lightning loggers.
        folder: the run's; checkpoints and predictions go there, metric lines where `metrics_file` says.

    Returns:
        The best validation: `metrics`, `epoch`, `step`, `details`. The module holds its weights.

    Raises:
        DivergenceError: the loss is not finite.
        SignalInterrupt: by SIGTERM or Ctrl-C; the checkpoint is written.
    """
    if not isinstance(module, Task):
        return _baseline(config, data, module, folder)
    if not hasattr(data, "train_batches"):
        raise InputError(
            f"{type(data).__name__} has no train_batches once it is set up, which resuming needs: docs/tasks.md, section 2"
        )
    signals = Signals()
    keeper = Checkpoints(
        folder / folders.CHECKPOINTS,
        config.monitor,
        config.task.metrics[config.monitor].mode,
        config.trainer.checkpoint_minutes,
        config.trainer.checkpoint_steps,
        signals,
    )
    metrics_file = Path(config.metrics_file or folder / folders.METRICS)
    every = config.trainer.log_every_n_steps or 50
    reporting = Reporting(metrics_file, folder, keeper, every, list(config.task.metrics))
    trainer = build_trainer(
        config, loggers, folder, [StepSeeds(config.seed), reporting, Progress(), _Handlers(signals), keeper]
    )
    start = run.resume(folder, metrics_file)
    if config.trainer.compile:
        module.model.compile()  # type: ignore[union-attr]
    signals.install()
    signals.training = True
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except ValueError as error:
        if "val_check_interval" in str(error):
            raise InputError(f"trainer.val_check_interval: {str(error).strip()}") from error
        raise
    finally:
        signals.training = False
        signals.restore()
    best = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if keeper.best:
        trainer.strategy.barrier()
        module.load_state_dict(checkpoints.read(best)["state_dict"])
        return keeper.best
    metrics = {"train_loss": value} if (value := reporting.training(trainer).get("train_loss")) is not None else {}
    return {"metrics": metrics, "epoch": trainer.current_epoch, "step": trainer.global_step, "details": {}}


def _baseline(config: DictConfig, data: pl.LightningDataModule, baseline: Any, folder: Path) -> dict[str, Any]:
    """Counts, predicts, and leaves what a model's validation leaves."""
    baseline.fit(data)
    metrics, rows, details = baseline.predict(data)
    check_metrics(metrics, list(config.task.metrics))
    if process.rank() == 0:
        predictions.write(folder / folders.PREDICTIONS, rows)
        metrics_file = Path(config.metrics_file or folder / folders.METRICS)
        metrics_file.unlink(missing_ok=True)
        metric_lines.write(metrics, 0, 0, jsonl_path=metrics_file)
    return {"metrics": metrics, "epoch": 0, "step": 0, "details": details}


def build_trainer(config: DictConfig, loggers: list[Any], folder: Path, callbacks: list[Any]) -> pl.Trainer:
    """Lightning's Trainer from conf/trainer.

    Raises:
        InputError: an argument that is ours to give, or values that Lightning refuses.
    """
    given: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    ours = {key: given.pop(key) for key in ISOTRAIN_KEYS}
    if taken := [key for key in RESERVED_ARGUMENTS if key in given]:
        raise InputError(f"trainer.{taken[0]} is set by train.py itself")
    callbacks = [*_optional_callbacks(config, ours), *callbacks]
    world = process.world_size()
    if world > 1:
        given |= _processes(given, world)
    given["sync_batchnorm"] = (
        bool(world > 1 and torch.cuda.is_available()) if given["sync_batchnorm"] is None else given["sync_batchnorm"]
    )
    given["precision"] = hardware.resolve_precision(given["precision"], given["accelerator"])
    given["plugins"] = [*_plugins(given), CheckpointFiles()]
    _quiet()
    try:
        return pl.Trainer(
            **given,
            logger=loggers or False,
            callbacks=callbacks,
            enable_checkpointing=True,
            enable_progress_bar=False,
            default_root_dir=str(folder),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {str(error).strip()}") from error


def _optional_callbacks(config: DictConfig, ours: dict[str, Any]) -> list[Any]:
    callbacks: list[Any] = []
    if ours["ema_decay"] is not None:
        from lightning.pytorch.callbacks import EMAWeightAveraging

        callbacks.append(EMAWeightAveraging(decay=ours["ema_decay"]))
    if ours["early_stopping"] is not None:
        from lightning.pytorch.callbacks import EarlyStopping

        callbacks.append(
            EarlyStopping(
                config.monitor,
                mode=config.task.metrics[config.monitor].mode,
                patience=ours["early_stopping"],
                check_on_train_epoch_end=False,
            )
        )
    return callbacks


def _processes(given: dict[str, Any], world: int) -> dict[str, Any]:
    """How the Trainer joins processes that somebody else started.

    torchrun says how many of them are on this machine; PyTorchJob without torchrun starts one on each.
    """
    from lightning.pytorch.strategies import DDPStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    changes: dict[str, Any] = {"devices": here, "num_nodes": world // here}
    if given["strategy"] in ("auto", "ddp"):
        # Buffers are brought together before each validation: ranks may validate unequal numbers of batches.
        changes["strategy"] = DDPStrategy(broadcast_buffers=False)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        from lightning.fabric.plugins.environments.kubeflow import KubeflowEnvironment

        changes["plugins"] = [*_plugins(given), KubeflowEnvironment()]
    return changes


def _plugins(given: dict[str, Any]) -> list[Any]:
    plugins = given["plugins"] or []
    return plugins if isinstance(plugins, list) else [plugins]


class _Handlers(pl.Callback):
    """Puts our signal handlers back after Lightning has put in its own, which talk to other processes from a handler."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The first hook after Lightning's handlers are in.
        self.signals.install()


def _quiet() -> None:
    """Leaves out what Lightning says to people who call it by hand."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for about in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*resuming from a checkpoint.*",
        ".*isinstance.treespec.*",
        ".*Checkpoint directory.*",
        ".*in eval mode at the start of training.*",
        ".*dataloader is not resumable.*",
        ".*weights_only.*",
        ".*GPU available but not used.*",
        ".*sync_dist=True.*",
        ".*zero length.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*rank_zero_only.*",
    ):
        warnings.filterwarnings("ignore", about)
