"""A saved model: a run's folder, or a plain transformers or timm one, with all that its answers depend on."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from config import files, tasks
from config.errors import InputError
from runs import folder as folders

logger = logging.getLogger(__name__)

FILE = "isotrain.json"  # in a model folder: its task and its settings


@dataclass(frozen=True)
class SavedModel:
    """A model and all that its predictions depend on.

    Attributes:
        folder: with config.json and model.safetensors.
        task: its task's name.
        config: its config.json.
        record: run.json of the run that it belongs to; empty for a model folder.
        settings: decoding (`model`) and preprocessing (`data`), by group of conf: the keys of the task's SETTINGS.
        defaults: those of `settings` that neither the run nor the folder says, as group.key.
        measured: what its run measured that predictions depend on (the task's `measured`), such as a threshold.
        precision: that it was evaluated in, as trainer.precision; "32-true" where nobody says.
    """

    folder: Path
    task: str
    config: dict[str, Any]
    record: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    defaults: tuple[str, ...]
    measured: dict[str, Any]
    precision: str

    @property
    def module(self) -> ModuleType:
        """The module of its task."""
        return tasks.load_module(self.task)


def open_model(name: str) -> SavedModel:
    """Opens a run's folder, or a model folder; settings that it does not say are defaults, and a log line says which.

    Raises:
        InputError: it holds neither a run with a model nor a model, or a model of no task that this machine knows.
    """
    folder = Path(name)
    record: dict[str, Any] = {}
    if (folder / folders.RECORD).exists():
        record = folders.read_record(folder)
        folder = folder / folders.MODEL
        if not folder.is_dir():
            raise InputError(f"run={name}: this run has no model yet (it is {record['status']})")
    if (folder / "baseline.json").exists():
        raise InputError(f"run={name} is a baseline, which has no weights to load; train.py scores it")
    try:
        config = _json(folder / "config.json")
    except FileNotFoundError:
        raise InputError(f"run={name}: neither a run nor a model folder (there is no config.json)") from None
    said = _json(folder / FILE) if (folder / FILE).exists() else {}
    task = _task(name, config, record, said)
    module = tasks.load_module(task)
    settings, defaults = _settings(module, record, said)
    if defaults:
        shown = ", ".join(f"{key}={_shown(settings, key)}" for key in defaults)
        logger.warning("%s does not say all that its predictions depend on; defaults are used: %s", name, shown)
    measured = said["measured"] if isinstance(said.get("measured"), dict) else _measured(module, record)
    precision = said.get("precision") or ((record.get("config") or {}).get("trainer") or {}).get("precision")
    return SavedModel(folder, task, config, record, settings, defaults, measured, str(precision or "32-true"))


def write_settings(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes what `find` reads of a model folder that is alone: its task, settings, and what its run measured.

    Args:
        folder: of the exported model.
        record: run.json of its run: `config`, `data`, `details`.
    """
    config = record["config"]
    name = str(config["task"]["name"])
    module = tasks.load_module(name)
    known: dict[str, dict[str, Any]] = getattr(module, "SETTINGS", {})
    settings = {
        group: {key: config[group][key] for key in keys if key in config[group]} for group, keys in known.items()
    }
    measured = _measured(module, record)
    precision = config["trainer"]["precision"]
    files.write_json(folder / FILE, {"task": name, **settings, "measured": measured, "precision": precision})


def _measured(module: ModuleType, record: Mapping[str, Any]) -> dict[str, Any]:
    own = getattr(module, "measured", None)
    return dict(own(record)) if own else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: it is no JSON object")
    return value


def _task(name: str, config: dict[str, Any], record: dict[str, Any], said: dict[str, Any]) -> str:
    """The task's name: what the folder or its run says, else the one whose module recognises its config.json."""
    if isinstance(said.get("task"), str):
        return str(said["task"])
    if record:
        return tasks.task_from_record(record)
    found = [
        task
        for task in tasks.task_names()
        if (known := getattr(tasks.load_module(task), "is_model", None)) and known(config)
    ]
    if len(found) == 1:
        return found[0]
    heads = ", ".join(map(str, config.get("architectures") or [config.get("architecture", "no architecture")]))
    which = (
        f"several tasks could be its ({', '.join(found)})"
        if found
        else f"no task is known for it ({', '.join(tasks.task_names())} are)"
    )
    raise InputError(f"run={name}: config.json says {heads}: {which}")


def _settings(
    module: ModuleType, record: dict[str, Any], said: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    known: dict[str, dict[str, Any]] = getattr(module, "SETTINGS", {})
    recorded = record.get("config") or {}
    settings: dict[str, dict[str, Any]] = {}
    defaults = []
    for group, keys in known.items():
        sources = [value for value in (said.get(group), recorded.get(group)) if isinstance(value, dict)]
        settings[group] = {}
        for key, default in keys.items():
            source = next((source for source in sources if key in source), None)
            settings[group][key] = default if source is None else source[key]
            if source is None:
                defaults.append(f"{group}.{key}")
    return settings, tuple(defaults)


def _shown(settings: Mapping[str, Mapping[str, Any]], key: str) -> str:
    group, _, name = key.partition(".")
    return json.dumps(settings[group][name])
