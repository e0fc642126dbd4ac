"""A saved model: a run folder or a transformers or timm model folder, with all settings its predictions depend on."""

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from config import files, networks, parsing, tasks
from config.error_handling import library_errors
from config.errors import InputError
from config.masking import mask_secrets
from config.parsing import read_json
from runs import digests
from runs import folder as folders
from runs.fields import as_mapping

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedModel:
    """A model and all that its predictions depend on.

    Attributes:
        folder: folder of config.json and the weights.
        task: name of its task.
        config: content of its config.json.
        record: run.json of its run; empty for a model folder.
        settings: decoding (`model`) and preprocessing (`data`), by group of conf: the keys of the task's SETTINGS.
        defaults: the keys of `settings`, as group.key, that neither the run nor the folder specifies.
        measurements: values measured by its run that predictions depend on (the task's `measurements`), such as a
            threshold.
        precision: precision of its evaluation, as trainer.precision; "32-true" if unknown.
        trust_remote_code: whether code that its folder contains or names may be executed.
        choice: recorded choice of conf/model, which names the class of a network of the user's own; None if unknown.
        model_settings: conf/model of its run without the loss, plain values; empty if unknown.
    """

    folder: Path
    task: str
    config: dict[str, Any]
    record: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    defaults: tuple[str, ...]
    measurements: dict[str, Any]
    precision: str
    trust_remote_code: bool = False
    choice: str | None = None
    model_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_network(self) -> bool:
        """Whether it is a network of the user's own, whose class is in the configuration of the user."""
        return networks.is_exported(self.config)

    @property
    def module(self) -> ModuleType:
        """Module of its task."""
        return tasks.load_module(self.task)


def model_errors(name: str) -> contextlib.AbstractContextManager[None]:
    """Return a context in which what a library raises on the files of a model is an InputError.

    Args:
        name: a run folder or a model folder.
    """
    return library_errors(
        f"the model run={name} cannot be used; its files may be damaged, or written by another version of a library"
    )


def open_model(name: str, trust_remote_code: bool = False) -> SavedModel:
    """Open a saved model, without its weights. A warning names the settings for which defaults are used.

    Args:
        name: a run folder or a model folder.
        trust_remote_code: whether code that the folder contains or names may be executed: as the user said, never as a file.

    Raises:
        InputError: the folder holds no model, one with damaged files, or a model of no task known on this machine.
    """
    folder = Path(name)
    record: dict[str, Any] = {}
    if (folder / folders.RECORD).exists():
        record = folders.read_record(folder)
        digests.check_run(folder, record, f"{folders.MODEL}/{digests.SETTINGS}")
        folder = folder / folders.MODEL
        if not folder.is_dir():
            raise InputError(f"run={name}: this run has no model yet (it is {record['status']})")
    if (folder / "baseline.json").exists():
        raise InputError(f"run={name} is a baseline, which has no weights to load; train.py scores it")
    try:
        parsing.check_folder(folder)
        digests.check_model(folder)
        config = _read_object(folder / "config.json")
    except FileNotFoundError:
        raise InputError(f"run={name}: neither a run nor a model folder (there is no config.json)") from None
    except OSError as error:
        raise InputError(f"run={name}: cannot read {error.filename}: {error.strerror or error}") from error
    stored = _read_object(folder / digests.SETTINGS) if (folder / digests.SETTINGS).exists() else {}
    task = _find_task(name, config, record, stored)
    module = tasks.load_module(task)
    run_config = record.get("config") or {}
    settings, defaults = _collect_settings(module, [stored, run_config])
    if networks.is_exported(config):  # the class that trains a network has the same defaults
        unspecified = [(group, key) for group, key in defaults if group != "model"]
    else:
        unspecified = defaults
    if unspecified:
        values = (f"{group}.{key}={json.dumps(settings[group][key])}" for group, key in unspecified)
        logger.warning("%s lacks settings that its predictions depend on; using defaults: %s", name, ", ".join(values))
    measurements = _measurements(module, record)
    measured = stored.get("measured", {})
    _check_kind("measured", measured, {})
    for key, value in measured.items():
        _check_kind(f"measured.{key}", value, measurements.get(key))
        measurements[key] = value
    precision = stored.get("precision") or (run_config.get("trainer") or {}).get("precision") or "32-true"
    default_keys = tuple(f"{group}.{key}" for group, key in defaults)
    choice = as_mapping(record.get("choices")).get("model", stored.get("choice"))
    model_settings = as_mapping(run_config.get("model", stored.get("model_settings")))
    return SavedModel(
        folder, task, config, record, settings, default_keys, measurements, str(precision), trust_remote_code,
        choice if isinstance(choice, str) else None,
        {key: value for key, value in model_settings.items() if key != "loss"},
    )  # fmt: skip


