"""What a person sees of a training: a block of lines at its start, and one at its end, both on stderr."""

import contextlib
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from config.errors import InputError
from config.numbers import format_number
from config.terminal import format_duration, format_entry, make_printable, terminal_width
from runs import folder as folders
from runs import metric_lines
from runs.fields import as_mapping

if TYPE_CHECKING:
    import lightning.pytorch as pl


def format_start(config: DictConfig, trainer: "pl.Trainer", module: "pl.LightningModule", folder: Path) -> str:
    """Return the block at the start of a training: model, data, device, steps and folder.

    Args:
        config: the composed configuration.
        trainer: Lightning's Trainer, at the start of its training.
        module: the model.
        folder: the run folder, whose record has the names of the choices and the counts of the data.
    """
    record: Mapping[str, Any] = {}
    with contextlib.suppress(InputError):
        record = folders.read_record(folder)
    choices, data = as_mapping(record.get("choices")), as_mapping(record.get("data"))
    entries = {
        "model": f"{_choice(choices, config, 'model')}: {_describe_parameters(module)}, {_describe_weights(config)}",
        "data": f"{_choice(choices, config, 'data')}: {_describe_counts(data)}",
        "device": _describe_device(trainer),
        "training": _describe_steps(config, trainer),
        "folder": str(_relative(folder)),
    }
    return _format_block(entries)


def format_end(fields: Mapping[str, Any], folder: Path) -> str:
    """Return the block at the end of a training: the best validation, the time, and commands that use the run.

    Args:
        fields: content of run.json.
        folder: the run folder.
    """
    best = as_mapping(fields.get("best"))
    # Katib reads stderr, too, and would take NAME=VALUE for one more validation.
    equals = " " if fields.get("trial") else "="
    metrics = " ".join(
        f"{name}{equals}{format_number(value, metric_lines.LINE_DIGITS)}"
        for name, value in as_mapping(fields.get("metrics")).items()
    )
    entries = {
        "best": f"epoch {best.get('epoch')}, step {best.get('step')}: {metrics}",
        "time": format_duration(fields.get("duration_seconds")),
        "report": str(_relative(folder) / folders.REPORT),
    }
    if fields.get("trial") or fields.get("pipeline"):  # nobody types a command there
        return _format_block(entries)
    name = shlex.quote(str(_relative(folder)))
    commands = [f"python -m runs compare {name} OTHER_RUN"]
    if (folder / folders.MODEL / "config.json").exists():  # a baseline has none
        commands = [
            f"python -m trainers evaluate run={name}",
            f"python -m trainers predict run={name} FILE",
            *commands,
        ]
    return _format_block(entries, commands)


def _format_block(entries: Mapping[str, str], commands: Sequence[str] = ()) -> str:
    """Format entries, wrapped to the terminal, and commands, which stay whole so that they can be copied."""
    lines = [format_entry(name, make_printable(text), terminal_width()) for name, text in entries.items()]
    lines += [f"{'' if index else 'next':<10} {command}" for index, command in enumerate(commands)]
    return "\n".join(lines)


def _relative(folder: Path) -> Path:
    """The folder relative to the working directory, if it is below it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _choice(choices: Mapping[str, Any], config: DictConfig, group: str) -> str:
    return str(choices.get(group) or str(config[group].get("_target_")).rpartition(".")[2])


def _describe_parameters(module: "pl.LightningModule") -> str:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    total, trained = sum(size for size, _ in counts), sum(size for size, trains in counts if trains)
    return f"{total:,} parameters" + (f", of which {trained:,} are trained" if trained < total else "")


def _describe_weights(config: DictConfig) -> str:
    """Where the weights come from at the start of the run."""
    parent = next((config[key] for key in ("init_from", "population_parent") if config.get(key)), None)
    pretrained = config.model.get("pretrained")
    if parent is not None:
        return f"weights of {parent}"
    if isinstance(pretrained, str):
        return f"weights of {pretrained}"
    if "pretrained" not in config.model:  # a network of the user's own, whose constructor may load some
        return "weights of its constructor"
    return "pretrained weights" if pretrained else "random weights"


def _describe_counts(data: Mapping[str, Any]) -> str:
    """The first count of each split; its name is what the data set consists of, such as questions."""
    counts = {split: _first_count(as_mapping(data.get(split))) for split in ("train", "val")}
    (unit, train), (_, val) = counts["train"], counts["val"]
    return f"{train:,} {unit} to train on, {val:,} to validate on"


def _first_count(split: Mapping[str, Any]) -> tuple[str, int]:
    counts = ((name, value) for name, value in split.items() if isinstance(value, int) and not isinstance(value, bool))
    return next(counts, ("examples", 0))


def _describe_device(trainer: "pl.Trainer") -> str:
    import torch

    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{device.type} ({threads} thread{'s' * (threads > 1)})"
    processes = f"{trainer.world_size} processes, each on " if trainer.world_size > 1 else ""
    return f"{processes}{name}, precision {trainer.precision}"


def _describe_steps(config: DictConfig, trainer: "pl.Trainer") -> str:
    total = trainer.estimated_stepping_batches
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    batch = config.data.get("batch_size")  # the total of all processes
    size = f", batch size {batch * trainer.accumulate_grad_batches}" if isinstance(batch, int) else ""
    start = f", from step {trainer.global_step}" if trainer.global_step else ""
    if total == float("inf"):
        return f"until {config.trainer.max_time} has passed; {per_epoch:,} steps an epoch{size}{start}"
    epochs = format_number(int(total) / per_epoch, 3)
    return f"{int(total):,} steps, {epochs} epoch{'s' * (epochs != '1')}{size}{start}"
