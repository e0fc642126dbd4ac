"""Evaluation of a saved model on a validation split, as in training, or once on the test part."""

import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

from config import files, networks, process, tasks
from config.check import check_config, check_trust
from config.compose import compose, group_choices
from config.errors import InputError
from config.masking import mask_command, mask_secrets
from config.messages import describe_task_mismatch
from config.terminal import format_timestamp
from datamodules import factory
from runs import folder as folders
from runs import metric_lines, predictions
from runs.fields import as_mapping, is_number
from runs.metric_lines import format_time
from trainers import bfloat16, onnx_network, saved_model, weights
from trainers.build import build, check_model, check_targets
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)


def evaluate(
    name: str, overrides: list[str], output: str | None, split: Literal["val", "test"] = "val"
) -> dict[str, float]:
    """Evaluate a saved model, and print its metric line.

    Args:
        name: a run folder or a model folder.
        overrides: Hydra overrides; `data=` for another data set than the run's.
        output: folder for predictions.jsonl, metrics.jsonl and a run.json (status "evaluated"), which `runs` compares;
            None writes no files; for the test part of a run, they are in the run's folder `test`.
        split: "val", or "test": the part that neither trained nor chose the model. A result that `output` has for the
            same weights and examples is printed again.

    Returns:
        The metrics; those of the test are named test_*.

    Raises:
        InputError: the model cannot be loaded, the data is of another task, has other classes or no test part, or
            `output` is a run or holds files of another program or another test.
    """
    if split == "test" and output is None and folders.is_run(name):
        output = str(Path(name) / folders.TEST)
    _check_output(output)

    from trainers import distributed, hardware

    model = saved_model.open_model(name)
    config = compose_saved(model, overrides)
    check_config(config)
    check_targets(config)
    distributed.start(config.trainer.accelerator)
    hardware.configure_cpu(config.trainer.threads)
    best: dict[str, Any] = {"epoch": 0, "step": 0} | as_mapping(model.record.get("best"))
    if split == "test" and (previous := _previous_test(output, config, best)) is not None:
        distributed.stop()
        return previous
    data, module, trainer = validate(model, config, Path(output or "."), split)
    metrics = metric_lines.round_metrics(module.metrics)
    if split == "test":
        metrics = {f"test_{key.removeprefix('val_')}": value for key, value in metrics.items()}
    if trainer.is_global_zero:
        choice = _data_choice(overrides) or as_mapping(model.record.get("choices")).get("data")
        record = make_record(name, config, data, metrics, module.details, choice)
        record |= {"split": split, "best": best, "finished": format_time(datetime.now(UTC))}
        _write(output, record, module.rows, metrics, best)
        if split == "test":
            saved = "" if output is None else f"; the result is in {output}"
            logger.warning("scored on the test part, which neither trained nor chose the model%s", saved)
    distributed.stop()
    return metrics


def validate(
    model: SavedModel, config: DictConfig, folder: Path, split: Literal["val", "test"] = "val"
) -> tuple[Any, Any, Any]:
    """Let a saved model predict the examples of a configuration.

    Args:
        model: the saved model.
        config: a configuration of that model (`compose_saved`, `apply_saved_model`).
        folder: folder of Lightning's Trainer.
        split: "test" takes the test part in place of the validation split.

    Returns:
        The data module; the LightningModule with `metrics`, `rows` and `details`; Lightning's Trainer.

    Raises:
        InputError: the model cannot be loaded, does not fit the data, or a metric is not finite.
    """
    from trainers import fit

    data, module = load_module(model, config, split)
    trainer = fit.build_trainer(config, [], folder, [])
    trainer.validate(module, datamodule=data, verbose=False)
    if not_finite := [key for key, value in module.metrics.items() if not math.isfinite(value)]:
        raise InputError(
            f"run={model.folder}: {not_finite[0]} is not finite: the weights are damaged, or of a training that diverged"
        )
    return data, module, trainer


