"""The data module of a configuration or of a run's record, built without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from config import tasks
from config.check import check_config
from config.compose import compose, group_choices
from config.errors import InputError
from config.rules import NON_ARGUMENT_KEYS


def compose_config(overrides: Sequence[str], any_model: bool = False) -> DictConfig:
    """Compose and check train.py's configuration for a command that only reads data.

    Args:
        overrides: Hydra overrides.
        any_model: unless the overrides choose a model, use one that fits every task. This is always done where the
            default model belongs to another task.

    Raises:
        InputError: as in train.py.
    """
    chooses_model = any(override.startswith("model=") for override in overrides)
    config = compose(overrides)
    if not chooses_model and (any_model or config.model.task != config.task.name):
        config = compose([*overrides, "model=majority"])
        config.model._target_ = None  # no model is needed
    # Loggers are not needed, and refer to values that only a run has.
    OmegaConf.update(config, "logger", None, force_add=True)
    check_config(config)
    return config


def compose_recorded(record: Mapping[str, Any], task: str) -> DictConfig:
    """Compose the `data` of a recorded run: the record's values over the classes of this machine's configuration.

    Args:
        record: run.json of the run.
        task: name of its task.

    Raises:
        InputError: the record has no data configuration.
    """
    values = (record.get("config") or {}).get("data")
    if not isinstance(values, Mapping):
        raise InputError("the record does not contain the configuration of its data (config.data)")
    config = compose([f"data={select_choice(record, task, 'data')}", "model=majority"])
    overlay(config.data, values)
    return config.data


def select_choice(record: Mapping[str, Any], task: str, group: str) -> str:
    """Return a record's choice of a group, if this machine has it for the same task, else the task's default.

    Args:
        record: run.json of a run; empty for a model folder.
        task: name of its task.
        group: "model" or "data".
    """
    choice = (record.get("choices") or {}).get(group)
    default = str(tasks.load_member(task, group.upper(), f"opening a saved {group}"))
    if not isinstance(choice, str) or choice not in group_choices(group):
        return default
    node = compose([f"{group}={choice}", *([] if group == "model" else ["model=majority"])])
    choice_task = node.model.get("task") if group == "model" else node.task.name
    return choice if choice_task == task else default


def overlay(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Update a node in place, except `_target_` and the like: classes that a record names are never imported."""
    with open_dict(node):
        for key, value in values.items():
            if not str(key).startswith("_"):
                node[key] = value


def build(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Build the data module of a configuration's `data`; nothing is read yet.

    Args:
        node: as composed, or from `compose_recorded`.
        **arguments: replace values of the node.
    """
    from hydra.utils import instantiate

    values = {key: value for key, value in node.items() if key not in {*NON_ARGUMENT_KEYS["data"], *arguments}}
    return instantiate(OmegaConf.create(values), **arguments, _convert_="all", _recursive_=False)
