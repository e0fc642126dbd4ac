"""Tasks: `conf/task/<name>.yaml` names the module of a task, whose members are looked up here.

The module always comes from the configuration of this machine: the record of a run has only the name of the task.
docs/tasks.md lists the members of such a module.
"""

import copy
import functools
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from config.errors import InputError
from config.files import PROJECT
from config.search_path import CONF_VARIABLE

CONF = PROJECT / "conf"


def conf_folders() -> list[Path]:
    """Return the configuration folders: that of isotrain, and the one in $ISOTRAIN_CONF, which Hydra searches, too.

    Raises:
        InputError: $ISOTRAIN_CONF is not a folder.
    """
    value = os.environ.get(CONF_VARIABLE)
    if not value:
        return [CONF]
    folder = Path(value.removeprefix("file://"))
    if not folder.is_dir():
        raise InputError(
            f"{CONF_VARIABLE}={value}: no such folder; name one that contains task/, model/ or data/, or unset the variable"
        )
    return [CONF, folder]


def contract_folders() -> list[Path]:
    """Return the folders with data contracts: `contracts/` beside each configuration folder, ours first.

    Raises:
        InputError: contracts in a configuration folder, where Hydra would offer them as choices of `quality`.
    """
    for folder in conf_folders():
        if (folder / "quality" / "contracts").is_dir():
            new = folder.resolve().parent / "contracts"
            raise InputError(f"{folder}/quality/contracts: contracts are no configuration; move them to {new}")
    return [folder.resolve().parent / "contracts" for folder in conf_folders()]


def task_names() -> list[str]:
    """Return the names of all configured tasks, sorted."""
    return sorted({path.stem for folder in conf_folders() for path in (folder / "task").glob("*.yaml")})


def load_settings(name: str) -> dict[str, Any]:
    """Return the YAML of a task.

    Raises:
        InputError: There is no such task, or its YAML cannot be read.
    """
    path = next((path for folder in conf_folders() if (path := folder / "task" / f"{name}.yaml").is_file()), None)
    if "/" in name or path is None:
        raise InputError(
            f"there is no task {name}; configured tasks: {', '.join(task_names())} "
            f"(to add one: task/{name}.yaml in the folder that {CONF_VARIABLE} names)"
        )
    return copy.deepcopy(_read_yaml(path))


@functools.cache
def _read_yaml(path: Path) -> dict[str, Any]:
    """The YAML of a task, cached because a report on many runs needs it for each of them."""
    try:
        value = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a mapping: a task has name, module, monitor and metrics")
    return {str(key): child for key, child in value.items()}


def load_module(name: str) -> ModuleType:
    """Import the module of a task.

    Args:
        name: Name of the task.

    Raises:
        InputError: There is no such task, or its module cannot be imported.
    """
    module = load_settings(name).get("module")
    if not isinstance(module, str):
        raise InputError(f"conf/task/{name}.yaml names no module: add `module: <package>.<module>`")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the module {module} of the task {name} cannot be imported ({error}): is its folder on PYTHONPATH?"
        ) from error


def load_member(name: str, attribute: str, purpose: str) -> Any:
    """Return a function or constant of the module of a task.

    Args:
        name: Name of the task.
        attribute: Name of the member.
        purpose: Command or feature that needs it, for the message.

    Raises:
        InputError: The module does not have it.
    """
    module = load_module(name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise InputError(
            f"{purpose} needs {attribute} of the task {name}, but {module.__name__} does not define it (see docs/tasks.md)"
        ) from None


def task_from_record(record: Mapping[str, Any]) -> str:
    """Return the name of the task in the record of a run.

    Raises:
        InputError: The record has none.
    """
    config = record.get("config")
    task = config.get("task") if isinstance(config, Mapping) else None
    name = task.get("name") if isinstance(task, Mapping) else None
    if not isinstance(name, str):
        raise InputError("the record has no task (config.task.name)")
    return name
