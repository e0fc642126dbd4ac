"""An Experiment with what a command line changes of it: `python -m katib submit FILE OVERRIDE ... --name NAME`."""

import copy
from collections.abc import Sequence
from typing import Any

from config.errors import Refused
from katib import local
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

    Args:
        experiment: of a file.
        overrides: added to the trials' train.py command line.
        name: instead of the file's.
        max_trials: instead of maxTrialCount; no more of them then run or fail at a time.
        image: of the primary container.

    Raises:
        Refused: an override of what is searched, a command that is not train.py's, or no container to change.
    """
    value: dict[str, Any] = copy.deepcopy(experiment.value)
    searched = local.keys(experiment)
    for each in overrides:
        key = each.partition("=")[0].lstrip("+")
        if key in searched:
            raise Refused(f"{each}: {key} is searched in {experiment.document.file}; take it out of the file to fix it")
    if name:
        value.setdefault("metadata", {})["name"] = name
    if max_trials is not None:
        if max_trials <= 0:
            raise Refused("--max-trials must be above 0")
        value["spec"]["maxTrialCount"] = max_trials
        for count in ("parallelTrialCount", "maxFailedTrialCount"):
            if isinstance(value["spec"].get(count), int):
                value["spec"][count] = min(value["spec"][count], max_trials)
    if overrides or image:
        primary = experiment.primary
        if primary is None:
            raise Refused(f"{experiment.document.file} has no primary container to change")
        container: Any = value
        for part in primary[0]:
            container = container[part]
        if overrides:
            container["command"] = local.with_overrides(experiment.line, overrides)
            container.pop("args", None)
        if image:
            container["image"] = image
    return Experiment(Document(experiment.document.file, value, experiment.document.lines))
