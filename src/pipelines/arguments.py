"""What a run of the pipeline is given: its parameters and train.py's overrides, refused before anything is started."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from config import tasks
from config.errors import InputError
from pipelines.commands import experiment_path
from pipelines.compilation import spec_parameters

# Said by a parameter of the pipeline, or by the step.
OWN = ("quality=", "explain=", "hydra.run.dir=")
POLICIES = ("enforce", "warn", "off")
CHOICES = {
    "quality": POLICIES, "drift": POLICIES, "explain": POLICIES, "benchmark": POLICIES,
    "tune_backend": ("katib", "local"), "when": ("always", "changed"),
}  # fmt: skip
TYPES = {
    "STRING": "text", "NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number", "BOOLEAN": "true or false",
    "LIST": "a list, as [a,b]", "STRUCT": "a mapping",
}  # fmt: skip


def bind_parameters(spec: Mapping[str, Any], overrides: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """Values of the pipeline's parameters, for a run of it.

    Args:
        spec: of the pipeline.
        overrides: train.py's: `model=` and `data=` are parameters of their own, the rest is one list.
        given: NAME=VALUE of other parameters.

    Raises:
        InputError: an unknown parameter, a value of another type, or a configuration that cannot train.
    """
    known = spec_parameters(spec)
    if missing := [name for name in ("model", "data", "overrides", *CHOICES, "tune") if name not in known]:
        raise InputError(f"this is not isotrain's pipeline: it has no parameter {missing[0]}")
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or name not in known:
            raise InputError(f"-p {each}: write NAME=VALUE, a name of {', '.join(known)}")
        found[name] = _value(each, value, str(known[name]["parameterType"]))
    rest = []
    for each in overrides:
        name, _, value = each.partition("=")
        if name in ("model", "data"):
            found[name] = value
        elif each.startswith(OWN):
            said = "the step chooses its folder" if name.startswith("hydra") else f"say -p {name}={value}"
            raise InputError(f"{each}: {said}")
        else:
            rest.append(each)
    if rest:
        found["overrides"] = rest
    _refuse(known, found)
    return found


def _refuse(known: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    """Composes what the train step will, before anything is started."""
    from config.check import check_config
    from config.compose import compose

    def of(name: str) -> Any:
        return found.get(name, known[name].get("defaultValue"))

    config = compose([f"model={of('model')}", f"data={of('data')}", *of("overrides")])
    check_config(config)
    # Told now rather than after the training.
    task = str(config.task.name)
    tasks.load_member(task, "LIBRARY", "the pipeline")
    for name, needed in (("quality", "facts"), ("explain", "explainer")):
        if of(name) != "off":
            tasks.load_member(task, needed, f"the pipeline with {name}={of(name)}")
    for name, choices in CHOICES.items():
        if of(name) not in choices:
            raise InputError(f"-p {name}={of(name)}: {', '.join(choices)}")
    if of("tune") and not experiment_path(of("tune")).exists():
        raise InputError(f"-p tune={of('tune')}: there is no such file; those of the image are in katib/")
    for name, value in found.items():
        if "{{$" in str(value):
            raise InputError(f"{name}: KFP takes {{{{$ for its own and would break on it")


def _value(each: str, value: str, kind: str) -> Any:
    found = value if kind == "STRING" else yaml.safe_load(value)
    good: Any = {
        "STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list,
        "STRUCT": dict,
    }[kind]  # fmt: skip
    if not isinstance(found, good) or (isinstance(found, bool) and kind != "BOOLEAN"):
        raise InputError(f"-p {each}: {TYPES[kind]}")
    if kind == "LIST":
        return [str(item) for item in found]
    return float(found) if kind == "NUMBER_DOUBLE" else found  # KFP takes no whole number for it
