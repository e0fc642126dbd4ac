"""Weights that a new run starts from: of a checkpoint, a run, a model folder, or a population's previous generation.

In population-based training, Katib copies a trial's population folder to the trial that replaces it; it holds one
checkpoint.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import InputError
from runs import folder as folders
from trainers import checkpoints
from trainers.task import Task

POPULATION_WEIGHTS = "weights.ckpt"  # in the population folder


def find_source(config: DictConfig) -> str | None:
    """Return `init_from`, else the checkpoint of the previous generation, else None."""
    if config.init_from or not config.population_dir:
        return config.init_from or None
    path = Path(config.population_dir) / POPULATION_WEIGHTS
    return str(path) if path.is_file() else None


def load_initial_weights(source: str | None, module: Any) -> dict[str, Any] | None:
    """Load weights into a new module.

    Args:
        source: a .ckpt file, a run folder (its best weights) or a folder with model.safetensors; None loads nothing.
        module: a module of the same architecture.

    Returns:
        The parent of the new run: where the weights come from, and the configuration hash of the run that made them.

    Raises:
        InputError: there are no weights, or they are of another architecture.
    """
    if source is None:
        return None
    if not isinstance(module, Task):
        raise InputError("init_from: a baseline has no weights")
    path = Path(source)
    record: dict[str, Any] = {}
    if path.is_dir() and (path / folders.RECORD).exists():
        record = folders.read_record(path)
        path = path / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if path.is_dir():
        from safetensors.torch import load_file

        if not (path / "model.safetensors").is_file():
            raise InputError(f"init_from={source}: neither a run nor a folder with model.safetensors")
        state = {f"model.{name}": tensor for name, tensor in load_file(path / "model.safetensors").items()}
    else:
        state = checkpoints.read(path)["state_dict"]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"init_from={source}: the weights are of another architecture: {reason}") from None
    return {"init_from": str(Path(source).absolute()), "config_hash": record.get("config_hash")}


def check_population(population_dir: str | None) -> None:
    """Check that `save_for_population` replaces no file of another program.

    Raises:
        InputError: there is one.
    """
    if population_dir:
        path = Path(population_dir) / POPULATION_WEIGHTS
        files.check_replaceable(path, lambda path: "state_dict" in checkpoints.read(path), "a checkpoint")


def save_for_population(population_dir: str | None, folder: Path) -> None:
    """Copy a run's best weights to the population folder atomically, on rank zero."""
    best = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if population_dir and best.is_file() and process.rank() == 0:
        files.copy_file(best, Path(population_dir) / POPULATION_WEIGHTS)
