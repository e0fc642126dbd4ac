"""Scores a saved model on a data set, as training's validation does."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from config.check import check
from config.compose import compose
from config.errors import Refused
from runs import folder as folders
from runs import metric_lines, predictions
from runs.masking import masked, masked_command
from trainers import saved
from trainers.build import build, check_targets
from trainers.saved import Saved


def evaluate(name: str, overrides: list[str], output: str | None) -> dict[str, float]:
    """Prints a metric line for a model on a validation split.

    Args:
        name: a run's folder or a model folder.
        overrides: Hydra overrides; `data=` for another data set than the run's.
        output: folder for predictions.jsonl, metrics.jsonl and a run.json (status "evaluated") that runs compare; None writes none.

    Raises:
        Refused: the model cannot be loaded, or the data is of another task or has other classes.
    """
    from datamodules.imports import quick

    if output is not None and folders.state(output) in ("unfinished", "finished"):
        raise Refused(f"--output {output} holds a run; its record would be lost: give another folder")
    quick()
    import lightning.pytorch as pl

    from trainers import cpu, distributed, fit
    from trainers.hardware import use_threads

    model_folder = saved.find(name)
    config = configuration(model_folder, overrides)
    check(config)
    check_targets(config)
    distributed.start()
    use_threads(config.trainer.threads)
    cpu.tune()
    data = build(config, "data")
    data.prepare_data(("val",) if model_folder.task == "question_answering" else ("train", "val"))
    data.setup("validate")
    same_classes(model_folder, data)
    module = build(config, "model", data=data, optim=config.optim)
    trainer: pl.Trainer = fit.build(config, [], Path(output or "."), [])
    trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        file = None
        if output is not None:
            Path(output).mkdir(parents=True, exist_ok=True)
            predictions.write(Path(output) / folders.PREDICTIONS, module.rows)
            folders.write_json(Path(output) / folders.RECORD, _record(name, config, data, module))
            file = Path(output) / folders.METRICS
            file.unlink(missing_ok=True)  # of an earlier evaluation
        best: dict[str, Any] = model_folder.record.get("best") or {"epoch": 0, "step": 0}
        metric_lines.write(module.metrics, best["epoch"], best["step"], stream=sys.stdout, jsonl_path=file)
    distributed.stop()
    return dict(module.metrics)


def _record(name: str, config: DictConfig, data: Any, module: Any) -> dict[str, Any]:
    """What `python -m runs` asks of an evaluation: which model, on which data, with which metrics."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {
        "status": "evaluated",
        "command": masked_command(sys.argv),
        "metrics": dict(module.metrics),
        "details": module.details,
        "data": {"fingerprints": {"val": data.fingerprint("val")}},
        "parent": {"init_from": str(Path(name).absolute())},
        "choices": {"model": name},
        "config": masked(plain),
    }


def configuration(model: Saved, overrides: list[str]) -> DictConfig:
    """A composed configuration whose model is the saved one."""
    ours = model.record.get("config") or {}
    own_data = ours and not any(each.startswith("data=") for each in overrides)
    if not own_data and not any(each.startswith("data=") for each in overrides):
        raise Refused(
            "name a data set, such as data=squad data.path=FOLDER: a model folder does not say which it is for"
        )
    choice = "bert" if model.task == "question_answering" else "resnet18"
    data_choice = [] if not own_data else [f"data={'squad' if model.task == 'question_answering' else 'tiny_imagenet'}"]
    config = compose([*data_choice, f"model={choice}", *(each for each in overrides if not each.startswith("data."))])
    if config.task.name != model.task:
        raise Refused(
            f"the model is made for {model.task}, the data set for {config.task.name}: choose a model and a data set of one task"
        )
    if own_data:
        with open_dict(config):
            config.data = OmegaConf.create(ours["data"])
            config.trainer.deterministic = ours["trainer"]["deterministic"]
            config.trainer.precision = ours["trainer"]["precision"]
    put(model, config)
    if model.task == "image_classification" and not own_data:
        config.data.image_size = _image_size(model)
        about = model.config.get("pretrained_cfg", {})
        config.data.mean, config.data.std = (
            list(about.get("mean", config.data.mean)),
            list(about.get("std", config.data.std)),
        )
    for each in overrides:
        if each.startswith("data."):
            config = _override(config, each)
    return config


def put(model: Saved, config: DictConfig) -> None:
    """Makes a configuration's model the saved one, and its tokenizer that one's."""
    with open_dict(config):
        for key, value in _model(model).items():
            config.model[key] = value
    if model.task == "question_answering":
        config.data.pretrained, config.data.tokenizer = None, str(model.folder)


def _override(config: DictConfig, override: str) -> DictConfig:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from config.messages import unknown_key

    parsed = OverridesParser.create().parse_override(override)
    key = parsed.key_or_group
    if OmegaConf.select(config, key, default="absent") == "absent":
        raise Refused(unknown_key(key))
    OmegaConf.update(config, key, parsed.value())
    return config


def _model(model: Saved) -> dict[str, Any]:
    if model.task == "question_answering":
        return {"pretrained": str(model.folder), "revision": None}
    return {
        "name": model.config["architecture"],
        "pretrained": str(model.folder),
        "stem": "small" if model.small_stem else "standard",
        "arguments": {},
    }


def _image_size(model: Saved) -> int:
    size = int(model.config.get("pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1])
    return size // 2 if model.small_stem else size


def same_classes(model: Saved, data: Any) -> None:
    labels = model.config.get("label_names") or model.config.get("pretrained_cfg", {}).get("label_names")
    if model.task != "image_classification" or not labels:
        return
    here = [entry["id"] for entry in data.classes]
    if list(labels) != here:
        strange = [name for name in here if name not in labels][:3]
        about = f"such as {', '.join(strange)}" if strange else "in another number or order"
        raise Refused(f"the data has other classes than the model ({len(here)} and {len(labels)}; {about})")
