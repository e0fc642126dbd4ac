"""The Katib Experiment that searches as an OptimizationJob does: `check` and `run` read it, and `convert` writes it."""

import copy
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from katib import optimization_job as api
from katib import shell_command
from katib.documents import Document, YamlPath
from katib.experiment import (
    PLACEHOLDER,
    SPEC,
    TEMPLATE,
    TRIAL,
    Experiment,
    container_words,
    iter_strings,
    parse_number,
    trial_parameter,
)
from katib.optimization_job import Difference

_CONTAINER = "node"
_TRIAL_NAME = "trialName"


def build_experiment(job: Experiment, collector: str = "StdOut") -> tuple[Experiment, list[Difference]]:
    """Return the Experiment of an OptimizationJob, and where it differs.

    Args:
        job: an OptimizationJob that has the fields and types of its CRD, read as an Experiment is.
        collector: kind of the metrics collector. With one that does not wrap commands, such as Custom, the command is the
            container's own.

    Returns:
        The Experiment, whose paths have the lines of the OptimizationJob; the differences.
    """
    keys = parameter_keys(job)
    parameters = [_parameter(job, index, keys) for index in range(len(job.items(*api.PARAMETERS)))]
    template, uses_name = _template(job, keys, collector in shell_command.WRAPPED)
    objective = job.mapping(SPEC, "objectives", 0)
    metric, maximize = str(objective.get("metric")), objective.get("direction") == "Maximize"
    seed = job.get(SPEC, "searchAlgorithm", "random", "seed")
    settings = [] if seed is None else [{"name": "random_state", "value": str(seed)}]
    count = trial_count(job)
    metadata = {key: row for key in ("name", "namespace", "labels", "annotations") if (row := job.get("metadata", key))}
    spec: dict[str, Any] = {
        "objective": {
            "type": "maximize" if maximize else "minimize",
            "objectiveMetricName": metric,
            "metricStrategies": [{"name": metric, "value": "max" if maximize else "min"}],
        },
        "algorithm": {
            "algorithmName": algorithm(job),
            **({"algorithmSettings": settings} if settings else {}),
        },
        "parallelTrialCount": min(job.get(SPEC, "parallelTrials", default=1), count),
        "maxTrialCount": count,
        "parameters": parameters,
        "metricsCollectorSpec": {"collector": {"kind": collector}},
        "trialTemplate": {
            "primaryContainerName": _CONTAINER,
            "retain": True,
            "trialParameters": [
                {"name": _TRIAL_NAME, "reference": "${trialSpec.Name}"},
                *({"name": name, "reference": key} for key, name in placeholder_names(keys.values()).items()),
            ],
            "trialSpec": template,
        },
    }
    if not uses_name:
        spec["trialTemplate"]["trialParameters"].pop(0)
    value = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": metadata, "spec": spec}
    document = Document(job.document.file, value, dict(_experiment_lines(job.document)))
    return Experiment(document), list(_differences(job, count))


def algorithm(job: Experiment) -> str:
    """Return Katib's name of the algorithm; random is the default."""
    return "grid" if job.get(SPEC, "searchAlgorithm", "grid") is not None else "random"


def trial_count(job: Experiment) -> int:
    """Return the number of trials: numTrials, or fewer if a grid has no more points."""
    count = int(job.get(SPEC, "numTrials", default=1))
    if algorithm(job) != "grid":
        return count
    points = 1
    for index in range(len(job.items(*api.PARAMETERS))):
        points *= max(1, len(job.items(*api.PARAMETERS, index, "searchSpace", "categorical", "choices")))
    return min(count, points)


def parameter_keys(job: Experiment) -> dict[str, str]:
    """Return the key that each parameter sets in the command of train.py: optim.lr for `optim.lr=$(…_OPT_optim_lr)`.

    A parameter that sets no key, or one that another parameter sets too, keeps its name.
    """
    names = [str(row.get("name")) for row in job.items(*api.PARAMETERS) if isinstance(row, dict)]
    keys: dict[str, str] = {}
    for word in shell_command.train_overrides(container_words(job.mapping(*api.TRAINER)), wrapped=False):
        match = re.fullmatch(rf"\+{{0,2}}([^=]+)=\$\({api.VARIABLE}([^()]*)\)", word)
        if match and match[2] in names:
            keys.setdefault(match[2], match[1])
    taken = [*keys.values()]
    unique = {name: key for name, key in keys.items() if taken.count(key) == 1 and (key == name or key not in names)}
    return {name: unique.get(name, name) for name in names}


def placeholder_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the name of each parameter's trial parameter: `optim.lr` is optimLr."""
    names: dict[str, str] = {}
    for key in keys:
        name, number = trial_parameter(key), 2
        while name in (*names.values(), _TRIAL_NAME):
            name, number = f"{trial_parameter(key)}{number}", number + 1
        names[key] = name
    return names


def job_path(path: YamlPath) -> YamlPath:
    """Return the path in an OptimizationJob of a path in its Experiment."""
    if path[: len(TEMPLATE)] == TEMPLATE:
        return (*api.TEMPLATE, *path[len(TEMPLATE) :])
    if path[:2] == api.PARAMETERS and len(path) > 2:
        return (*path[:3], "searchSpace") if path[3:4] == ("feasibleSpace",) else path
    last = {"objectiveMetricName": "metric", "type": "direction"}
    if path[:2] == (SPEC, "objective"):
        return (
            (SPEC, "objectives", 0, last[str(path[2])]) if len(path) > 2 and path[2] in last else (SPEC, "objectives")
        )
    other = {"algorithm": "searchAlgorithm", "maxTrialCount": "numTrials", "parallelTrialCount": "parallelTrials"}
    if len(path) > 1 and path[1] in other:
        return SPEC, other[str(path[1])]
    return api.TEMPLATE if path[:2] == TRIAL else path


