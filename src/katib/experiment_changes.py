"""Changes of an Experiment on the command line: `python -m katib submit FILE OVERRIDE ... --name NAME`."""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from config.errors import InputError
from katib.documents import Document
from katib.experiment import PLACEHOLDER, Experiment, container_words
from katib.shell_command import WRAPPED, append_overrides
from katib.shell_values import value_problems


def fixed_parameters(experiment: Experiment, overrides: Sequence[str]) -> dict[str, str]:
    """Return the parameters that overrides fix, with their values.

    An override fixes a parameter if it sets a key whose value in the trial's command is the parameter's placeholder.

    Raises:
        InputError: the shell would change a value in the parameter's place.
    """
    values = {key.lstrip("+"): value for key, equals, value in (row.partition("=") for row in overrides) if equals}
    references = {name: reference for name, reference, _ in experiment.trial_parameters}
    fixed = {}
    for word in experiment.train_overrides:
        match = re.fullmatch(r"([^=]+)=\$\{trialParameters\.([^}]+)\}", word)
        if match and match[2] in references and (key := match[1].lstrip("+")) in values:
            fixed[references[match[2]]] = values[key]
    for message, fix in value_problems(experiment, fixed):
        raise InputError(f"{experiment.document.file}: {message}; {fix}")
    return fixed


def change_experiment(
    experiment: Experiment,
    overrides: Sequence[str] = (),
    name: str | None = None,
    max_trials: int | None = None,
    image: str | None = None,
) -> Experiment:
    """Return an Experiment with another name, other trials or another image.

    Args:
        experiment: the Experiment of a file; it is not changed.
        overrides: overrides to add to the trials' command lines; one of a parameter's key fixes the parameter.
        name: in place of the file's name, also in labels.
        max_trials: in place of maxTrialCount; the other counts are reduced to it.
        image: in place of the image of all containers that train.

    Raises:
        InputError: nothing is left to search, the command does not call train.py, or there is no primary container.
    """
    document, value = experiment.document, copy.deepcopy(experiment.value)
    changed_document = Document(document.file, value, document.lines)
    if fixed := fixed_parameters(experiment, overrides):
        _fix_parameters(Experiment(changed_document), fixed)
    experiment = Experiment(changed_document)  # whose properties are computed from the changed values
    if name:
        _rename(value, name)
    if max_trials is not None:
        if max_trials <= 0:
            raise InputError(f"--max-trials must be above 0, got {max_trials}")
        value["spec"]["maxTrialCount"] = max_trials
        for count in ("parallelTrialCount", "maxFailedTrialCount"):
            if isinstance(value["spec"].get(count), int):
                value["spec"][count] = min(value["spec"][count], max_trials)
    if (overrides or image) and experiment.primary is None:
        message = f"{document.file} has no primary container"
        raise InputError(f"{message}; add it, or set primaryContainerName to its name")
    if overrides:
        add_overrides(experiment, overrides)
    if image:
        for path, _ in experiment.replicas:
            experiment.get(*path)["image"] = image
    return experiment


def add_overrides(experiment: Experiment, overrides: Sequence[str]) -> None:
    """Add overrides to the command of every container that trains, in place. No other code edits commands.

    Args:
        experiment: an Experiment, or a trial (`experiment.trial_view`).
        overrides: overrides of train.py.

    Raises:
        InputError: a command does not call train.py, or calls one that is not ours.
    """
    for index, (path, container) in enumerate(experiment.replicas):
        wrapped = index == 0 and experiment.collector in WRAPPED  # Katib wraps the primary container alone
        changed = experiment.get(*path)
        try:
            changed["command"] = append_overrides(container_words(container), overrides, wrapped)
        except InputError as error:
            raise InputError(f"{'.'.join(map(str, path))}: {error}" if index else str(error)) from error
        changed.pop("args", None)


def _rename(value: dict[str, Any], name: str) -> None:
    """Rename an Experiment, also in labels that have its name."""
    metadata = value.setdefault("metadata", {})
    labels = metadata.get("labels")
    if isinstance(labels, dict):
        metadata["labels"] = {key: name if text == metadata.get("name") else text for key, text in labels.items()}
    metadata["name"] = name


def _fix_parameters(experiment: Experiment, fixed: Mapping[str, str]) -> None:
    """Remove parameters from the search space, and replace their placeholders by values."""
    spec, template = experiment.value["spec"], experiment.value["spec"]["trialTemplate"]
    spec["parameters"] = [parameter for parameter in spec["parameters"] if parameter["name"] not in fixed]
    if not spec["parameters"]:
        raise InputError(f"the overrides fix all parameters of {experiment.document.file}; remove one of them")
    text = json.dumps(template["trialSpec"], ensure_ascii=False)
    for name, reference, _ in experiment.trial_parameters:
        if reference in fixed:
            text = text.replace(PLACEHOLDER.format(name=name), json.dumps(fixed[reference], ensure_ascii=False)[1:-1])
    template["trialSpec"] = json.loads(text)
    template["trialParameters"] = [row for row in template["trialParameters"] if row["reference"] not in fixed]
