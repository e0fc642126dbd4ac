"""Training with Lightning: the configured Trainer with isotrain's callbacks, from the start or from a checkpoint."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from omegaconf import DictConfig, OmegaConf

from config import process
from config.errors import InputError, first_line
from config.system_errors import to_expected_error
from runs import digests, metric_lines, predictions
from runs import folder as folders
from trainers import best_checkpoint, checkpoints, distributed, hardware, onnx_network
from trainers.checkpoint_files import CheckpointFiles
from trainers.checkpoints import Checkpoints
from trainers.lightning_internals import validate_at_the_end
from trainers.peers import is_lost_connection
from trainers.progress import Progress
from trainers.reporting import Reporting, StepSeeds, check_metrics
from trainers.signals import Signals
from trainers.task import Task

logger = logging.getLogger(__name__)

# Keys of conf/trainer that isotrain reads; every other key is an argument of Lightning's Trainer.
OWN_KEYS = (
    "threads",
    "on_divergence",
    "compile",
    "ema_decay",
    "early_stopping",
    "checkpoint_minutes",
    "checkpoint_steps",
)
# Arguments of Lightning's Trainer that isotrain sets.
FIXED_ARGUMENTS: dict[str, Any] = {
    "enable_checkpointing": True,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "barebones": False,
}
RESERVED_ARGUMENTS = (*FIXED_ARGUMENTS, "logger", "callbacks", "default_root_dir")


def fit(
    config: DictConfig, data: pl.LightningDataModule, module: Any, loggers: list[Any], folder: Path
) -> dict[str, Any]:
    """Train, or resume training, as configured.

    Args:
        config: the composed configuration.
        data: a data module that is set up.
        module: a LightningModule of the same task; or a baseline, which learns without gradients.
        loggers: Lightning loggers.
        folder: the run folder: for checkpoints, predictions and metric lines.

    Returns:
        The best validation: `metrics`, `epoch`, `step`, `details`; on rank zero the digests of its files; and `lost`, a
        message, if the weights of a better one were lost. The module has its weights.

    Raises:
        DivergenceError: the loss is not finite.
        SignalInterrupt: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    copy = folders.metrics_copy(folder, config.metrics_file)
    if not isinstance(module, Task):
        return _fit_baseline(config, data, module, folder, copy)
    if not hasattr(data, "train_batches"):
        raise InputError(
            f"{type(data).__name__} has no train_batches after setup, which resuming requires: see docs/tasks.md, section 2"
        )
    if config.trainer.overfit_batches:
        _repeat_batches(data)
    signals = Signals()
    writer = Checkpoints(
        folder / folders.CHECKPOINTS,
        config.monitor,
        config.task.metrics[config.monitor].mode,
        config.trainer.checkpoint_minutes,
        config.trainer.checkpoint_steps,
        signals,
    )
    log_steps = config.trainer.log_every_n_steps or 50
    reporting = Reporting(folder, copy, writer, log_steps, list(config.task.metrics))
    # The first hook after Lightning installs its signal handlers, which communicate with other processes.
    signal_handlers = LambdaCallback(on_train_start=lambda *_: signals.install())
    restored: list[int] = []  # the step from which training starts
    start_marker = LambdaCallback(on_train_start=lambda trainer, _: restored.append(trainer.global_step))
    callbacks = [StepSeeds(config.seed), reporting, Progress(config, folder), signal_handlers, start_marker, writer]
    trainer = build_trainer(config, loggers, folder, callbacks)
    start, remembered, writer.recovered = checkpoints.prepare_resume(folder, copy)
    if start is not None and remembered and not writer.recovered:
        latest = checkpoints.read(start)
        module.load_state_dict(latest["state_dict"])
        epoch, step = int(latest["epoch"]) + 1, int(latest["global_step"])
        writer.recovered = _replace_best(config, data, module, folder, remembered, epoch, step)
    if mode := config.trainer.compile:
        module.model.compile(mode=None if mode is True else mode)  # type: ignore[union-attr]
    signals.install()
    signals.begin_training()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except Exception as error:
        explanation = _explain_error(error, None if restored else start)
        if explanation is None:
            raise
        raise explanation from error
    finally:
        signals.restore()
        signals.stop_deferring()
    signals.end_training()
    # Checkpoints written by earlier versions have no `validated_step`.
    validated = trainer.global_step if writer.best and writer.validated_step is None else writer.validated_step
    if trainer.enable_validation and trainer.global_step and validated != trainer.global_step:
        raise InputError(
            f"{start} is at step {trainer.global_step}, after the last validation, and trainer.max_steps or "
            "trainer.max_epochs ends training before it: raise them, so that the result is validated"
        )
    if writer.best:
        trainer.strategy.barrier()
        return _load_best(config, data, module, folder, writer.best, trainer)
    logger.warning(
        "training ended without a validation (trainer.limit_val_batches=%s, trainer.limit_train_batches=%s): there are no "
        "predictions and no best checkpoint, and the model is that of the last step",
        config.trainer.limit_val_batches,
        config.trainer.limit_train_batches,
    )
    loss = reporting.training_metrics(trainer).get("train_loss")
    metrics = {} if loss is None else {"train_loss": loss}
    return {"metrics": metrics, "epoch": trainer.current_epoch, "step": trainer.global_step, "details": {}}


