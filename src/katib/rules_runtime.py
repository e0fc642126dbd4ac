"""Rules for Experiments that the cluster accepts and that cannot work with any algorithm."""

import re
from collections.abc import Iterator

from katib import metric_filter
from katib.experiment import (
    META,
    OBJECTIVE,
    SOURCE,
    TEMPLATE,
    TRIAL,
    Experiment,
    Parameter,
    iter_strings,
    parse_number,
    resolve_meta,
)
from katib.findings import Problem, Rule
from katib.rules_webhook import filter_problems
from katib.schema import EXPERIMENT, job_problems, type_problems, unknown_fields

NAME_FIX = "use letters, digits, _ and -"


def _types(experiment: Experiment) -> Iterator[Problem]:
    yield from type_problems(experiment.value, EXPERIMENT)
    yield from job_problems(experiment.get("metadata"), ("metadata",), "V1ObjectMeta")


def _repeated_keys(experiment: Experiment) -> Iterator[Problem]:
    for path in experiment.document.repeated:
        yield path, "the key occurs twice, and the first value is lost", "remove one of them"


def _unused_parameters(experiment: Experiment) -> Iterator[Problem]:
    references = {reference for _, reference, _ in experiment.trial_parameters}
    for parameter in experiment.parameters:
        if parameter.name not in references:
            message = f"no trial parameter refers to {parameter.name}, so Katib never creates a trial"
            yield (*parameter.path, "name"), message, "add a trial parameter that refers to it, or remove it"


def _feasible_space(experiment: Experiment) -> Iterator[Problem]:
    names: set[str] = set()
    for parameter in experiment.parameters:
        path = parameter.space_path
        if not parameter.name:
            yield parameter.path, "the parameter has no name", "add a name"
        elif parameter.name in names:
            message = f"the parameter {parameter.name} occurs twice"
            yield (*parameter.path, "name"), message, "give every parameter its own name"
        names.add(parameter.name)
        if parameter.type in ("double", "int"):
            yield from _range_problems(parameter)
        elif parameter.type in ("categorical", "discrete"):
            if not parameter.choices and experiment.mapping(*path):
                yield (*path, "list"), "the list is empty", "list the values"
            for index, choice in enumerate(parameter.choices):
                if parameter.type == "discrete" and parse_number(choice) is None:
                    message = f"a discrete value must be a number, got {choice!r}"
                    yield (*path, "list", index), message, "use parameterType: categorical"
                if '"' in choice or "\\" in choice or re.search(r"[\x00-\x1f]", choice):
                    message = f"Katib inserts {choice!r} into the template's JSON unescaped, which makes it invalid"
                    yield (*path, "list", index), message, "use values without quotation marks and backslashes"
            if len(set(parameter.choices)) < len(parameter.choices):
                yield (*path, "list"), "a value occurs twice", "list every value once"


def _range_problems(parameter: Parameter) -> Iterator[Problem]:
    path = parameter.space_path
    numbers: dict[str, float | None] = {}
    for key, text in (("min", parameter.low), ("max", parameter.high), ("step", parameter.step)):
        if not text:
            continue
        numbers[key] = value = parse_number(text)
        if value is None:
            yield (*path, key), f"{key} must be a finite number, got {text!r}", "use a number"
        elif parameter.type == "int" and value != int(value):
            message = f"{key} of an int must be an integer, got {value:g}"
            yield (*path, key), message, "use an integer, or parameterType: double"
        elif key == "step" and value <= 0:
            yield (*path, key), f"step must be above 0, got {value:g}", "use the distance between two values"
    low, high = numbers.get("min"), numbers.get("max")
    if low is not None and high is not None:
        if low > high:
            yield (*path, "min"), f"min {parameter.low} is above max {parameter.high}", "swap min and max"
        if parameter.distribution in ("logUniform", "logNormal") and low <= 0:
            message = f"{parameter.distribution} needs values above 0, and min is {parameter.low}"
            yield (*path, "min"), message, "use a min above 0, or distribution: uniform"


