"""An Experiment with what a command line changes of it: `python -m katib submit FILE OVERRIDE ... --name NAME`."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from config.errors import InputError
from katib import trial_processes
from katib.documents import Document
from katib.experiment import Experiment


def changed(
    experiment: Experiment,
    overrides: Sequence[str] = (),
    name: str | None = None,
    max_trials: int | None = None,
    image: str | None = None,
) -> Experiment:
    """The same search under another name, of other trials, or with another image.

    An override of what a parameter sets fixes it, as it does in `python -m katib run`.

    Args:
        experiment: of a file.
        overrides: added to the trials' train.py command line.
        name: instead of the file's.
        max_trials: instead of maxTrialCount; no more of them then run or fail at a time.
        image: of the primary container.

    Raises:
        InputError: nothing is left to search, a command that is not train.py's, or no container to change.
    """
    value: dict[str, Any] = copy.deepcopy(experiment.value)
    given = {key.lstrip("+"): text for key, _, text in (each.partition("=") for each in overrides)}
    fixed = {name: given[key] for key, name in trial_processes.keys(experiment).items() if key in given}
    if fixed:
        value = _without(value, fixed, experiment)
        experiment = Experiment(Document(experiment.document.file, value, experiment.document.lines))
    if name:
        value.setdefault("metadata", {})["name"] = name
    if max_trials is not None:
        if max_trials <= 0:
            raise InputError("--max-trials must be above 0")
        value["spec"]["maxTrialCount"] = max_trials
        for count in ("parallelTrialCount", "maxFailedTrialCount"):
            if isinstance(value["spec"].get(count), int):
                value["spec"][count] = min(value["spec"][count], max_trials)
    if overrides or image:
        primary = experiment.primary
        if primary is None:
            raise InputError(f"{experiment.document.file} has no primary container to change")
        container: Any = value
        for part in primary[0]:
            container = container[part]
        if overrides:
            container["command"] = trial_processes.with_overrides(experiment.line, overrides)
            container.pop("args", None)
        if image:
            container["image"] = image
    return Experiment(Document(experiment.document.file, value, experiment.document.lines))


def _without(value: dict[str, Any], fixed: Mapping[str, str], experiment: Experiment) -> dict[str, Any]:
    """The Experiment with parameters in its space replaced by their values in its template."""
    spec, template = value["spec"], value["spec"]["trialTemplate"]
    spec["parameters"] = [each for each in spec["parameters"] if each["name"] not in fixed]
    if not spec["parameters"]:
        raise InputError(f"the overrides fix all that {experiment.document.file} searches")
    texts = {
        f"${{trialParameters.{name}}}": fixed[reference]
        for name, reference, _ in experiment.trial_parameters
        if reference in fixed
    }
    template["trialParameters"] = [each for each in template["trialParameters"] if each["reference"] not in fixed]

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(each) for key, each in part.items()}
        if isinstance(part, list):
            return [filled(each) for each in part]
        for place, text in texts.items() if isinstance(part, str) else ():
            part = part.replace(place, text)
        return part

    template["trialSpec"] = filled(template["trialSpec"])
    return value