def _load_best(
    config: DictConfig, data: Any, module: Task, folder: Path, best: dict[str, Any], trainer: pl.Trainer
) -> dict[str, Any]:
    """Load the weights of the best validation after training; if they are lost, validate those of the last step again.

    Returns:
        The best validation that is left.
    """
    path = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if not distributed.decide_on_rank_zero(lambda: best_checkpoint.matches(path, best)):
        best = _replace_best(config, data, module, folder, best, trainer.current_epoch, trainer.global_step)
    else:
        module.load_state_dict(checkpoints.read(path)["state_dict"])
        if not distributed.decide_on_rank_zero(lambda: best_checkpoint.has_predictions(folder, best)):
            logger.warning("%s is not of the best validation: its weights are validated again", folders.PREDICTIONS)
            _validate(config, data, module, folder)
    if process.rank() == 0:
        path.with_name(folders.PREVIOUS_BEST_CHECKPOINT).unlink(missing_ok=True)
    return best


def _replace_best(
    config: DictConfig, data: Any, module: Task, folder: Path, lost: dict[str, Any], epoch: int, step: int
) -> dict[str, Any]:
    """Validate the weights of a module, and make them the best, in place of those that are lost.

    Returns:
        The new best validation.
    """
    path = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    message = best_checkpoint.describe_loss(lost, config.monitor)
    logger.warning(
        "%s is damaged, missing or of another validation: %s; those of step %d are validated again", path, message, step
    )
    _validate(config, data, module, folder)
    content = {"metrics": dict(module.metrics), "epoch": epoch, "step": step, "details": module.details}
    best: dict[str, Any] = {**content, "lost": message}
    if process.rank() == 0:
        best[best_checkpoint.DIGEST] = checkpoints.write({"state_dict": module.state_dict(), **content}, path)
        best[best_checkpoint.PREDICTIONS_DIGEST] = digests.file_digest(folder / folders.PREDICTIONS)
    return best


def _validate(config: DictConfig, data: Any, module: Task, folder: Path) -> None:
    """Validate the weights of a module outside of training, and write the predictions. A collective."""
    trainer = build_trainer(config, [], folder, [])
    trainer.validate(module, datamodule=data, verbose=False)
    check_metrics(module.metrics, list(config.task.metrics))
    if trainer.is_global_zero:
        predictions.write(folder / folders.PREDICTIONS, module.rows)
    module.rows = ()


def _explain_error(error: Exception, checkpoint: Path | None) -> InputError | None:
    """Return what the user can change after an error of Lightning's fit; None if it is no error of an input.

    Args:
        error: the exception.
        checkpoint: the one that was being restored; None if there is none, or training had started.
    """
    if isinstance(error, MisconfigurationException):  # of values that Lightning compares with the number of batches
        return InputError(f"trainer: {str(error).strip()}")
    if isinstance(error, ValueError) and "val_check_interval" in str(error):
        return InputError(f"trainer.val_check_interval: {str(error).strip()}")
    is_expected = isinstance(getattr(to_expected_error(error), "exit_code", None), int)
    if checkpoint is None or is_expected or is_lost_connection(error):
        return None
    return InputError(
        f"training cannot go on from {checkpoint} ({type(error).__name__}: {first_line(error)}): it is damaged, or of "
        "another version; move it away to go on from the previous checkpoint, or start in another folder"
    )


def _fit_baseline(
    config: DictConfig, data: pl.LightningDataModule, baseline: Any, folder: Path, copy: Path | None
) -> dict[str, Any]:
    """Fit a baseline, and write the predictions and metrics of one validation."""
    baseline.fit(data)
    metrics, rows, details = baseline.predict(data)
    check_metrics(metrics, list(config.task.metrics))
    if process.rank() == 0:
        predictions.write(folder / folders.PREDICTIONS, rows)
        history = folder / folders.METRICS
        for path in (history, copy):
            if path is not None:
                metric_lines.truncate_lines(path, 0)
        metric_lines.write(metrics, 0, 0, jsonl_path=history, copy=copy)
    return {"metrics": metrics, "epoch": 0, "step": 0, "details": details}


def _repeat_batches(data: Any) -> None:
    """Train on the same batches in every epoch. (Lightning would replace the sampler, and with it the batches.)"""
    if not hasattr(data.train_batches, "repeat"):
        raise InputError(
            f"trainer.overfit_batches: the train_batches of {type(data).__name__} have no attribute `repeat`, which "
            "keeps the order of the first epoch; use trainer.limit_train_batches"
        )
    data.train_batches.repeat = True


def check_trainer(config: DictConfig, folder: Path) -> None:
    """Check that Lightning's Trainer can be built as configured, before any data is prepared.

    Raises:
        InputError: what `build_trainer` refuses, or too many workers for this machine. A baseline needs no Trainer.
    """
    process.check_processes("data.workers", int(config.data.get("workers") or 0))
    onnx_network.refuse_training(config.model.get("pretrained"))
    if not str(config.model._target_).startswith("trainers.baselines."):
        build_trainer(config, [], folder, [])


