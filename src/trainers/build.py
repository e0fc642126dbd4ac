"""Objects from configuration nodes, and a check that each node fits the class it names."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from config import check, networks
from config.errors import InputError
from config.rules import NON_ARGUMENT_KEYS


def build(config: DictConfig, group: str, **kwargs: Any) -> Any:
    """Instantiate `config[group]`.

    Args:
        config: the composed configuration.
        group: `model`, `data` or `logger`.
        kwargs: further arguments.

    Raises:
        InputError: the model is a network that cannot be trained; see `custom_networks.build_module`.
    """
    if group == "model" and is_network(get_object(str(config.model._target_))):
        from trainers.custom_networks import build_module

        return build_module(config, **kwargs)
    node = {key: value for key, value in config[group].items() if key not in NON_ARGUMENT_KEYS.get(group, ())}
    return instantiate(OmegaConf.create(node), **kwargs, _convert_="all", _recursive_=False)


def check_targets(config: DictConfig) -> None:
    """Bind the signature of each `_target_` to its node, before anything is built.

    Raises:
        InputError: a target cannot be imported, does not take an argument, or lacks one.
    """
    module = str(config.task.module)
    problems = [
        problem for path, node in check.iter_targets(config) for problem in _binding_problems(path, node, module)
    ]
    if problems:
        raise InputError("; ".join(problems))


def check_model(config: DictConfig) -> None:
    """Call the `check_config` of the model's class, if it has one, before data is prepared.

    Raises:
        InputError: by `check_config`: the model does not take such data, or its checkpoint is unavailable.
    """
    if check_config := getattr(get_object(str(config.model._target_)), "check_config", None):
        check_config(config)


def is_network(target: Any) -> bool:
    """Return whether the target of conf/model is a plain network, or a function that returns one: it takes no `optim`."""
    return not hasattr(target, "configure_optimizers") and networks.is_network(networks.imported_signature(target))


def _binding_problems(path: str, node: Mapping[str, Any], module: str) -> Iterator[str]:
    name = str(node["_target_"])
    try:
        target = get_object(name)
    except Exception as error:
        yield f"{path}._target_={name}: cannot be imported ({error.__cause__ or error})"
        return
    if not callable(target):
        yield f"{path}._target_={name}: {type(target).__name__} cannot be called; name a class or function"
        return
    if path == "model" and hasattr(target, "configure_optimizers"):
        from trainers.task import Task

        if not issubclass(target, Task):
            yield f"model._target_={name}: a LightningModule must be derived from trainers.task.Task (docs/tasks.md, section 3)"
    yield from check.check_target(path, node, networks.imported_signature(target), module)
