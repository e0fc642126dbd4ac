"""A configuration's data module, without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from config import tasks
from config.check import check_config
from config.compose import compose, group_choices
from config.errors import InputError
from config.rules import NON_ARGUMENT_KEYS


def compose_config(overrides: Sequence[str], any_model: bool = False) -> DictConfig:
    """train.py's configuration, checked, for a command that only reads data.

    Args:
        overrides: Hydra's.
        any_model: take a model that fits every task if none is named, as it is taken anyway where the default one is of
            another task: what is asked of the data does not depend on it.

    Raises:
        InputError: what train.py would refuse.
    """
    named = any(override.startswith("model=") for override in overrides)
    config = compose(overrides)
    if not named and (any_model or config.model.task != config.task.name):
        config = compose([*overrides, "model=majority"])
        config.model._target_ = None  # no model is needed here
    # What loggers refer to exists in a run alone, and none is needed here.
    OmegaConf.update(config, "logger", None, force_add=True)
    check_config(config)
    return config


def compose_recorded(record: Mapping[str, Any], task: str) -> DictConfig:
    """The `data` of a run's configuration: the record's values, the classes of this machine's configuration.

    Args:
        record: run.json of the run.
        task: name of its task.

    Raises:
        InputError: the record has no such configuration.
    """
    values = (record.get("config") or {}).get("data")
    if not isinstance(values, Mapping):
        raise InputError("the record does not say which data it was trained on (config.data)")
    config = compose([f"data={select_choice(record, task, 'data')}", "model=majority"])
    overlay(config.data, values)
    return config.data


def select_choice(record: Mapping[str, Any], task: str, group: str) -> str:
    """A record's choice of a group where this machine has it for the same task, else the task's own.

    Args:
        record: run.json of a run; empty for a model folder.
        task: name of its task.
        group: model or data.
    """
    named = (record.get("choices") or {}).get(group)
    fallback = str(tasks.load_member(task, group.upper(), f"opening a saved {group}"))
    if not isinstance(named, str) or named not in group_choices(group):
        return fallback
    node = compose([f"{group}={named}", *([] if group == "model" else ["model=majority"])])
    made_for = node.model.get("task") if group == "model" else node.task.name
    return named if made_for == task else fallback


def overlay(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Values over a node's, but for its classes (`_target_` and the like): what a record names is never imported."""
    with open_dict(node):
        for key, value in values.items():
            if not str(key).startswith("_"):
                node[key] = value


def build(node: Mapping[str, Any], **given: Any) -> Any:
    """The data module of a configuration's `data`; nothing is read yet.

    Args:
        node: as composed, or of `recorded`.
        given: instead of what the node says.
    """
    from hydra.utils import instantiate

    from datamodules.imports import quick

    quick()
    kept = {key: value for key, value in node.items() if key not in NON_ARGUMENT_KEYS["data"] and key not in given}
    return instantiate(OmegaConf.create(kept), **given, _convert_="all", _recursive_=False)