def build_trainer(config: DictConfig, loggers: list[Any], folder: Path, callbacks: list[Any]) -> pl.Trainer:
    """Build Lightning's Trainer from conf/trainer.

    Args:
        config: the composed configuration.
        loggers: Lightning loggers.
        folder: the run folder.
        callbacks: callbacks after the optional ones of the configuration.

    Raises:
        InputError: an argument that isotrain sets, values that Lightning refuses or that need a package that is not
            installed, or a strategy that shards the model.
    """
    arguments: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    options = {key: arguments.pop(key) for key in OWN_KEYS}
    if reserved := [key for key in RESERVED_ARGUMENTS if key in arguments]:
        raise InputError(f"trainer.{reserved[0]} is set by train.py; remove it")
    world = process.world_size()
    if world > 1:
        arguments |= _distributed_arguments(arguments, world)
    else:
        _check_processes(arguments)
        if arguments["devices"] == "auto":
            arguments["devices"] = 1  # Lightning would start a process for each GPU, and they would not find each other
    if arguments["sync_batchnorm"] is None:
        arguments["sync_batchnorm"] = bool(world > 1 and distributed.choose_backend(arguments["accelerator"]) == "nccl")
    arguments["precision"] = hardware.resolve_precision(arguments["precision"], arguments["accelerator"])
    arguments["plugins"] = [*_plugins(arguments), CheckpointFiles()]
    if share := arguments.pop("overfit_batches"):
        arguments |= {"limit_train_batches": share, "limit_val_batches": share}
    _silence_lightning()
    try:
        trainer = pl.Trainer(
            **arguments,
            **FIXED_ARGUMENTS,
            logger=loggers or False,
            callbacks=[*_optional_callbacks(config, options), *callbacks],
            default_root_dir=str(folder),
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        if "backend found" in str(error) or "can not run on your system" in str(error):
            raise InputError(
                f"trainer.accelerator={config.trainer.accelerator}: this machine has none that torch can use; set "
                "trainer.accelerator=auto or cpu"
            ) from error
        raise InputError(f"trainer: {str(error).strip()}") from error
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        raise InputError(
            f"trainer.strategy={config.trainer.strategy} distributes the weights over processes, which isotrain's "
            "checkpoints and gradient clipping do not support; use ddp"
        )
    if type(trainer.strategy.launcher).__module__.endswith(".multiprocessing"):
        raise InputError(
            f"trainer.strategy={config.trainer.strategy} starts processes from this one, which cannot share a run; "
            "use ddp with torchrun (docs/distributed.md)"
        )
    if world == 1 and trainer.world_size > 1:
        raise InputError(
            f"trainer.devices={config.trainer.devices}: torchrun starts the processes: torchrun "
            f"--nproc-per-node={trainer.world_size} train.py …, without trainer.devices (docs/distributed.md)"
        )
    validate_at_the_end(trainer)
    return trainer


def _check_processes(arguments: dict[str, Any]) -> None:
    """Check the number of devices where each is a process on the CPU; Lightning itself counts GPUs."""
    devices = str(arguments["devices"])
    uses_cpus = arguments["accelerator"] == "cpu" or (
        arguments["accelerator"] == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    if uses_cpus and devices.isdecimal() and len(devices) < 10:
        process.check_processes("trainer.devices", int(devices))


def _optional_callbacks(config: DictConfig, options: dict[str, Any]) -> list[Any]:
    callbacks: list[Any] = []
    if options["ema_decay"] is not None:
        from lightning.pytorch.callbacks import EMAWeightAveraging

        callbacks.append(EMAWeightAveraging(decay=options["ema_decay"]))
    if options["early_stopping"] is not None:
        from lightning.pytorch.callbacks import EarlyStopping

        callbacks.append(
            EarlyStopping(
                config.monitor,
                mode=config.task.metrics[config.monitor].mode,
                patience=options["early_stopping"],
                check_on_train_epoch_end=False,
            )
        )
    return callbacks


def _distributed_arguments(arguments: dict[str, Any], world: int) -> dict[str, Any]:
    """Return the Trainer's arguments for processes that a launcher started.

    torchrun sets how many of them run on this machine; PyTorchJob without torchrun starts one on each.
    """
    from lightning.pytorch.strategies import DDPStrategy

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    changes: dict[str, Any] = {"devices": local, "num_nodes": world // local}
    if arguments["strategy"] in ("auto", "ddp"):
        # Buffers are broadcast before each validation instead: ranks may validate unequal numbers of batches.
        changes["strategy"] = DDPStrategy(broadcast_buffers=False)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        from lightning.fabric.plugins.environments.kubeflow import KubeflowEnvironment

        changes["plugins"] = [*_plugins(arguments), KubeflowEnvironment()]
    return changes


def _plugins(arguments: dict[str, Any]) -> list[Any]:
    plugins = arguments["plugins"] or []
    return plugins if isinstance(plugins, list) else [plugins]


def _silence_lightning() -> None:
    """Suppress messages of Lightning for people who call it by hand."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
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
        warnings.filterwarnings("ignore", message)
