"""The OptimizationJob that searches as a Katib Experiment does, and what it cannot express."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katib import optimization_job as api
from katib import shell_command
from katib.documents import YamlPath
from katib.experiment import (
    ANY_PLACEHOLDER,
    COLLECTOR,
    META,
    OBJECTIVE,
    PLACEHOLDER,
    SOURCE,
    SPEC,
    TEMPLATE,
    TRIAL,
    Experiment,
    Parameter,
    container_words,
    default_condition,
    iter_strings,
    parse_number,
    resolve_meta,
)
from katib.optimization_job import Difference
from katib.train_job_template import build_template

_NO_COUNTERPART = "an OptimizationJob has no {}"
_STATUS_FIX = "remove it: train.py reports to the status of its TrainJob by itself"


def build_job(
    experiment: Experiment, names: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[Difference]]:
    """Return the OptimizationJob of an Experiment, and where it differs.

    Args:
        experiment: an Experiment without errors (`katib.check`).
        names: name of each parameter; None takes `variable_names`.

    Returns:
        The object, complete if no difference is an error; the differences.
    """
    template, differences = build_template(experiment)
    differences = [*_search_differences(experiment), *differences]
    names = names or variable_names([parameter.name for parameter in experiment.parameters])
    parameters: list[dict[str, Any]] = []
    for parameter in experiment.parameters:
        choices = _choices(parameter, experiment.algorithm)
        if (problem := _space_problem(parameter, choices, names[parameter.name])) is not None:
            differences.append(problem)
            continue
        parameters.append({"name": names[parameter.name], "searchSpace": _search_space(parameter, choices)})
        if choices and not parameter.choices and len(choices) > 1:
            message = f"grid takes lists only: {len(choices)} values of {parameter.name} are written out"
            differences.append(("note", parameter.space_path, message, ""))
    references, more = _references(experiment, names)
    differences += [*more, *_replace_placeholders(experiment, template, references)]
    if renamed := [f"{name} is {new}" for name, new in names.items() if name != new]:
        message = f"names become variables of trials: {', '.join(renamed)}"
        differences.append(("note", (SPEC, "parameters"), message, ""))
    seed = experiment.settings.get("random_state")
    algorithm = (
        {"grid": {}} if experiment.algorithm == "grid" else {"random": {} if seed is None else {"seed": int(seed)}}
    )
    metadata = {
        key: row for key in ("name", "namespace", "labels", "annotations") if (row := experiment.get("metadata", key))
    }
    if "isotrain/trial" in metadata.get("labels", {}):
        metadata["labels"] = {**metadata["labels"], "isotrain/trial": "TrainJob"}
    value = {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "metadata": metadata,
        "spec": {
            "objectives": [
                {"metric": experiment.objective, "direction": "Maximize" if experiment.maximize else "Minimize"}
            ],
            "searchAlgorithm": algorithm,
            "parameters": parameters,
            "numTrials": experiment.count("maxTrialCount"),
            "parallelTrials": experiment.parallel,
            "trainJobTemplate": template,
        },
    }
    return value, differences


def variable_names(names: Sequence[str]) -> dict[str, str]:
    """Return a name for each parameter that can be a part of a variable's name: `optim.lr` is optim_lr."""
    variables: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        number = 2
        variable = plain
        while variable in variables.values():
            variable, number = f"{plain}_{number}", number + 1
        variables[name] = variable
    return variables


def _search_differences(experiment: Experiment) -> Iterator[Difference]:
    """What the search itself loses."""
    algorithm, path = experiment.algorithm, (SPEC, "algorithm", "algorithmName")
    if algorithm not in ("random", "grid"):
        message = f"an OptimizationJob searches with random or grid; {algorithm} has no counterpart"
        yield "error", path, message, "use random or grid, or keep the Experiment for Katib"
    elif algorithm == "random":
        yield "note", path, "the draws are others, also with the same seed", ""
    for key, title in (("earlyStopping", "early stopping"), ("nasConfig", "architecture search")):
        if experiment.get(SPEC, key) is not None:
            yield "error", (SPEC, key), _NO_COUNTERPART.format(title), "remove it"
    if experiment.text(SPEC, "resumePolicy", default="Never") != "Never":
        yield "error", (SPEC, "resumePolicy"), _NO_COUNTERPART.format("resume policy"), "use Never"
    if experiment.goal is not None:
        yield "error", (*OBJECTIVE, "goal"), _NO_COUNTERPART.format("goal, it runs all trials"), "remove it"
    count = experiment.count("maxTrialCount")
    if count is None or count > api.MAX_TRIALS:
        number = "no limit" if count is None else f"{count} trials"
        message = f"an OptimizationJob has at most {api.MAX_TRIALS} trials, and this Experiment has {number}"
        yield "error", (SPEC, "maxTrialCount"), message, f"use at most {api.MAX_TRIALS}"
    if experiment.count("maxFailedTrialCount") is not None:
        message = "failed trials do not end an OptimizationJob: it starts all trials"
        yield "warning", (SPEC, "maxFailedTrialCount"), message, ""
    yield from _metric_differences(experiment)
    for key in ("successCondition", "failureCondition"):
        condition = experiment.text(*TRIAL, key)
        if condition and condition != default_condition(experiment.kind, key):
            message = _NO_COUNTERPART.format("conditions: a trial ends as its TrainJob ends")
            yield "error", (*TRIAL, key), message, "remove it, or let the program exit with another code than 0"
    if experiment.get(*TRIAL, "configMap") is not None:
        yield "error", (*TRIAL, "configMap"), _NO_COUNTERPART.format("template in a ConfigMap"), "write it as trialSpec"
    if experiment.get(*TRIAL, "primaryPodLabels") is not None:
        yield "note", (*TRIAL, "primaryPodLabels"), "no collector looks for pods", ""
    if not experiment.get(*TRIAL, "retain", default=False):
        yield "note", (*TRIAL, "retain"), "TrainJobs of ended trials stay until the OptimizationJob is deleted", ""