def _previous_test(output: str | None, config: DictConfig, best: Mapping[str, Any]) -> dict[str, float] | None:
    """Print the result of an earlier test of the same weights on the same examples, and return it; None without one.

    Raises:
        InputError: `output` has the result of another test.
    """
    if output is None or not (Path(output) / folders.RECORD).exists():
        return None
    record = folders.read_record(output)
    data = build(config, "data")
    data.evaluate_test()
    fingerprints = as_mapping(as_mapping(record.get("data")).get("fingerprints"))
    if (
        record.get("split") != "test"
        or fingerprints.get("val") != data.fingerprint("val")
        or record.get("best") != best
    ):
        raise InputError(
            f"{output} has the result of another evaluation: of other examples, or of other weights; give another --output, "
            "or remove it"
        )
    metrics = {str(key): value for key, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    if process.rank() == 0:
        metric_lines.write(metrics, best["epoch"], best["step"], stream=sys.stdout)
        date = format_timestamp(record.get("finished"))
        logger.warning("the test part was scored at %s; this is the result in %s again", date, output)
    return metrics


def evaluate_baseline(name: str, output: str | None) -> dict[str, float]:
    """Let model=majority learn from a run's training data, evaluate it on its validation split, and print its metric line.

    Args:
        name: the run folder.
        output: as for `evaluate`.

    Returns:
        The metrics.

    Raises:
        InputError: the run's task has no baseline, its data cannot be opened, or `output` is a run or holds files of
            another program.
    """
    _check_output(output)
    record = folders.read_record(name)
    task = tasks.task_from_record(record)
    if not tasks.load_settings(task).get("majority"):
        raise InputError(f"conf/task/{task}.yaml names no class of model=majority (majority: …)")
    choice = factory.select_choice(record, task, "data")
    config = compose([f"data={choice}", "model=majority"])
    recorded = as_mapping(record.get("config")).get("data")
    factory.overlay(config.data, recorded, f"{folders.RECORD}: config.data")
    check_config(config)
    check_targets(config)
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    baseline = build(config, "model", data=data, optim=config.optim)
    baseline.fit(data)
    metrics, rows, details = baseline.predict(data)
    _write(
        output, make_record("majority", config, data, metrics, details, choice), rows, metrics, {"epoch": 0, "step": 0}
    )
    return metric_lines.round_metrics(metrics)


def compose_saved(model: SavedModel, overrides: list[str]) -> DictConfig:
    """Compose a configuration whose model is a saved one.

    Classes come from this machine's configuration, plain values from the record: nothing in it is instantiated or
    interpolated; see `factory.overlay`.

    Args:
        model: the saved model.
        overrides: Hydra overrides; `data=` for another data set than the run's.

    Raises:
        InputError: a model folder without `data=`, data of another task, or a record that `factory.overlay` refuses.
    """
    recorded = as_mapping(model.record.get("config"))
    other_data = _data_choice(overrides) is not None
    if not recorded and not other_data:
        example = getattr(model.module, "DATA", "NAME")
        raise InputError(f"name a data set, such as data={example}: a model folder does not specify one")
    choices = [f"model={_model_choice(model)}"]
    if not other_data:
        choices.append(f"data={factory.select_choice(model.record, model.task, 'data')}")
    config = compose([*choices, *(override for override in overrides if not override.startswith("data."))])
    if problem := describe_task_mismatch(config):
        raise InputError(problem)
    check_trust(config, overrides)
    if model.is_network and str(config.model._target_).startswith("trainers."):
        raise InputError(
            f"run={model.folder} is a network of model={model.choice}, but on this machine model={model.choice} is "
            f"{config.model._target_}: name the configuration folder that it was trained with (docs/models.md)"
        )
    with open_dict(config):
        if not other_data:
            factory.overlay(config.data, recorded.get("data"), f"{folders.RECORD}: config.data")
            trainer = as_mapping(recorded.get("trainer"))
            for key in ("deterministic", "precision"):
                if key in trainer:
                    config.trainer[key] = factory.plain_value(trainer[key], f"{folders.RECORD}: config.trainer.{key}")
        settings = model.model_settings if model.is_network else recorded.get("model") or {}
        factory.overlay(config.model, settings, f"{folders.RECORD}: config.model", _trainer_keys(model))
    apply_saved_model(model, config, preprocessing=other_data)
    for override in overrides:
        if override.startswith("data."):
            _apply_override(config, override)
    return config


def apply_saved_model(model: SavedModel, config: DictConfig, preprocessing: bool = False) -> None:
    """Set a configuration's model to a saved one, with its decoding.

    Args:
        model: the saved model.
        config: the configuration, changed in place.
        preprocessing: whether to set the data's preprocessing to the model's, too.
    """
    module = model.module
    load_settings = tasks.load_member(model.task, "model_config", "loading a model")
    weights = {} if model.is_network else load_settings(model)  # `load_module` loads those of a network
    with open_dict(config):
        values = _specified_settings(model, "model") | weights
        factory.overlay(config.model, values, f"{model.folder}: model", _trainer_keys(model))
        if preprocessing:
            example_keys = getattr(module, "EXAMPLE_KEYS", ())  # these are the data set's own
            values = _specified_settings(model, "data")
            values = {key: value for key, value in values.items() if key not in example_keys}
            factory.overlay(config.data, values, f"{model.folder}: data")
        if data_config := getattr(module, "data_config", None):
            factory.overlay(config.data, data_config(model), f"{model.folder}: data")


def load_module(model: SavedModel, config: DictConfig, split: Literal["val", "test"] = "val") -> tuple[Any, Any]:
    """Open the validation split of a configuration, and load a saved model.

    Args:
        model: the saved model.
        config: a configuration of that model (`compose_saved`, `apply_saved_model`).
        split: "test" opens the test part in its place.

    Returns:
        The data module and the LightningModule.

    Raises:
        InputError: the model cannot be loaded, or does not fit the data, for example because of other classes.
    """
    check_model(config)
    data = build(config, "data")
    if split == "test":
        data.evaluate_test()
    data.prepare_data(("val",))
    data.setup("validate")
    if check_data := getattr(model.module, "check_data", None):
        check_data(model, data)
    module = build(config, "model", data=data, optim=config.optim)
    weights.check_complete(f"run={model.folder}", getattr(module, "new_parameters", ()))
    if model.is_network and onnx_network.is_onnx(model.folder):
        module.model = onnx_network.load(model.folder)
    elif model.is_network:
        from trainers.custom_networks import load_weights

        load_weights(module, model.folder)
    if model.precision == bfloat16.PRECISION:
        bfloat16.convert(module.model)
    return data, module


def load_network(model: SavedModel, random: bool = False) -> Any:
    """Build the network of a saved model that is one of the user's own, without its data.

    Args:
        model: the saved model; `is_network`.
        random: whether to keep random weights.

    Raises:
        InputError: its class is not in the configuration of this machine, or does not fit its weights.
    """
    if onnx_network.is_onnx(model.folder) and not random:
        return onnx_network.load(model.folder)
    from trainers.custom_networks import load_weights, reset_weights

    config = compose_saved(model, [f"data={tasks.load_member(model.task, 'DATA', 'loading a model')}"])
    check_config(config)
    check_targets(config)
    names = getattr(model.module, "labels", lambda config: config.get("label_names", []))(model.config)
    data = SimpleNamespace(**model.config[networks.CONFIG_KEY], classes=[{"id": name} for name in names])
    module = build(config, "model", data=data, optim=config.optim)
    (reset_weights(module.model) if random else load_weights(module, model.folder))
    return module.model


def _trainer_keys(model: SavedModel) -> tuple[str, ...]:
    """Return the keys of conf/model that the class which trains a network takes, beside those of the network itself."""
    return tuple(networks.trainer_signature(model.module.__name__).parameters) if model.is_network else ()


def _model_choice(model: SavedModel) -> str:
    """Return the choice of conf/model with which a saved model is opened.

    Raises:
        InputError: it is a network of the user's own, whose choice this machine does not have.
    """
    if not model.is_network:
        return factory.select_choice(model.record, model.task, "model")
    if model.choice is None or re.fullmatch(r"[\w.-]+", model.choice) is None:
        raise InputError(
            f"run={model.folder} is damaged: it has a network of the user's own, and no choice of conf/model"
        )
    if model.choice not in group_choices("model"):
        raise InputError(
            f"run={model.folder} is a network of model={model.choice}, and no configuration folder has "
            f"model/{model.choice}.yaml: name the one it was trained with, as ISOTRAIN_CONF=/home/me/mine/conf (or "
            "hydra.searchpath=[/home/me/mine/conf]), and the folder of its package in PYTHONPATH"
        )
    return model.choice


def _check_output(output: str | None) -> None:
    """Refuse a folder for results that holds something else."""
    if output is not None:
        if folders.is_run(output):
            raise InputError(f"--output {output} holds a run, whose record would be lost; give another folder")
        names = (folders.RECORD, folders.PREDICTIONS, folders.METRICS)
        files.check_output_folder(output, names, folders.is_evaluation, "an evaluation")


def _write(
    output: str | None, record: dict[str, Any], rows: Iterable[Any], metrics: dict[str, float], best: dict[str, Any]
) -> None:
    """Write the files of an evaluation into its folder, if there is one, and print the metric line."""
    metrics_file = None
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        predictions.write(folder / folders.PREDICTIONS, rows)
        files.write_json(folder / folders.RECORD, record)
        metrics_file = folder / folders.METRICS
        metric_lines.truncate_lines(metrics_file, 0)  # of an earlier evaluation
    metric_lines.write(metrics, best["epoch"], best["step"], stream=sys.stdout, jsonl_path=metrics_file)


def make_record(
    name: str, config: DictConfig, data: Any, metrics: dict[str, float], details: Any, choice: str | None
) -> dict[str, Any]:
    """Return the run.json of an evaluation, as `python -m runs` reads it.

    Args:
        name: a run folder or a model folder.
        config: the composed configuration.
        data: the data module.
        metrics: the metrics.
        details: of the LightningModule.
        choice: choice of conf/data; None if unknown.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {
        "status": "evaluated",
        "command": mask_command(sys.argv),
        "metrics": metric_lines.round_metrics(metrics),
        "details": details,
        "data": {"fingerprints": {"val": data.fingerprint("val")}},
        "parent": {"init_from": str(Path(name).absolute())},
        "choices": {"model": name, **({"data": choice} if choice else {})},
        "config": mask_secrets(plain),
    }


def _data_choice(overrides: list[str]) -> str | None:
    choices = [override.removeprefix("data=") for override in overrides if override.startswith("data=")]
    return choices[-1] if choices else None


def _specified_settings(model: SavedModel, group: str) -> dict[str, Any]:
    """Return a saved model's settings without defaults, for which the configuration has its own."""
    settings = model.settings.get(group, {})
    return {key: value for key, value in settings.items() if f"{group}.{key}" not in model.defaults}


def _apply_override(config: DictConfig, override: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from config.messages import describe_unknown_key

    parsed = OverridesParser.create().parse_override(override)
    key = parsed.key_or_group
    if OmegaConf.select(config, key, default="absent") == "absent":
        raise InputError(describe_unknown_key(key, config))
    OmegaConf.update(config, key, parsed.value())
