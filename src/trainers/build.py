"""Objects from configuration nodes, and a check beforehand that each node fits what it names."""

import difflib
import inspect
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from config.errors import Refused
from datamodules import configured

# Keys of conf/model and conf/data that others read by interpolation; no argument of what the node names.
READ_ELSEWHERE = {"model": ("task", "lr", "tokenizer", "vocab_size"), "data": configured.READ_ELSEWHERE}
# Arguments that train.py gives beside the node's own.
GIVEN = {"model": ("data", "optim"), "optim.optimizer": ("params", "lr", "weight_decay")}


def build(config: DictConfig, group: str, **given: Any) -> Any:
    """Instantiates `config[group]`.

    Args:
        config: the whole composed configuration.
        group: `model`, `data` or `logger`.
        given: further arguments.
    """
    node = {key: value for key, value in config[group].items() if key not in READ_ELSEWHERE.get(group, ())}
    return instantiate(OmegaConf.create(node), **given, _convert_="all", _recursive_=False)


def check_targets(config: DictConfig) -> None:
    """Binds every `_target_`'s signature with its node, before anything is built.

    Raises:
        Refused: a target that cannot be imported, an argument it does not take, or one that it lacks.
    """
    problems = [problem for path, node in _targets(config, "") for problem in _binding(path, node)]
    if problems:
        raise Refused("; ".join(problems))


def _targets(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield path, node
        for key in node:
            yield from _targets(node[key], f"{path}.{key}".lstrip("."))


def _binding(path: str, node: DictConfig) -> Iterator[str]:
    name = str(node["_target_"])
    try:
        target = get_object(name)
    except Exception as error:
        missing = error.__cause__ or error
        yield f"{path}._target_={name}: cannot be imported ({missing})"
        return
    parameters = dict(inspect.signature(target).parameters)
    arguments = {str(k) for k in node if not str(k).startswith("_")} - set(READ_ELSEWHERE.get(path, ()))
    given = set(GIVEN.get(path, ()))
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for argument in sorted(arguments - set(parameters)):
            close = difflib.get_close_matches(argument, parameters, n=1)
            yield f"{path}.{argument}: {name} takes no such argument" + (
                f" (did you mean {close[0]}?)" if close else ""
            )
    for parameter in parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if needed and parameter.name not in arguments | given:
            yield f"{path}: {name} needs {parameter.name}"