def _metric_differences(experiment: Experiment) -> Iterator[Difference]:
    """What becomes of metrics: the controller reads the last value in the status of a trial's TrainJob."""
    objective, default = experiment.objective, "max" if experiment.maximize else "min"
    is_own = experiment.calls_train
    if len(objective) > api.MAX_TEXT:
        message = f"a metric's name has at most {api.MAX_TEXT} characters, and {objective} has {len(objective)}"
        yield "error", (*OBJECTIVE, "objectiveMetricName"), message, "rename the metric"
    strategy = experiment.explicit_strategies.get(objective, default)
    path: YamlPath = (*OBJECTIVE, "metricStrategies")
    if strategy not in (default, "latest"):
        message = _NO_COUNTERPART.format(f"strategies, so {objective} cannot count with its {strategy}")
        yield "error", path, message, f"use {default}"
    if additional := experiment.metrics[1:]:
        message = f"the status of a TrainJob has all metrics: {', '.join(additional)} need not be named, and have no strategies"
        yield "note", (*OBJECTIVE, "additionalMetricNames"), message, ""
    collector = experiment.collector
    if collector != "StdOut":
        message = f"an OptimizationJob reads metrics from the status of a TrainJob only; {collector} has no counterpart"
        keys = {"File": "metrics_file=…", "Push": "push_metrics=…"}.get(collector)
        fix = f"use the StdOut collector, and leave {keys} out of the command" if keys else "use the StdOut collector"
        yield "error", (*COLLECTOR, "collector", "kind"), message, fix
    elif experiment.items(*SOURCE, "filter", "metricsFormat") and not is_own:
        message = _NO_COUNTERPART.format("filters: it reads no output")
        yield "error", (*SOURCE, "filter"), message, _STATUS_FIX.replace("train.py", "isotrain's train.py")
    if not is_own:
        message = (
            f"an OptimizationJob reads no output: the program must report {objective} to the status of its TrainJob, "
            "where the last value counts"
        )
        yield "warning", COLLECTOR, message, "post to KUBEFLOW_TRAINER_SERVER_URL; isotrain's train.py does"


# --- the search space


def _choices(parameter: Parameter, algorithm: str) -> tuple[str, ...]:
    """Return the values of a parameter that is a list, or has to be one; empty if it is a range."""
    if parameter.choices:
        return parameter.choices
    if algorithm == "grid":
        return tuple(parameter.grid())
    numbers = parameter.numbers
    return (parameter.low,) if numbers is not None and numbers[0] == numbers[1] else ()


def _space_problem(parameter: Parameter, choices: Sequence[str], name: str) -> Difference | None:
    path = parameter.space_path
    if len(name) > api.MAX_TEXT:
        message = f"a parameter's name has at most {api.MAX_TEXT} characters"
        return "error", (*parameter.path, "name"), message, "use a shorter name"
    if len(choices) > api.MAX_CHOICES:
        message = f"{parameter.name} has {len(choices)} values, and an OptimizationJob takes at most {api.MAX_CHOICES}"
        return "error", path, message, "use fewer values, or random search"
    if longest := next((choice for choice in choices if len(choice) > api.MAX_TEXT), None):
        message = f"a value has at most {api.MAX_TEXT} characters, and {longest!r} has {len(longest)}"
        return "error", path, message, "use a name that the program translates"
    if choices:
        return None
    if parameter.distribution not in ("uniform", "logUniform"):
        message = _NO_COUNTERPART.format(f"distribution {parameter.distribution}")
        return "error", (*path, "distribution"), message, "use uniform or logUniform"
    if parameter.step and not (parameter.type == "int" and parse_number(parameter.step) == 1):
        return "error", (*path, "step"), _NO_COUNTERPART.format("steps"), "use a list of the values, or no step"
    return None