def write_settings(folder: Path, record: Mapping[str, Any], file_digests: Mapping[str, str]) -> None:
    """Write isotrain.json, from which `open_model` reads a model folder without its run.

    Args:
        folder: the exported model.
        record: run.json of its run: `config`, `data`, `details`.
        file_digests: SHA-256 of the exported files, by relative name.
    """
    config = record["config"]
    name = str(config["task"]["name"])
    module = tasks.load_module(name)
    settings = {
        group: {key: config[group][key] for key in keys if key in config[group]}
        for group, keys in _task_settings(module).items()
    }
    precision = config["trainer"]["precision"]
    measurements = _measurements(module, record)
    content = {"task": name, **settings, "measured": measurements, "precision": precision}
    if networks.is_exported(_read_object(folder / "config.json")):
        model_settings = {
            key: value for key, value in config["model"].items() if key != "loss" and not key.startswith("_")
        }
        content |= {"choice": record["choices"]["model"], "model_settings": mask_secrets(model_settings)}
    files.write_json(folder / digests.SETTINGS, content | {digests.KEY: dict(file_digests)})


def _task_settings(module: ModuleType) -> dict[str, dict[str, Any]]:
    return getattr(module, "SETTINGS", {})


def _measurements(module: ModuleType, record: Mapping[str, Any]) -> dict[str, Any]:
    measurements = getattr(module, "measurements", None)
    try:
        return dict(measurements(record)) if measurements else {}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"run.json is damaged: {type(error).__name__}: {error}") from error


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse a stored value that is of another kind than its default, a number or text for example."""
    kinds = (int, float) if isinstance(default, float) else type(default)
    if default is not None and (
        not isinstance(value, kinds) or isinstance(value, bool) is not isinstance(default, bool)
    ):
        raise InputError(
            f"isotrain.json or run.json is damaged: {name} is {json.dumps(value)}, but must be like {default}"
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: not a JSON object")
    return value


def _find_task(name: str, config: dict[str, Any], record: dict[str, Any], stored: dict[str, Any]) -> str:
    """Return the task's name in the folder or its run, else the task whose `is_model` accepts config.json."""
    if isinstance(stored.get("task"), str):
        return str(stored["task"])
    if record:
        return tasks.task_from_record(record)
    matches = []
    for task in tasks.task_names():
        is_model = getattr(tasks.load_module(task), "is_model", None)
        if is_model and is_model(config):
            matches.append(task)
    if len(matches) == 1:
        return matches[0]
    heads = ", ".join(map(str, config.get("architectures") or [config.get("architecture", "no architecture")]))
    problem = (
        f"several tasks match ({', '.join(matches)})"
        if matches
        else f"no task matches ({', '.join(tasks.task_names())} are known)"
    )
    raise InputError(f"run={name}: config.json declares {heads}: {problem}")


def _collect_settings(
    module: ModuleType, sources: list[dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Return settings by group, each from the first source that has it, and the (group, key) of those in none.

    Raises:
        InputError: a setting has a value of another type than its default.
    """
    settings: dict[str, dict[str, Any]] = {}
    defaults = []
    for group, keys in _task_settings(module).items():
        settings[group] = {}
        groups = [source[group] for source in sources if isinstance(source.get(group), dict)]
        for key, default in keys.items():
            values = [values[key] for values in groups if key in values]
            settings[group][key] = values[0] if values else default
            _check_kind(f"{group}.{key}", settings[group][key], default)
            if not values:
                defaults.append((group, key))
    return settings, defaults
