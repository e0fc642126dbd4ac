"""The model that is explained, and the data it is explained on."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import DictConfig

from config import tasks
from explain import options
from explain.options import Options
from runs.lineage import folder_digest
from trainers import evaluate, fast_dropout, hardware, saved_model
from trainers.build import build, check_targets
from trainers.saved_model import SavedModel


@dataclass(frozen=True)
class Subject:
    """A saved model, ready.

    Attributes:
        saved: where it is, and the settings that its predictions depend on.
        explainer: of its task: the module of its explanations.
        data: the data module, its validation split open.
        network: transformers' or timm's, in eval mode on its device.
        digest: SHA-256 (hex) of its weights and configuration.
        device: where it runs.
    """

    saved: SavedModel
    explainer: ModuleType
    data: Any
    network: Any
    digest: str
    device: torch.device


def load(name: str, overrides: list[str]) -> tuple[Subject, Options]:
    """Loads a run's model, or a model folder, with the validation split and the options.

    Args:
        name: a run's folder or a model folder.
        overrides: Hydra overrides; `data=` for another data set than the run's.

    Raises:
        InputError: the model cannot be loaded, its task has no explainer, or the data is of another task or has other classes.
    """
    from config.check import check_config
    from datamodules.imports import quick
    from trainers import cpu

    quick()
    model = saved_model.open_model(name)
    explainer = tasks.load_member(model.task, "explainer", "explain")()
    config = evaluate.compose_saved(model, overrides)
    check_config(config)
    check_targets(config)
    chosen = options.read_options(config.explain, model.task)
    hardware.configure_cpu(config.trainer.threads)
    cpu.tune_cpu()
    return _open(model, explainer, config), chosen


def load_run(folder: Path, config: DictConfig) -> tuple[Subject, Options]:
    """A run's exported model and the options, by the configuration that trained it."""
    model, own = saved_model.open_model(str(folder)), copy.deepcopy(config)
    explainer = tasks.load_member(model.task, "explainer", "explain")()
    chosen = options.read_options(config.explain, model.task)
    evaluate.apply_saved_model(model, own)
    return _open(model, explainer, own), chosen


def _open(model: SavedModel, explainer: ModuleType, config: DictConfig) -> Subject:
    data = build(config, "data")
    data.prepare_data(("val",))
    data.setup("validate")
    evaluate.check_data(model, data)
    module = build(config, "model", data=data, optim=config.optim)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    return Subject(model, explainer, data, prepare_network(module.model, device), folder_digest(model.folder), device)


def prepare_network(network: Any, device: torch.device) -> Any:
    """A network on its device, for inference alone."""
    network = network.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        fast_dropout.enable(network)  # its attention is the quicker one
    return network


def random_transformer(subject: Subject, automatic: Any, seed: int) -> Any:
    """The architecture of a transformers model at random weights.

    Args:
        subject: the model.
        automatic: the Auto class of its head, such as AutoModelForQuestionAnswering.
        seed: of the weights.
    """
    with seeded(seed):
        network = automatic.from_config(copy.deepcopy(subject.network.config), attn_implementation="sdpa")
    return prepare_network(network, subject.device)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights that are drawn inside depend on the seed alone; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def inference_context(device: torch.device, bfloat16: bool) -> Iterator[None]:
    """Forward passes without gradients, in bfloat16 where wanted."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield
