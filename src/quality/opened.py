"""A configuration's data module, without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config.check import check
from config.compose import choices, compose
from config.errors import Refused


def data(overrides: Sequence[str]) -> tuple[DictConfig, Any]:
    """Composes train.py's configuration and builds its data module; nothing is read yet.

    A model of the data's task is chosen if none is named: the data needs none.

    Raises:
        Refused: what train.py would refuse.
    """
    from hydra.utils import instantiate

    config = _composed(list(overrides))
    # What loggers refer to exists in a run alone, and none is needed here.
    OmegaConf.update(config, "logger", None, force_add=True)
    check(config)
    node = {key: value for key, value in config.data.items() if key not in ("epochs", "contract")}
    return config, instantiate(OmegaConf.create(node), _convert_="all", _recursive_=False)


def _composed(overrides: list[str]) -> DictConfig:
    if any(each.startswith("model=") for each in overrides):
        return compose(overrides)
    config = compose([*overrides, "model=majority"])
    if config.model.task in ("any", config.task.name):
        return config
    raise Refused(f"name a model of {config.task.name}: model={' or '.join(choices('model'))}")


def again(config: Mapping[str, Any], root: Path) -> Any:
    """The data module of a run, from the configuration in its run.json.

    Args:
        config: resolved.
        root: of the cache to use.
    """
    from hydra.utils import instantiate

    node = {key: value for key, value in config["data"].items() if key not in ("epochs", "contract", "cache_dir")}
    return instantiate(OmegaConf.create(node), cache_dir=str(root), _convert_="all", _recursive_=False)
