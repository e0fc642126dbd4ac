"""Arguments of a pipeline run, checked before anything starts: train.py's overrides and `-p NAME=VALUE`."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from config import tasks
from config.errors import InputError
from pipelines.commands import experiment_path
from pipelines.compilation import spec_parameters
from pipelines.verdict import POLICIES

CHOICES = {
    "quality": POLICIES, "drift": POLICIES, "explain": POLICIES, "benchmark": POLICIES,
    "tune_backend": ("katib", "local"), "when": ("always", "changed"),
}  # fmt: skip
# Types by KFP's names: Python's, and the words for a message.
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "STRING": (str, "text"),
    "NUMBER_INTEGER": (int, "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": (bool, "true or false"),
    "LIST": (list, "a list, as [a,b]"),
    "STRUCT": (dict, "a mapping"),
}
_ALIASES = {"again": "refresh"}  # former names; files compiled with them keep them


def bind_parameters(spec: Mapping[str, Any], overrides: Sequence[str], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the values of the pipeline's parameters for a run.

    Args:
        spec: Specification of the pipeline.
        overrides: Overrides of train.py. `model=` and `data=` are parameters of the pipeline, the rest is one list.
        assignments: NAME=VALUE of other parameters.

    Raises:
        InputError: A parameter is unknown, a value has another type, or the configuration is invalid.
    """
    parameters = spec_parameters(spec)
    if missing := [name for name in ("model", "data", "overrides", *CHOICES, "tune") if name not in parameters]:
        raise InputError(f"this is not the pipeline of isotrain: it has no parameter {missing[0]}")
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name if name in parameters else _ALIASES.get(name, name)
        if not equals or name not in parameters:
            raise InputError(f"-p {assignment}: must be NAME=VALUE with a name of {', '.join(parameters)}")
        values[name] = _parse_value(assignment, text, str(parameters[name]["parameterType"]))
    rest = []
    for override in overrides:
        name, _, text = override.partition("=")
        if name in ("model", "data"):
            values[name] = text
        elif name in ("quality", "explain"):
            raise InputError(f"{override}: use the parameter -p {name}={text}")
        elif name == "hydra.run.dir":
            raise InputError(f"{override}: the train step sets its own folder")
        else:
            rest.append(override)
    if rest:
        values["overrides"] = rest
    _check_values({name: values.get(name, item.get("defaultValue")) for name, item in parameters.items()})
    return values


def _check_values(values: Mapping[str, Any]) -> None:
    """Check the configuration of the train step, what the steps need of the task, and the choices."""
    from config.check import check_config
    from config.compose import compose

    config = compose([f"model={values['model']}", f"data={values['data']}", *values["overrides"]])
    check_config(config)
    task = str(config.task.name)
    tasks.load_member(task, "LIBRARY", "the pipeline")
    for name, member in (("quality", "facts"), ("explain", "explainer")):
        if values[name] != "off":
            tasks.load_member(task, member, f"the pipeline with {name}={values[name]}")
    for name, choices in CHOICES.items():
        if values[name] not in choices:
            raise InputError(f"-p {name}={values[name]}: must be one of {', '.join(choices)}")
    if values["tune"] and not experiment_path(values["tune"]).exists():
        raise InputError(f"-p tune={values['tune']}: there is no such file; those of the image are in katib/")
    for name, value in values.items():
        if "{{$" in str(value):
            raise InputError(f"{name}: a value cannot contain {{{{$, which KFP would try to replace")


def _parse_value(assignment: str, text: str, kind: str) -> Any:
    value: Any = text if kind == "STRING" else yaml.safe_load(text)
    types, description = _TYPES[kind]
    valid = isinstance(value, types) and not (isinstance(value, bool) and kind != "BOOLEAN")
    if not valid:
        raise InputError(f"-p {assignment}: must be {description}")
    if kind == "LIST":
        return [str(item) for item in value]
    return float(value) if kind == "NUMBER_DOUBLE" else value  # KFP rejects a whole number for it