def _experiment_lines(document: Document) -> Iterator[tuple[YamlPath, int]]:
    """Return the lines of an OptimizationJob by the paths of its Experiment, of what both have."""
    for path, line in document.lines.items():
        if path[: len(api.TEMPLATE)] == api.TEMPLATE:
            yield (*TEMPLATE, *path[len(api.TEMPLATE) :]), line
        elif path[:2] == api.PARAMETERS:
            yield (*path[:3], "feasibleSpace") if path[3:4] == ("searchSpace",) else path, line
        elif path[:1] == ("metadata",) or path in ((), (SPEC,)):
            yield path, line


def _parameter(job: Experiment, index: int, keys: Mapping[str, str]) -> dict[str, Any]:
    name = str(job.get(*api.PARAMETERS, index, "name"))
    space = job.mapping(*api.PARAMETERS, index, "searchSpace")
    row: dict[str, Any] = {"name": keys.get(name, name)}
    if isinstance(categorical := space.get("categorical"), dict):
        choices = [str(choice) for choice in categorical.get("choices") or []]
        kind = "discrete" if all(parse_number(choice) is not None for choice in choices) else "categorical"
        return {**row, "parameterType": kind, "feasibleSpace": {"list": choices}}
    kind = "logUniform" if "logUniform" in space else "uniform"
    bounds = job.mapping(*api.PARAMETERS, index, "searchSpace", kind)
    feasible: dict[str, Any] = {key: str(bounds[key]) for key in ("min", "max") if key in bounds}
    if bounds.get("type") == "Int":
        feasible = {key: _integer_text(text) for key, text in feasible.items()}
    if kind == "logUniform":
        feasible["distribution"] = kind
    return {**row, "parameterType": "int" if bounds.get("type") == "Int" else "double", "feasibleSpace": feasible}


def _integer_text(text: str) -> str:
    """Return a whole number as services read it: 1e2 is 100."""
    number = parse_number(text)
    return str(int(number)) if number is not None and number == int(number) else text


def _template(job: Experiment, keys: Mapping[str, str], wrapped: bool) -> tuple[dict[str, Any], bool]:
    """Return the TrainJob of a trial with placeholders for its parameters, and whether it uses its name.

    A parameter that the command does not refer to is a variable of the trial, as in an OptimizationJob.
    """
    template = copy.deepcopy(job.mapping(*api.TEMPLATE))
    template = {"apiVersion": api.API_VERSION, "kind": "TrainJob", **template}
    trainer = (
        template.setdefault("spec", {}).setdefault("trainer", {}) if isinstance(template.get("spec"), dict) else {}
    )
    names = placeholder_names(keys.values())
    placeholders = {f"{api.VARIABLE}{name}": PLACEHOLDER.format(name=names[key]) for name, key in keys.items()}
    variables = []
    for variable in trainer.get("env") or []:
        field = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if field == api.TRIAL_FIELD:
            placeholders[str(variable["name"])] = PLACEHOLDER.format(name=_TRIAL_NAME)
            if variable["name"] != api.TRIAL_VARIABLE:  # which Katib sets
                variables.append({"name": variable["name"], "value": PLACEHOLDER.format(name=_TRIAL_NAME)})
        else:
            variables.append(variable)
    for key in ("command", "args"):
        if isinstance(trainer.get(key), list):
            trainer[key] = [_substitute(str(word), placeholders) for word in trainer[key]]
    if wrapped and trainer.get("command"):
        trainer["command"] = _shell_words(container_words(trainer))
        trainer.pop("args", None)
    command = " ".join(container_words(trainer))
    for name in keys:
        placeholder = placeholders[f"{api.VARIABLE}{name}"]
        if placeholder not in command or f"{api.VARIABLE}{name}" in command:
            variables.append({"name": f"{api.VARIABLE}{name}", "value": placeholder})
    if variables:
        trainer["env"] = variables
    else:
        trainer.pop("env", None)
    trial_name = PLACEHOLDER.format(name=_TRIAL_NAME)
    return template, any(trial_name in text for _, text in iter_strings(template, ()))


def _substitute(text: str, placeholders: Mapping[str, str]) -> str:
    """Replace references to variables by placeholders, except those after `$$`, which Kubernetes leaves alone."""
    return api.REFERENCE.sub(lambda match: placeholders.get(match[1] or "", match[0]), text)


def _shell_words(words: Sequence[str]) -> list[str]:
    """Return a command that runs in Katib's wrapper as it does without it."""
    if shell_command.is_shell(words) and len(words) == 3:
        return list(words)
    return ["sh", "-c", shlex.join(words)]


def _differences(job: Experiment, count: int) -> Iterator[Difference]:
    if algorithm(job) == "random":
        seed = job.get(SPEC, "searchAlgorithm", "random", "seed")
        if seed is not None and not 0 <= seed < 2**32:
            message = f"Katib's random search takes seeds from 0 to {2**32 - 1}, and seed is {seed}"
            yield "error", (SPEC, "searchAlgorithm", "random", "seed"), message, "use another seed"
        yield "note", (SPEC, "searchAlgorithm"), "the draws are others, also with the same seed", ""
    if (number := job.get(SPEC, "numTrials", default=1)) > count:
        message = f"the grid has {count} points: maxTrialCount is {count}, not {number}"
        yield "note", (SPEC, "numTrials"), message, ""
    metric = job.text(SPEC, "objectives", 0, "metric")
    best = "highest" if job.get(SPEC, "objectives", 0, "direction") == "Maximize" else "lowest"
    message = f"a trial's value is the {best} {metric} that it prints, not the last one in the status of its TrainJob"
    yield "note", (SPEC, "objectives"), message, ""