def _primary_container(experiment: Experiment) -> Iterator[Problem]:
    primary = experiment.primary_name
    if not primary or not experiment.mapping(*TEMPLATE):
        return
    names = sorted({str(container.get("name")) for _, container in experiment.containers()})
    if names and primary not in names:
        message = f"the template has no container {primary}, so Katib would wait for it forever"
        yield (*TRIAL, "primaryContainerName"), message, f"use {' or '.join(names)}"


def _metrics(experiment: Experiment) -> Iterator[Problem]:
    text = experiment.metrics_format == "TEXT" and experiment.collector in ("StdOut", "File")
    for index, metric in enumerate(experiment.metrics):
        path = metric_path(index)
        if ";" in metric:
            yield path, "a metric name must not contain a semicolon, which separates names for the collector", NAME_FIX
        elif metric and text and not any(_can_match(expression, metric) for expression in experiment.filters):
            fix = "extend the filter" if experiment.get(*SOURCE, "filter") else NAME_FIX
            yield path, f"the collector's regular expression cannot match the name {metric}", fix
    names = set(experiment.metrics)
    for index, row in enumerate(experiment.items(*OBJECTIVE, "metricStrategies")):
        path = (*OBJECTIVE, "metricStrategies", index)
        if isinstance(row, dict) and row.get("name") not in names:
            message = f"the objective has no metric {row.get('name')}"
            yield (*path, "name"), message, f"use {', '.join(sorted(names))}"
        if isinstance(row, dict) and row.get("value") not in ("min", "max", "latest"):
            yield (*path, "value"), f"{row.get('value')!r} is not a strategy", "use min, max or latest"


def metric_path(index: int) -> tuple[str | int, ...]:
    """Return the path of a metric in `Experiment.metrics`."""
    if index == 0:
        return (*OBJECTIVE, "objectiveMetricName")
    return (*OBJECTIVE, "additionalMetricNames", index - 1)


def _can_match(expression: str, metric: str) -> bool:
    try:
        return metric_filter.can_match_name(expression, metric)
    except ValueError:
        return True  # reported by K117 and K209


def _stdout_filter(experiment: Experiment) -> Iterator[Problem]:
    if experiment.collector == "StdOut":
        yield from filter_problems(experiment)
    for index, expression in enumerate(experiment.items(*SOURCE, "filter", "metricsFormat")):
        if ";" in str(expression):
            path = (*SOURCE, "filter", "metricsFormat", index)
            message = "a filter must not contain a semicolon, which separates filters for the collector"
            yield path, message, r"write it as \x3b"


def _meta_references(experiment: Experiment) -> Iterator[Problem]:
    template = experiment.mapping(*TEMPLATE)
    for _, reference, path in experiment.trial_parameters:
        if META.search(reference) and template and resolve_meta(template, reference, "t", "n") is None:
            message = f"the template has no value for {reference}"
            yield (*path, "reference"), message, "use ${trialSpec.Name}, or a label or annotation of the template"
    for path, text in iter_strings(template, TEMPLATE):
        if "${trialSpec." in text:
            message = "Katib replaces only ${trialParameters.…} in the template"
            yield path, message, "add a trial parameter with this reference, and use its placeholder"


RULES = (
    Rule("K118", "error", "values have the types that Go decodes", _types),
    Rule("K201", "error", "no key occurs twice", _repeated_keys),
    Rule("K202", "error", "Katib has all fields", lambda row: unknown_fields(row.value, EXPERIMENT)),
    Rule("K203", "error", "every parameter is referenced by a trial parameter", _unused_parameters),
    Rule("K204", "error", "feasible spaces contain valid values", _feasible_space),
    Rule("K205", "error", "the template has the primary container", _primary_container),
    Rule("K207", "error", "the collector can match every metric's name", _metrics),
    Rule("K208", "error", "references to the trial itself can be resolved", _meta_references),
    Rule("K209", "error", "filters of the StdOut collector are valid", _stdout_filter),
)
