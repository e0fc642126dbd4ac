"""A model that is a plain `torch.nn.Module`: which keys of conf/model its constructor takes.

The module of the task names the class that trains such a network (NETWORK), which takes the other keys, such as `loss`. The
module of that class has, by its name, the attributes of the data that a constructor gets, if it has arguments of these names
(DATA_ARGUMENTS).
"""

import inspect
from collections.abc import Mapping
from typing import Any

from config.rules import CALLER_ARGUMENTS, NON_ARGUMENT_KEYS
from config.signatures import Parameter, Signature, read_constant, read_signature

CONFIG_KEY = "isotrain_network"  # in the config.json of such a model: its DATA_ARGUMENTS, by name
_TRAINER_ARGUMENTS = ("data", "optim", "network")  # of NETWORK, which are no settings


def is_network(signature: Signature) -> bool:
    """Return whether the class of a model is no LightningModule of isotrain's protocol, whose constructor takes `optim`.

    A class with `**kwargs` may be either.
    """
    return "optim" not in signature.parameters


def is_exported(config: Mapping[str, Any]) -> bool:
    """Return whether a model folder's config.json is of such a network."""
    return isinstance(config.get(CONFIG_KEY), Mapping)


def imported_signature(target: Any) -> Signature:
    """Return the signature of a class or function, without its annotations; an open one for builtins without one."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:
        return Signature({}, open=True)
    named = {
        parameter.name: Parameter(required=parameter.default is parameter.empty)
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return Signature(named, open=any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))


def trainer_name(module: str) -> str | None:
    """Return the dotted name of the class that trains networks of a task; None if there is none.

    Args:
        module: Dotted name of the task's module.
    """
    name = read_constant(module, "NETWORK")
    return None if name is None else str(name)


def data_arguments(module: str) -> tuple[str, ...]:
    """Return the names of the attributes of the data that a constructor gets if it has such arguments."""
    package, _, name = (trainer_name(module) or "").rpartition(".")
    return tuple((read_constant(package, "DATA_ARGUMENTS") or {}).get(name, ())) if package else ()


def trainer_signature(module: str) -> Signature:
    """Return the settings that the class which trains networks of a task takes, such as `loss`."""
    name = trainer_name(module)
    signature = read_signature(name) if name else None
    parameters = signature.parameters if signature else {}
    return Signature({key: value for key, value in parameters.items() if key not in _TRAINER_ARGUMENTS})


def argument_names(path: str, node: Mapping[str, Any], signature: Signature, module: str) -> set[str]:
    """Return the keys of a node that are arguments of its target.

    Args:
        path: Path of the node, such as `model`.
        node: The node.
        signature: Signature of its target.
        module: Dotted name of the task's module.
    """
    excluded = set(NON_ARGUMENT_KEYS.get(path, ()))
    if path == "model" and is_network(signature):
        excluded |= set(trainer_signature(module).parameters)
    return {str(key) for key in node if not str(key).startswith("_")} - excluded


def caller_arguments(path: str, signature: Signature, module: str) -> tuple[str, ...]:
    """Return the arguments that isotrain adds to those of a node; see `argument_names`."""
    names = tuple(CALLER_ARGUMENTS.get(path, ()))
    return (*names, *data_arguments(module)) if path == "model" and is_network(signature) else names
