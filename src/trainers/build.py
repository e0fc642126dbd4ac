"""Objects from configuration nodes, and a check beforehand that each node fits what it names."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from config import check, signatures
from config.errors import InputError
from config.rules import CALLER_ARGUMENTS, NON_ARGUMENT_KEYS


def build(config: DictConfig, group: str, **given: Any) -> Any:
    """Instantiates `config[group]`.

    Args:
        config: the whole composed configuration.
        group: `model`, `data` or `logger`.
        given: further arguments.
    """
    node = {key: value for key, value in config[group].items() if key not in NON_ARGUMENT_KEYS.get(group, ())}
    return instantiate(OmegaConf.create(node), **given, _convert_="all", _recursive_=False)


def check_targets(config: DictConfig) -> None:
    """Binds every `_target_`'s signature with its node, before anything is built.

    Raises:
        InputError: a target that cannot be imported, an argument it does not take, or one that it lacks.
    """
    problems = [problem for path, node in check.iter_targets(config) for problem in _binding(path, node)]
    if problems:
        raise InputError("; ".join(problems))


def _binding(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    name = str(node["_target_"])
    try:
        target = get_object(name)
    except Exception as error:
        missing = error.__cause__ or error
        yield f"{path}._target_={name}: cannot be imported ({missing})"
        return
    found = inspect.signature(target).parameters.values()
    takes = {
        each.name: signatures.Parameter(required=each.default is each.empty)
        for each in found
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }
    signature = signatures.Signature(takes, open=any(each.kind is each.VAR_KEYWORD for each in found))
    yield from signatures.check_arguments(
        path, name, signature, check.argument_names(path, node), CALLER_ARGUMENTS.get(path, ())
    )
