"""A configuration's data module, without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config.check import check
from config.compose import compose
from config.rules import READ_ELSEWHERE


def composed(overrides: Sequence[str], any_model: bool = False) -> DictConfig:
    """train.py's configuration, checked, for a command that only reads data.

    Args:
        overrides: Hydra's.
        any_model: take a model that fits every task if none is named: what is asked of the data does not depend on it.

    Raises:
        Refused: what train.py would refuse.
    """
    named = any(each.startswith("model=") for each in overrides)
    config = compose([*overrides, "model=majority"] if any_model and not named else overrides)
    # What loggers refer to exists in a run alone, and none is needed here.
    OmegaConf.update(config, "logger", None, force_add=True)
    if any_model and not named:
        config.model._target_ = None  # nor is a model
    check(config)
    return config


def build(node: Mapping[str, Any], **given: Any) -> Any:
    """The data module of a configuration's `data`; nothing is read yet.

    Args:
        node: as composed, or as resolved in a run's run.json.
        given: instead of what the node says.
    """
    from hydra.utils import instantiate

    from datamodules.imports import quick

    quick()
    kept = {key: value for key, value in node.items() if key not in READ_ELSEWHERE["data"] and key not in given}
    return instantiate(OmegaConf.create(kept), **given, _convert_="all", _recursive_=False)
