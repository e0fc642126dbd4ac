"""The model that is explained, and its data."""

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
from explain.options import Options, read_options
from runs.lineage import folder_digest
from trainers import encoders, evaluate, hardware, onnx_network, predict, saved_model
from trainers.build import check_targets
from trainers.saved_model import SavedModel


@dataclass(frozen=True)
class Subject:
    """A saved model with its data, ready to be explained.

    Attributes:
        saved: the saved model.
        explainer: the explainer module of its task.
        data: the data module, set up for validation.
        network: of transformers, timm or the user, in eval mode on its device.
        digest: SHA-256 (hex) of its weights and configuration.
        device: device of the network.
    """

    saved: SavedModel
    explainer: ModuleType
    data: Any
    network: Any
    digest: str
    device: torch.device


def load(name: str, overrides: list[str]) -> tuple[Subject, Options]:
    """Load the model of a run or a model folder, with the validation split and the options.

    Args:
        name: run folder or model folder.
        overrides: Hydra overrides; `data=` for a data set other than the run's.

    Raises:
        InputError: the model cannot be loaded, its task has no explainer, or the data has another task or other classes.
    """
    from config.check import check_config

    model = saved_model.open_model(name)
    tasks.load_member(model.task, "explainer", "explain")  # refused before its data is read
    config = evaluate.compose_saved(model, overrides)
    check_config(config)
    check_targets(config)
    hardware.configure_cpu(config.trainer.threads)
    return open_subject(model, config)


def load_run(folder: Path, config: DictConfig) -> tuple[Subject, Options]:
    """Load the exported model of a run, and the options, with the configuration that trained it."""
    model, saved_config = saved_model.open_model(str(folder)), copy.deepcopy(config)
    evaluate.apply_saved_model(model, saved_config)
    return open_subject(model, saved_config)


def open_subject(model: SavedModel, config: DictConfig) -> tuple[Subject, Options]:
    """Load a saved model with the data and the options of a configuration of it."""
    explainer = tasks.load_member(model.task, "explainer", "explain")()
    options = read_options(config.explain, model.task)
    data, module = evaluate.load_module(model, config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    network = prepare_network(module.model, device)
    return Subject(model, explainer, data, network, folder_digest(model.folder), device), options


def prepare_network(network: Any, device: torch.device) -> Any:
    """Move a network to its device and prepare it for inference."""
    return predict.prepare_network(network.requires_grad_(False), device)


def random_transformer(subject: Subject, seed: int) -> Any:
    """Build the architecture of a text model with random weights.

    Args:
        subject: the model.
        seed: of the weights.
    """
    with seeded(seed):
        if subject.saved.is_network:
            return prepare_network(evaluate.load_network(subject.saved, random=True), subject.device)
        # Of the class that is loaded already: transformers' Auto classes could run code that the folder names.
        is_onnx = onnx_network.is_onnx_network(subject.network)
        kind = encoders.architecture(subject.network.config) if is_onnx else type(subject.network)
        network = kind._from_config(copy.deepcopy(subject.network.config), attn_implementation=None)
    return prepare_network(network, subject.device)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator within the context, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def inference_context(device: torch.device, bfloat16: bool) -> Iterator[None]:
    """Disable gradients within the context, and use bfloat16 if requested."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield
