"""The data module of a configuration or of a run's record, built without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from config import tasks
from config.check import check_config
from config.compose import compose, group_choices
from config.errors import InputError
from config.rules import NON_ARGUMENT_KEYS
from config.signatures import read_signature
from runs.fields import as_mapping
from runs.folder import RECORD

# Settings of a machine, which are never taken from a folder: where to write, how many processes to start, which code to run.
MACHINE_KEYS = ("cache_dir", "workers", "verify", "trust_remote_code")
_SPECIAL_TEXT = ("${", "???")  # an interpolation, which could read the environment, and a missing value
_MAX_DEPTH = 20  # of lists and mappings in a value


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

    Nothing that the record contains is instantiated or interpolated; see `overlay`.

    Args:
        record: run.json of the run.
        task: name of its task.

    Raises:
        InputError: the record has no data configuration, or `overlay` refuses it.
    """
    values = as_mapping(record.get("config")).get("data")
    if not isinstance(values, Mapping):
        raise InputError("the record does not contain the configuration of its data (config.data)")
    config = compose([f"data={select_choice(record, task, 'data')}", "model=majority"])
    overlay(config.data, values, f"{RECORD}: config.data")
    return config.data


def select_choice(record: Mapping[str, Any], task: str, group: str) -> str:
    """Return a record's choice of a group, if this machine has it for the same task, else the task's default.

    Args:
        record: run.json of a run; empty for a model folder.
        task: name of its task.
        group: "model" or "data".
    """
    choice = as_mapping(record.get("choices")).get(group)
    default = str(tasks.load_member(task, group.upper(), f"opening a saved {group}"))
    if not isinstance(choice, str) or choice not in group_choices(group):
        return default
    node = compose([f"{group}={choice}", *([] if group == "model" else ["model=majority"])])
    choice_task = node.model.get("task") if group == "model" else node.task.name
    return choice if choice_task == task else default


def overlay(node: DictConfig, values: Any, source: str, further: Sequence[str] = ()) -> None:
    """Update a node in place with plain values of settings that it has.

    The values are of a folder that may be somebody else's: its run.json, isotrain.json or config.json. Classes
    (`_target_`) and MACHINE_KEYS stay those of this machine.

    Args:
        node: composed from the configuration of this machine.
        values: the values, by key.
        source: where they are from, for messages.
        further: settings beside those of the node and its class.

    Raises:
        InputError: a setting that the node and its class do not have, or a value that is not plain; see `plain_value`.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source} is damaged: must be a mapping of settings, not {type(values).__name__}")
    signature = read_signature(str(node.get("_target_")))
    with open_dict(node):
        for key, value in values.items():
            if str(key).startswith("_") or key in MACHINE_KEYS:
                continue
            is_setting = (
                key in node or key in further or signature is None or signature.open or key in signature.parameters
            )
            if not is_setting:
                raise InputError(f"{source}.{key}: {node.get('_target_')} has no such setting on this machine")
            if OmegaConf.is_dict(node.get(key)) and "_target_" in node[key] and isinstance(value, Mapping):
                overlay(node[key], value, f"{source}.{key}")  # its class, too, is that of this machine
                continue
            node[key] = plain_value(value, f"{source}.{key}")


def plain_value(value: Any, source: str, depth: int = 0) -> Any:
    """Return a value that a folder contains: null, a number, text, or lists and mappings of these.

    Args:
        value: as read from JSON.
        source: where it is from, for messages.
        depth: number of lists and mappings around it.

    Raises:
        InputError: it has an interpolation (`${oc.env:X}`), names a class to call (`_target_`), is of another type, or is
            nested deeper than any setting.
    """
    if depth > _MAX_DEPTH:
        raise InputError(f"{source[:200]}: nested deeper than {_MAX_DEPTH} levels; no setting is")
    if isinstance(value, Mapping):
        for key in value:
            if str(key).startswith("_"):
                raise InputError(f"{source}.{key}: a folder names no class or function to call; remove it")
        return {str(key): plain_value(child, f"{source}.{key}", depth + 1) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(child, source, depth + 1) for child in value]
    if isinstance(value, str) and any(part in value for part in _SPECIAL_TEXT):
        raise InputError(
            f"{source}={value}: not a plain value; nothing in a folder is interpolated: set it on the command line"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{source}: not a plain value but {type(value).__name__}")


def build(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Build the data module of a configuration's `data`; nothing is read yet.

    Args:
        node: as composed, or from `compose_recorded`.
        **arguments: replace values of the node.
    """
    from hydra.utils import instantiate

    values = {key: value for key, value in node.items() if key not in {*NON_ARGUMENT_KEYS["data"], *arguments}}
    return instantiate(OmegaConf.create(values), **arguments, _convert_="all", _recursive_=False)
