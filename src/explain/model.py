"""The model that is explained, the data it is explained on, and the same architecture at random weights."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from datamodules.images import augment
from runs.lineage import digest
from trainers import dropout, evaluate, hardware, image_classification, saved
from trainers import stem as stems
from trainers.build import build, check_targets
from trainers.saved import SavedModel

NORMALISED = 256  # images that set the random weights' batch norms


@dataclass(frozen=True)
class Subject:
    """A saved model, ready.

    Attributes:
        saved: where it is.
        config: composed, its model the saved one.
        data: the data module, its validation split open.
        network: transformers' or timm's, in eval mode on its device.
        digest: SHA-256 (hex) of its weights and configuration.
        device: where it runs.
    """

    saved: SavedModel
    config: DictConfig
    data: Any
    network: Any
    digest: str
    device: torch.device


def load(name: str, overrides: list[str]) -> Subject:
    """Loads a run's model, or a model folder, and the validation split.

    Args:
        name: a run's folder or a model folder.
        overrides: Hydra overrides; `data=` for another data set than the run's.

    Raises:
        Refused: the model cannot be loaded, or the data is of another task or has other classes.
    """
    from config.check import check
    from datamodules.imports import quick
    from trainers import cpu

    quick()
    found = saved.find(name)
    config = evaluate.configuration(found, overrides)
    check(config)
    check_targets(config)
    hardware.use_threads(config.trainer.threads)
    cpu.tune()
    return _opened(found, config)


def of_run(folder: Path, config: DictConfig) -> Subject:
    """A run's exported model, by the configuration that trained it."""
    found, own = saved.find(str(folder)), copy.deepcopy(config)
    evaluate.put(found, own)
    return _opened(found, own)


def _opened(found: SavedModel, config: DictConfig) -> Subject:
    data = build(config, "data")
    data.prepare_data(("val",))
    data.setup("validate")
    evaluate.check_data(found, data)
    module = build(config, "model", data=data, optim=config.optim)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    return Subject(found, config, data, _ready(module.model, device), digest(found.folder), device)


def random(subject: Subject, seed: int) -> Any:
    """The same architecture at random weights: what an explanation says when nothing was learned.

    Args:
        subject: whose.
        seed: of the weights.

    Returns:
        The network; its batch norms' statistics are those of some images of the evaluation set.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if subject.saved.task == "question_answering":
            from transformers import AutoModelForQuestionAnswering

            config = copy.deepcopy(subject.network.config)
            network = AutoModelForQuestionAnswering.from_config(config, attn_implementation="sdpa")
        else:
            about = subject.saved.config
            network = image_classification.network(
                about["architecture"], False, dict(about.get("model_args") or {}), subject.data
            )
            if stems.is_small(subject.saved.config):
                stems.make_small(network)
            network.to(device=subject.device, memory_format=torch.channels_last)
            _normalised(network, subject.data)
    return _ready(network, subject.device)


def _normalised(network: Any, data: Any) -> None:
    """Sets batch norms' statistics to the data's: those of an untrained network are of no data, and mute it."""
    norms = [each for each in network.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for each in norms:
        each.reset_running_stats()
        each.momentum = None  # a plain mean over the batches
    places = np.linspace(0, len(data.val), min(NORMALISED, len(data.val)), endpoint=False).astype(np.int64)
    network.train()
    with torch.no_grad():
        for part in np.array_split(places, -(-len(places) // 64)):
            pixels = torch.from_numpy(data.val.gather(part)).to(next(network.parameters()).device)
            network(augment.evaluation_batch(pixels, data.augment))


def _ready(network: Any, device: torch.device) -> Any:
    network = network.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        dropout.enable(network)  # its attention is the quicker one
    return network


@contextlib.contextmanager
def arithmetic(device: torch.device, bfloat16: bool) -> Iterator[None]:
    """Forward passes without gradients, in bfloat16 where asked."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield
