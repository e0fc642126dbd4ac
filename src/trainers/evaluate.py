"""Scores a saved model on a data set, as training's validation does."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from config import files, tasks
from config.check import check_config
from config.compose import compose
from config.errors import InputError
from config.messages import describe_task_mismatch
from datamodules import factory
from runs import folder as folders
from runs import metric_lines, predictions
from runs.masking import mask_command, mask_secrets
from trainers import saved_model
from trainers.build import build, check_targets
from trainers.saved_model import SavedModel


def evaluate(name: str, overrides: list[str], output: str | None) -> dict[str, float]:
    """Prints a metric line for a model on a validation split.

    Args:
        name: a run's folder or a model folder.
        overrides: Hydra overrides; `data=` for another data set than the run's.
        output: folder for predictions.jsonl, metrics.jsonl and a run.json (status "evaluated") that runs compare; None writes none.

    Raises:
        InputError: the model cannot be loaded, or the data is of another task or has other classes.
    """
    from datamodules.imports import quick

    if output is not None and folders.folder_state(output) in ("unfinished", "finished"):
        raise InputError(f"--output {output} holds a run; its record would be lost: give another folder")
    quick()
    import lightning.pytorch as pl

    from trainers import cpu, distributed, fit
    from trainers.hardware import configure_cpu

    model_folder = saved_model.open_model(name)
    config = compose_saved(model_folder, overrides)
    check_config(config)
    check_targets(config)
    distributed.start()
    configure_cpu(config.trainer.threads)
    cpu.tune_cpu()
    data = build(config, "data")
    data.prepare_data(("val",))
    data.setup("validate")
    check_data(model_folder, data)
    module = build(config, "model", data=data, optim=config.optim)
    trainer: pl.Trainer = fit.build_trainer(config, [], Path(output or "."), [])
    trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        file = None
        if output is not None:
            Path(output).mkdir(parents=True, exist_ok=True)
            predictions.write(Path(output) / folders.PREDICTIONS, module.rows)
            files.write_json(
                Path(output) / folders.RECORD,
                _record(name, config, data, module, _data_choice(model_folder, overrides)),
            )
            file = Path(output) / folders.METRICS
            file.unlink(missing_ok=True)  # of an earlier evaluation
        best: dict[str, Any] = model_folder.record.get("best") or {"epoch": 0, "step": 0}
        metric_lines.write(module.metrics, best["epoch"], best["step"], stream=sys.stdout, jsonl_path=file)
    distributed.stop()
    return dict(module.metrics)


def _record(name: str, config: DictConfig, data: Any, module: Any, choice: str | None) -> dict[str, Any]:
    """What `python -m runs` asks of an evaluation: which model, on which data, with which metrics."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {
        "status": "evaluated",
        "command": mask_command(sys.argv),
        "metrics": dict(module.metrics),
        "details": module.details,
        "data": {"fingerprints": {"val": data.fingerprint("val")}},
        "parent": {"init_from": str(Path(name).absolute())},
        "choices": {"model": name, **({"data": choice} if choice else {})},
        "config": mask_secrets(plain),
    }


def _data_choice(model: SavedModel, overrides: list[str]) -> str | None:
    """The name of the data set that is evaluated on."""
    named = [override.removeprefix("data=") for override in overrides if override.startswith("data=")]
    recorded = (model.record.get("choices") or {}).get("data")
    return named[-1] if named else recorded


def compose_saved(model: SavedModel, overrides: list[str]) -> DictConfig:
    """A composed configuration whose model is the saved one.

    Classes come from this machine's configuration, values from the record: what a record names is never imported.

    Args:
        model: the saved model.
        overrides: Hydra's; with `data=` the data is another than the run's.

    Raises:
        InputError: a model folder without `data=`, or data of another task.
    """
    recorded = model.record.get("config") or {}
    named = any(override.startswith("data=") for override in overrides)
    if not recorded and not named:
        example = getattr(model.module, "DATA", "NAME")
        raise InputError(f"name a data set, such as data={example}: a model folder does not say which it is for")
    choices = [
        f"model={factory.select_choice(model.record, model.task, 'model')}",
        *([] if named else [f"data={factory.select_choice(model.record, model.task, 'data')}"]),
    ]
    config = compose([*choices, *(override for override in overrides if not override.startswith("data."))])
    if problem := describe_task_mismatch(config):
        raise InputError(problem)
    with open_dict(config):
        if not named:
            factory.overlay(config.data, recorded["data"])
            config.trainer.deterministic = recorded["trainer"]["deterministic"]
            config.trainer.precision = recorded["trainer"]["precision"]
        factory.overlay(config.model, recorded.get("model") or {})
    apply_saved_model(model, config, preprocessing=named)
    for override in overrides:
        if override.startswith("data."):
            config = _override(config, override)
    return config


def apply_saved_model(model: SavedModel, config: DictConfig, preprocessing: bool = False) -> None:
    """Makes a configuration's model the saved one, with its decoding.

    Args:
        model: the saved model.
        config: changed in place.
        preprocessing: take the data's preprocessing from the model, too.
    """
    module = model.module
    where = tasks.load_member(model.task, "model_config", "loading a model")(model)
    with open_dict(config):
        factory.overlay(config.model, _said(model, "model") | where)
        if preprocessing:
            examples = getattr(module, "EXAMPLE_KEYS", ())  # of the data that is named, not of the model's
            factory.overlay(
                config.data, {key: value for key, value in _said(model, "data").items() if key not in examples}
            )
        if own := getattr(module, "data_config", None):
            factory.overlay(config.data, own(model))


def _said(model: SavedModel, group: str) -> dict[str, Any]:
    """A saved model's settings, but for defaults that it does not say itself: the configuration has its own."""
    settings = model.settings.get(group, {})
    return {key: value for key, value in settings.items() if f"{group}.{key}" not in model.defaults}


def check_data(model: SavedModel, data: Any) -> None:
    """Refuses data that the model was not made for, as its task tells."""
    if check_own := getattr(model.module, "check_data", None):
        check_own(model, data)


def _override(config: DictConfig, override: str) -> DictConfig:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from config.messages import describe_unknown_key

    parsed = OverridesParser.create().parse_override(override)
    key = parsed.key_or_group
    if OmegaConf.select(config, key, default="absent") == "absent":
        raise InputError(describe_unknown_key(key, config))
    OmegaConf.update(config, key, parsed.value())
    return config