def _search_space(parameter: Parameter, choices: Sequence[str]) -> dict[str, Any]:
    if choices:
        return {"categorical": {"choices": list(choices)}}
    kind = "Int" if parameter.type == "int" else "Float"
    name = "logUniform" if parameter.distribution == "logUniform" else "uniform"
    low, high = (_number_text(text, kind) for text in (parameter.low, parameter.high))
    return {name: {"min": low, "max": high, "type": kind}}


def _number_text(text: str, kind: str) -> str:
    """Return a number as the CRD takes it: `.5`, `5.`, `+1` and `01` are written anew."""
    if api.NUMBER.fullmatch(text) and len(text) <= api.MAX_TEXT:
        return text
    number = float(text)
    return str(int(number)) if kind == "Int" else repr(number)


# --- the trial


def _references(experiment: Experiment, names: Mapping[str, str]) -> tuple[dict[str, str], list[Difference]]:
    """Return the text in place of each trial parameter's placeholder, and references that have none."""
    texts: dict[str, str] = {}
    differences: list[Difference] = []
    template = experiment.mapping(*TEMPLATE)
    for name, reference, path in experiment.trial_parameters:
        if not META.search(reference):
            texts[name] = f"$({api.VARIABLE}{names[reference]})"
        elif reference == "${trialSpec.Name}":
            texts[name] = f"$({api.TRIAL_VARIABLE})"
        elif reference == "${trialSpec.Namespace}":
            message = _NO_COUNTERPART.format("reference to the namespace")
            fix = "read it from a variable with fieldRef: metadata.namespace"
            differences.append(("error", (*path, "reference"), message, fix))
        else:
            texts[name] = resolve_meta(template, reference, "", "") or ""
    return texts, differences


def _replace_placeholders(
    experiment: Experiment, template: dict[str, Any], references: Mapping[str, str]
) -> list[Difference]:
    """Replace placeholders in the command, its arguments and variables of a TrainJob's template, in place."""
    trainer = template.get("spec", {}).get("trainer")
    if not isinstance(trainer, dict):
        return []
    wrapped = experiment.collector in shell_command.WRAPPED
    if trainer.get("command"):
        trainer["command"] = _direct_words(container_words(trainer), wrapped)
        trainer.pop("args", None)
    differences: list[Difference] = []
    for key in ("command", "args"):
        if isinstance(trainer.get(key), list):
            if any("$${trialParameters." in str(word) for word in trainer[key]):
                message = "Kubernetes would read $ in front of a parameter as its own escape"
                differences.append(("error", TEMPLATE, message, "put another character between them"))
            trainer[key] = [_replace(str(word), references) for word in trainer[key]]
    variables, more = _replace_in_variables(trainer.get("env") or [], references)
    differences += more
    trainer["env"] = [api.trial_variable(), *variables]
    for path, text in iter_strings(template, api.TEMPLATE):
        if ANY_PLACEHOLDER.search(text):
            location = ".".join(map(str, path[1:]))
            message = f"parameters reach a trial's command and nothing else, and {text} is in {location}"
            differences.append(("error", TEMPLATE, message, "write its value, or read it in the program"))
    return differences


def _replace_in_variables(
    variables: Sequence[Any], references: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[Difference]]:
    """Return the variables of a trainer with references in place of placeholders, and what cannot be expressed."""
    replaced: list[dict[str, Any]] = []
    differences: list[Difference] = []
    for variable in variables:
        name, text = str(variable.get("name")), variable.get("value")
        if name == api.TRIAL_VARIABLE:
            continue
        if not isinstance(text, str) or not ANY_PLACEHOLDER.search(text):
            replaced.append(variable)
            continue
        new = _replace(text, references)
        if new == f"$({api.TRIAL_VARIABLE})":
            replaced.append({**api.trial_variable(), "name": name})
        elif f"$({api.VARIABLE}" not in new:
            replaced.append({**variable, "value": new})
        elif new != f"$({name})":  # else it is the variable that the controller adds
            message = (
                f"the variable {name} has the value of a parameter, whose own variable the controller adds after it"
            )
            fix = f"read {new.strip('$()')} in the program, or write the parameter into the command"
            differences.append(("error", TEMPLATE, message, fix))
    return replaced, differences


def _replace(text: str, references: Mapping[str, str]) -> str:
    for name, reference in references.items():
        text = text.replace(PLACEHOLDER.format(name=name), reference)
    return text


def _direct_words(words: Sequence[str], wrapped: bool) -> list[str]:
    """Return a command that runs without Katib's wrapper as it does with it, where words are joined with spaces."""
    if not wrapped:
        return list(words)
    if shell_command.is_shell(words):
        return [*words[:2], " ".join(words[2:])]
    plain = [ANY_PLACEHOLDER.sub("x", word) for word in words]
    return list(words) if shlex.join(plain) == " ".join(plain) else ["sh", "-c", " ".join(words)]
