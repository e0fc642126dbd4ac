"""Weights that a new run starts from: of a checkpoint, a run, a model folder, or a population's previous generation.

In population-based training a trial continues with the weights of its parent, a trial of the generation before. They are
in the parent's run folder (`population_parent`), or in a folder that Katib copies from the parent to the trial
(`population_dir`), which its service makes for root alone where storage ignores `fsGroup`.
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import InputError
from runs import digests
from runs import folder as folders
from trainers import checkpoints, encoders, weights
from trainers.task import Task

logger = logging.getLogger(__name__)

POPULATION_WEIGHTS = "weights.ckpt"  # in the population folder


def find_source(config: DictConfig) -> str | None:
    """Return `init_from`, else the weights of the previous generation, else None."""
    source = _find_source(config)
    if source is None and config.population_parent:
        logger.info(
            "%s has no weights to continue with, as in a population's first generation", config.population_parent
        )
    return source


def has_source(config: DictConfig) -> bool:
    """Return whether a new run starts from other weights than those of `model.pretrained`."""
    return _find_source(config) is not None


def network_arguments(config: DictConfig) -> dict[str, Any]:
    """Return arguments of the model's class, so that it does not fetch weights that are replaced afterwards."""
    return {"pretrained": False} if config.model.get("pretrained") is True and has_source(config) else {}


def _find_source(config: DictConfig) -> str | None:
    if config.population_parent:
        parent = Path(config.population_parent)
        has_weights = (parent / folders.CHECKPOINTS / folders.BEST_CHECKPOINT).is_file()
        return str(parent) if has_weights else None
    if config.init_from or not config.population_dir:
        return config.init_from or None
    path = Path(config.population_dir) / POPULATION_WEIGHTS
    return str(path) if path.is_file() else None


def load_initial_weights(source: str | None, module: Any) -> dict[str, Any] | None:
    """Load weights into a new module.

    Args:
        source: a .ckpt file, a run folder (its best weights) or a folder with model.safetensors or pytorch_model.bin;
            None loads nothing.
        module: a module of the same architecture.

    Returns:
        The parent of the new run: where the weights come from, and the configuration hash of the run that made them.

    Raises:
        InputError: there are no weights, or they are of another architecture.
    """
    if source is None:
        weights.log_new_head(getattr(module, "new_parameters", ()))
        return None
    if not isinstance(module, Task):
        raise InputError("init_from: a baseline has no weights")
    path = Path(source)
    record: dict[str, Any] = {}
    if path.is_dir() and (path / folders.RECORD).exists():
        record = folders.read_record(path)
        digests.check_run(path, record, f"{folders.CHECKPOINTS}/{folders.BEST_CHECKPOINT}")
        path = path / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    state = weights.align_names(_read_state(path, module, source), module.state_dict(), f"init_from={source}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"init_from={source}: {weights.describe_mismatch(error)}") from None
    return {"init_from": str(Path(source).absolute()), "config_hash": record.get("config_hash")}


def check_population(population_dir: str | None) -> None:
    """Check that `save_for_population` can write, and replaces no file of another program.

    Raises:
        InputError: it cannot, or there is one.
    """
    if population_dir:
        path = Path(population_dir) / POPULATION_WEIGHTS
        files.check_replaceable(path, lambda path: "state_dict" in checkpoints.read(path), "a checkpoint")


def _read_state(path: Path, module: Task, source: str) -> dict[str, Any]:
    """Return the state dict of a checkpoint, or of a model folder."""
    name = f"init_from={source}"
    if path.is_dir():
        weights.check_folder(path, name)
        digests.check_model(path)
        network = getattr(module, "model", None)
        # transformers reads older names, and weights that several layers share and the file has once.
        is_transformer = hasattr(network, "base_model_prefix")
        return encoders.read_state(network, path, name) if is_transformer else weights.read_folder(path, name)
    if path.suffix == ".safetensors" and path.is_file():
        return weights.read_file(path, name)
    return weights.find_state(checkpoints.read(path), name)


def save_for_population(population_dir: str | None, folder: Path) -> None:
    """Copy a run's best weights to the population folder atomically, on rank zero."""
    best = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if population_dir and best.is_file() and process.rank() == 0:
        files.copy_file(best, Path(population_dir) / POPULATION_WEIGHTS)
