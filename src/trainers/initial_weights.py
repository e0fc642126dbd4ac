"""Old weights for a new run: of a checkpoint, a run or a model folder."""

from pathlib import Path
from typing import Any

import torch

from config.errors import InputError
from runs import folder as folders
from trainers import checkpoints
from trainers.task import Task


def load_initial_weights(source: str | None, module: Any) -> dict[str, Any] | None:
    """Loads weights into a module that was just built.

    Args:
        source: a .ckpt file, a run's folder (its best weights) or a folder with model.safetensors; None does nothing.
        module: of the same architecture.

    Returns:
        The new run's parent: where the weights come from, and the configuration hash of the run that made them.

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
    _load(module, state, source)
    return {"init_from": str(Path(source).absolute()), "config_hash": record.get("config_hash")}


def _load(module: torch.nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or extra or shapes:
        found = [
            f"{len(names)} {what} (such as {names[0]})"
            for what, names in (("missing", missing), ("too many", extra), ("of another shape", sorted(shapes)))
            if names
        ]
        raise InputError(f"init_from={source}: the weights are of another architecture: {', '.join(found)}")
    module.load_state_dict(state)
