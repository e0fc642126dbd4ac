"""Objects from configuration nodes, and a check that each node fits the class it names."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from config import check, signatures
from config.errors import InputError
from config.rules import CALLER_ARGUMENTS, NON_ARGUMENT_KEYS


def build(config: DictConfig, group: str, **kwargs: Any) -> Any:
    """Instantiate `config[group]`.

    Args:
        config: the composed configuration.
        group: `model`, `data` or `logger`.
        kwargs: further arguments.
    """
    node = {key: value for key, value in config[group].items() if key not in NON_ARGUMENT_KEYS.get(group, ())}
    return instantiate(OmegaConf.create(node), **kwargs, _convert_="all", _recursive_=False)


def check_targets(config: DictConfig) -> None:
    """Bind the signature of each `_target_` to its node, before anything is built.

    Raises:
        InputError: a target cannot be imported, does not take an argument, or lacks one.
    """
    problems = [problem for path, node in check.iter_targets(config) for problem in _binding_problems(path, node)]
    if problems:
        raise InputError("; ".join(problems))


def check_model(config: DictConfig) -> None:
    """Call the `check_config` of the model's class, if it has one, before data is prepared.

    Raises:
        InputError: by `check_config`: the model does not take such data, or its checkpoint is unavailable.
    """
    if check_config := getattr(get_object(str(config.model._target_)), "check_config", None):
        check_config(config)


def _binding_problems(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    name = str(node["_target_"])
    try:
        target = get_object(name)
    except Exception as error:
        yield f"{path}._target_={name}: cannot be imported ({error.__cause__ or error})"
        return
    parameters = inspect.signature(target).parameters.values()
    named = {
        parameter.name: signatures.Parameter(required=parameter.default is parameter.empty)
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    yield from signatures.check_arguments(
        path,
        name,
        signatures.Signature(named, open=open_ended),
        check.argument_names(path, node),
        CALLER_ARGUMENTS.get(path, ()),
    )
