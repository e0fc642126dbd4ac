"""Networks of the user's own, plain `torch.nn.Module`s: built, checked, exported and loaded; `trainers.networks` trains them.

`_target_` in conf/model names the network, or a function that returns it. Its class comes from the configuration of the
machine, never from a folder: an exported model has its weights, plain settings and the name of its choice of conf/model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config import networks
from config.errors import InputError
from trainers import weights
from trainers.inference import text_inputs
from trainers.task import Task

LENGTH = 8  # tokens of the texts with which a network's outputs are checked


def build_module(config: DictConfig, data: Any, optim: Mapping[str, Any]) -> Task:
    """Build the network of a configuration, and the LightningModule of its task around it.

    Args:
        config: the composed configuration.
        data: data module, whose attributes include the DATA_ARGUMENTS of the task's class in `trainers.networks`.
        optim: conf/optim.

    Raises:
        InputError: the task trains no networks, the target returns none, or its outputs have another shape.
    """
    name, module = str(config.model._target_), str(config.task.module)
    trainer = networks.trainer_name(module)
    if trainer is None:
        raise InputError(
            f"model._target_={name}: the task {config.task.name} trains LightningModules only ({module} names no NETWORK); "
            "derive the class from trainers.task.Task"
        )
    node: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    settings = {key: node[key] for key in networks.trainer_signature(module).parameters if key in node}
    signature = networks.imported_signature(get_object(name))
    arguments = {key: node[key] for key in networks.argument_names("model", node, signature, module)}
    data_arguments = {key: getattr(data, key) for key in networks.data_arguments(module) if key in signature.parameters}
    hydra_keys = {key: value for key, value in node.items() if key.startswith("_")}
    network = instantiate({**hydra_keys, **data_arguments, **arguments}, _convert_="all")
    if not isinstance(network, nn.Module):
        raise InputError(f"model._target_={name} returns {type(network).__name__}, but must return a torch.nn.Module")
    built: Task = get_object(trainer)(data=data, optim=optim, network=network, **settings)
    return built


def load_weights(module: Task, folder: Path) -> None:
    """Load the weights of a model folder that `export` wrote.

    Raises:
        InputError: they are unreadable, not finite, or of a network with other settings or code.
    """
    source = f"run={folder}"
    state = weights.read_folder(folder, source)
    network: Any = module.model
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{source}: {weights.describe_mismatch(error)}") from None
    weights.check_finite(source, network)


def reset_weights(network: nn.Module) -> None:
    """Draw new random weights for the layers of a network that have a method for it, as those of torch have."""
    for layer in network.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if callable(reset := getattr(layer, name, None)):
                reset()


def export(module: Any, folder: str, arguments: Sequence[str], content: Mapping[str, Any]) -> None:
    """Write the weights and config.json of a network.

    Args:
        module: the LightningModule.
        folder: the folder.
        arguments: names of the attributes of the data that the network's constructor may have.
        content: further content of config.json.

    Raises:
        InputError: the state of the network has something else than tensors.
    """
    from safetensors.torch import save_file

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    state = module.model.state_dict()
    if unsuitable := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"{_name(module.model)}: {unsuitable[0]} in its state is no tensor, which safetensors cannot store"
        )
    # A copy of each: safetensors refuses tensors that share memory.
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    save_file(copies, path / weights.FILES[0])
    config = {networks.CONFIG_KEY: {name: getattr(module.data, name) for name in arguments}, **content}
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def build_loss(node: Mapping[str, Any] | None) -> Any:
    """Return the loss of `model.loss`, a module or a function; by default cross-entropy."""
    if node is None:
        return cross_entropy
    loss = instantiate(dict(node), _convert_="all")
    if not callable(loss):
        raise InputError(
            f"model.loss._target_={node.get('_target_')} returns {type(loss).__name__}: name a class of losses, or a function "
            "of logits and targets with _partial_: true"
        )
    return loss


def mean_loss(loss: Any) -> Tensor:
    """Return what `model.loss` returned.

    Raises:
        InputError: it is no tensor without dimensions.
    """
    if not isinstance(loss, Tensor) or loss.ndim:
        kind = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            f"model.loss returns {kind}, but must return the mean over the batch, a tensor without dimensions"
        )
    return loss


def example_batch(network: nn.Module) -> dict[str, Tensor]:
    """Return the inputs of a network for texts that its outputs are checked with.

    Raises:
        InputError: its `forward` does not take tokens.
    """
    ones = torch.ones(2, LENGTH, dtype=torch.int64)
    batch = text_inputs(network, {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones * 0})
    if "input_ids" not in batch:
        raise InputError(
            f"forward of {_name(network)} has no argument input_ids: a network for texts takes input_ids and, as far as it "
            "uses them, attention_mask and token_type_ids, int64 [B, L]"
        )
    return batch


def check_outputs(
    network: nn.Module, inputs: Sequence[int], expected: list[list[int]], forward: Callable[[], list[Any]]
) -> None:
    """Check the shapes of a network's outputs, before it is trained; lazy layers get their shapes.

    Args:
        network: the network; its layers keep their modes.
        inputs: shape of the inputs, for the message.
        expected: shapes of the outputs.
        forward: function that returns the outputs.

    Raises:
        InputError: they have other shapes.
    """
    modes = [(layer, layer.training) for layer in network.modules()]
    network.eval()
    with torch.no_grad():
        outputs = forward()
    for layer, training in modes:
        layer.training = training
    shapes = [list(output.shape) if isinstance(output, Tensor) else type(output).__name__ for output in outputs]
    if shapes != expected:
        raise InputError(
            f"{_name(network)} returns {_listing(shapes)} for inputs {list(inputs)}, but must return logits {_listing(expected)}"
        )


def _listing(shapes: Sequence[Any]) -> str:
    return " and ".join(map(str, shapes))


def _name(network: Any) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"
