"""Tasks: `conf/task/<name>.yaml` names the module that says what a task is; rooms get the module here, and ask it.

The module comes from the configuration of this machine, never from a record: a run's record says only the task's name.
docs/tasks.md lists what a module may have.
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

CONF = Path(__file__).resolve().parents[2] / "conf"
CONF_VARIABLE = "ISOTRAIN_CONF"


def conf_folders() -> list[Path]:
    """The configuration folders: ours, and the one that $ISOTRAIN_CONF names, which Hydra searches too.

    Raises:
        InputError: $ISOTRAIN_CONF names no folder.
    """
    own = os.environ.get(CONF_VARIABLE)
    if not own:
        return [CONF]
    folder = Path(own.removeprefix("file://"))
    if not folder.is_dir():
        raise InputError(
            f"{CONF_VARIABLE}={own}: there is no such folder; name one that has task/, model/ or data/, or unset it"
        )
    return [CONF, folder]


def task_names() -> list[str]:
    """The tasks that this machine's configuration knows, sorted."""
    return sorted({path.stem for folder in conf_folders() for path in (folder / "task").glob("*.yaml")})


def load_settings(name: str) -> dict[str, Any]:
    """A task's YAML.

    Raises:
        InputError: there is no such task, or its YAML cannot be read.
    """
    path = next((path for folder in conf_folders() if (path := folder / "task" / f"{name}.yaml").is_file()), None)
    if "/" in name or path is None:
        raise InputError(
            f"there is no task {name} in this configuration; there is {', '.join(task_names())} "
            f"(a task of your own: conf/task/{name}.yaml in a folder that {CONF_VARIABLE} names)"
        )
    return copy.deepcopy(_read(path))


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    """A task's YAML, read once: a report on many runs asks for each."""
    try:
        value = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is no mapping: a task has name, module, monitor and metrics")
    return {str(key): child for key, child in value.items()}


def load_module(name: str) -> ModuleType:
    """The module of a task.

    Args:
        name: of the task.

    Raises:
        InputError: there is no such task, or its module cannot be imported.
    """
    dotted = load_settings(name).get("module")
    if not isinstance(dotted, str):
        raise InputError(f"conf/task/{name}.yaml names no module: module: <package>.<module>")
    try:
        return importlib.import_module(dotted)
    except ImportError as error:
        raise InputError(
            f"the module {dotted} of the task {name} cannot be imported ({error}): is its folder on PYTHONPATH?"
        ) from error


def load_member(name: str, attribute: str, purpose: str) -> Any:
    """A function or constant of a task's module.

    Args:
        name: of the task.
        attribute: of its module.
        purpose: the command or feature that needs it, for the message.

    Raises:
        InputError: the module lacks it; the message says what to write.
    """
    found = load_module(name)
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise InputError(
            f"{purpose} needs {attribute} of the task {name}, which {found.__name__} lacks: write it as docs/tasks.md says"
        ) from None


def task_from_record(record: Mapping[str, Any]) -> str:
    """The task's name in a run's record.

    Raises:
        InputError: the record names none.
    """
    config = record.get("config")
    task = config.get("task") if isinstance(config, Mapping) else None
    name = task.get("name") if isinstance(task, Mapping) else None
    if not isinstance(name, str):
        raise InputError("the record names no task (config.task.name)")
    return name
