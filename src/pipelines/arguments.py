"""Arguments of a pipeline run, checked before anything starts: train.py's overrides and `-p NAME=VALUE`."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import tasks
from config.child_process import command_line, environment
from config.errors import InputError
from config.numbers import is_finite
from config.parsing import parse_yaml
from pipelines.commands import experiment_path
from pipelines.compilation import spec_parameters
from pipelines.parameter_secrets import refuse_secrets
from pipelines.resources import AMOUNTS
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
_MAY_BE_EMPTY = ("baseline",)  # no comparison
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+|databricks")  # of MLflow
_ALIASES = {"again": "refresh"}  # former names; files compiled with them keep them


def bind_parameters(
    spec: Mapping[str, Any], overrides: Sequence[str], assignments: Sequence[str], local: bool = False
) -> dict[str, Any]:
    """Return the values of the pipeline's parameters for a run.

    Args:
        spec: Specification of the pipeline.
        overrides: Overrides of train.py. `model=` and `data=` are parameters of the pipeline, the rest is one list.
        assignments: NAME=VALUE of other parameters.
        local: Whether the run is on this machine, whose folders can be checked.

    Raises:
        InputError: A parameter is unknown, a value has another type or is out of range, or the configuration is invalid.
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
        if not text.strip() and name not in _MAY_BE_EMPTY:
            raise InputError(f"-p {assignment}: has no value, perhaps from a variable that is not set; leave it out")
        values[name] = _parse_value(assignment, text, str(parameters[name]["parameterType"]))
    rest = []
    for override in [*values.get("overrides", []), *overrides]:
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
    refuse_secrets(values)
    defaults = {name: item.get("defaultValue") for name, item in parameters.items()}
    _check_ranges(values, local)
    _check_values({**defaults, **values}, local)
    return values


def _check_ranges(values: Mapping[str, Any], local: bool) -> None:
    """Check numbers, names and addresses, which steps would refuse hours after the start."""
    for name in ("margin", "minimum", "trials"):
        value = values.get(name, 0)
        if not (value >= 0 and is_finite(value)):
            raise InputError(f"-p {name}={value}: must be 0 or more")
    if "floor" in values:
        _parse_value(f"floor={values['floor']}", values["floor"], "NUMBER_DOUBLE")
        if not is_finite(float(values["floor"])):
            raise InputError(f"-p floor={values['floor']}: must be a finite number, in the unit of the metric")
    if values.get("trials") and not values.get("tune"):
        raise InputError(
            f"-p trials={values['trials']}: has no effect without -p tune=FILE, the Experiment that it limits"
        )
    _check_trial_resources(values, local)
    name = values.get("registered", "")
    if re.search(r"[/:]", name) or ("'" in name and '"' in name):
        raise InputError(f"-p registered={name}: MLflow takes no name with / or :, nor with both kinds of quotes")
    if not _ADDRESS.fullmatch(values.get("server", "databricks")):
        raise InputError(
            f"-p server={values['server']}: must be an address, as http://HOST:PORT or sqlite:////FOLDER/FILE"
        )
    if re.search(r"\s", values.get("image", "")):
        raise InputError(f"-p image={values['image']}: the name of an image has no blanks")
    root, baseline = values.get("root", "/"), values.get("baseline", "champion")
    if local:
        if "root" in values:
            raise InputError(f"-p root={root}: use --root {root} on this machine")
        if baseline not in ("champion", "") and not Path(baseline).is_dir():
            raise InputError(
                f"-p baseline={baseline}: must be champion, empty, or a run folder; there is no such folder"
            )
    for name, folder in (("root", root), ("baseline", baseline)):
        if not local and folder not in ("champion", "") and not folder.startswith("/"):
            raise InputError(f"-p {name}={folder}: must be an absolute path on the volume of the steps")


def _check_trial_resources(values: Mapping[str, Any], local: bool) -> None:
    """Check the resources of a search's trials, which the tune step passes to Katib."""
    for resource, (pattern, noun, example) in AMOUNTS.items():
        name = f"trial_{resource}"
        value = str(values.get(name, ""))
        if value and not values.get("tune"):
            raise InputError(f"-p {name}={value}: has no effect without -p tune=FILE, the Experiment of the trials")
        if value and values.get("tune_backend", "local" if local else "katib") == "local":
            raise InputError(
                f"-p {name}={value}: has no effect with tune_backend=local: trials are processes of the step"
            )
        if value and not re.fullmatch(pattern, value):
            raise InputError(f"-p {name}={value}: must be {noun}, such as {example}")


def _check_values(values: Mapping[str, Any], local: bool) -> None:
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
    if values["tune"] and (local or not _is_on_volume(values["tune"], str(values["root"]))):
        _check_experiment(values["tune"])
    for name, value in values.items():
        if "{{$" in str(value):
            raise InputError(f"{name}: a value cannot contain {{{{$, which KFP would try to replace")


def _is_on_volume(file: str, root: str) -> bool:
    """Whether a file is on the volume of the steps, where the first step checks it."""
    on_volume = Path(file).is_relative_to(root) and not Path(file).exists()
    if on_volume:
        print(f"isotrain: -p tune={file} is on the volume of the steps: the data step checks it", file=sys.stderr)
    return on_volume


def _check_experiment(file: str) -> None:
    path = experiment_path(file)
    if not path.is_file():
        raise InputError(
            f"-p tune={file}: there is no such file; those of the image are in katib/, and a file on the volume of the steps "
            "is named by its path there"
        )
    command = command_line("-m", "katib", "check", str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        problem = next(iter([*done.stdout.splitlines(), *done.stderr.splitlines()]), f"exit code {done.returncode}")
        raise InputError(f"-p tune={file}: {problem}; python -m katib check lists all findings")
    if secret := next((line for line in done.stdout.splitlines() if " warning K315 " in line), ""):
        raise InputError(f"-p tune={file}: {secret}; a pipeline takes secrets from Kubernetes secrets only")


def _parse_value(assignment: str, text: str, kind: str) -> Any:
    types, description = _TYPES[kind]
    value: Any = text
    if kind in ("NUMBER_INTEGER", "NUMBER_DOUBLE"):
        with contextlib.suppress(ValueError):  # in YAML, 1e-3 is text
            value = int(text) if kind == "NUMBER_INTEGER" else float(text)
    elif kind != "STRING":
        with contextlib.suppress(ValueError):
            value, *_ = parse_yaml(text)
    valid = isinstance(value, types) and not (isinstance(value, bool) and kind != "BOOLEAN")
    if not valid:
        raise InputError(f"-p {assignment}: must be {description}")
    if kind == "LIST":
        return [str(item) for item in value]
    return float(value) if kind == "NUMBER_DOUBLE" else value  # KFP rejects a whole number for it
