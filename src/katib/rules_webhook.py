"""Rules of Katib's validating webhook, one by one (validator.go of Katib v0.19)."""

import posixpath
import re
from collections.abc import Iterator

from katib import metric_filter
from katib.experiment import (
    ANY_PLACEHOLDER,
    COLLECTOR,
    OBJECTIVE,
    PLACEHOLDER,
    SOURCE,
    SPEC,
    TEMPLATE,
    TRIAL,
    Experiment,
    default_condition,
    is_meta,
    iter_strings,
)
from katib.findings import Problem, Rule
from katib.rules_algorithm import ALLOWED_SETTINGS
from katib.schema import job_problems

# Algorithms with a service in the katib-config that Katib ships.
ALGORITHMS = (*ALLOWED_SETTINGS, "enas", "darts")
EARLY_STOPPING = ("medianstop",)
COLLECTORS = ("StdOut", "File", "TensorFlowEvent", "Push", "Custom")
POLICIES = ("Never", "LongRunning", "FromVolume")
TYPES = ("double", "int", "discrete", "categorical", "unknown")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal", "unknown")
SIMILAR_TYPES = {"integer": "int", "float": "double", "number": "double", "string": "categorical"}


def _name(experiment: Experiment) -> Iterator[Problem]:
    name = experiment.name
    # The webhook's expression is not anchored at its end, but the API server checks the whole name of the objects
    # that are named after the Experiment.
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 40:
        yield (
            ("metadata", "name"),
            f"invalid name {name!r}" if name else "the name is missing",
            "use at most 40 lower-case letters, digits and dashes; begin with a letter, do not end with a dash",
        )


def _counts(experiment: Experiment) -> Iterator[Problem]:
    maximum, failed = experiment.count("maxTrialCount"), experiment.count("maxFailedTrialCount")
    parallel = experiment.count("parallelTrialCount", 3)
    source = "" if experiment.count("parallelTrialCount") else " (the default)"
    counts = (("maxFailedTrialCount", failed, 0, ""), ("parallelTrialCount", parallel, 1, source))
    for name, count, minimum, _ in (*counts, ("maxTrialCount", maximum, 1, "")):
        if count is not None and count < minimum:
            yield (SPEC, name), f"must be {minimum} or more, got {count}", f"use {minimum} or more"
    for name, count, _, suffix in counts if maximum is not None and maximum > 0 else ():
        if count is not None and maximum is not None and count > maximum:
            message = f"{count}{suffix} is more than maxTrialCount, which is {maximum}"
            yield (SPEC, name), message, f"use at most {maximum}"


def _objective(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.mapping(*OBJECTIVE):
        yield OBJECTIVE, "the objective is missing", "add type, objectiveMetricName and additionalMetricNames"
        return
    if (kind := experiment.get(*OBJECTIVE, "type")) not in ("minimize", "maximize"):
        yield (*OBJECTIVE, "type"), f"{kind!r} is not a direction", "use minimize or maximize"
    if not experiment.objective:
        yield (*OBJECTIVE, "objectiveMetricName"), "the metric is missing", "name a metric that the trials print"
    elif experiment.objective in experiment.metrics[1:]:
        path = (*OBJECTIVE, "additionalMetricNames")
        yield path, f"the list repeats the objective {experiment.objective}", "list only the other metrics"


def _algorithm(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm not in ALGORITHMS:
        name = experiment.algorithm
        message = f"Katib has no algorithm {name!r}" if name else "the algorithm is missing"
        yield (SPEC, "algorithm", "algorithmName"), message, f"use one of {', '.join(ALGORITHMS)}"


def _early_stopping(experiment: Experiment) -> Iterator[Problem]:
    if experiment.get(SPEC, "earlyStopping") is not None and experiment.early_stopping not in EARLY_STOPPING:
        message = f"Katib has no early-stopping algorithm {experiment.early_stopping!r}"
        yield (SPEC, "earlyStopping", "algorithmName"), message, f"use {' or '.join(EARLY_STOPPING)}"


def _resume_policy(experiment: Experiment) -> Iterator[Problem]:
    if (policy := experiment.get(SPEC, "resumePolicy") or "Never") not in POLICIES:
        yield (SPEC, "resumePolicy"), f"{policy!r} is not a resume policy", f"use {' or '.join(POLICIES)}"


def _search_space(experiment: Experiment) -> Iterator[Problem]:
    parameters, nas = experiment.items(SPEC, "parameters"), experiment.get(SPEC, "nasConfig")
    if not parameters and nas is None:
        yield (SPEC, "parameters"), "the search space is missing", "list the parameters to search"
    if parameters and nas is not None:
        yield (SPEC, "nasConfig"), "parameters and nasConfig exclude each other", "remove one of them"


def _types(experiment: Experiment) -> Iterator[Problem]:
    for parameter in experiment.parameters:
        if parameter.type not in TYPES:
            fix = f"use {SIMILAR_TYPES.get(parameter.type) or 'one of ' + ', '.join(TYPES[:-1])}"
            yield (*parameter.path, "parameterType"), f"{parameter.type!r} is not a parameter type", fix
        if parameter.distribution not in DISTRIBUTIONS:
            path, fix = (*parameter.space_path, "distribution"), f"use one of {', '.join(DISTRIBUTIONS[:-1])}"
            yield path, f"{parameter.distribution!r} is not a distribution", fix


def _feasible_space(experiment: Experiment) -> Iterator[Problem]:
    for parameter in experiment.parameters:
        path, kind = parameter.space_path, parameter.type
        if not experiment.mapping(*path):
            yield path, f"the feasible space of {parameter.name} is missing", "add min and max, or a list"
        elif kind in ("double", "int"):
            if parameter.choices:
                fix = "use min and max, or parameterType: categorical"
                yield (*path, "list"), f"{kind} does not take a list", fix
            if not parameter.low or not parameter.high:
                yield path, f"{kind} needs min and max", 'add both as quoted strings, e.g. min: "0.1"'
        elif kind in ("categorical", "discrete") and (parameter.low or parameter.high or parameter.step):
            yield path, f"{kind} does not take min, max and step", "use a list of quoted strings"


def _template(experiment: Experiment) -> Iterator[Problem]:
    template = experiment.mapping(*TRIAL)
    if not template:
        yield TRIAL, "the trial template is missing", "add trialSpec, trialParameters and primaryContainerName"
        return
    if not template.get("primaryContainerName"):
        yield (*TRIAL, "primaryContainerName"), "the name is missing", "name the container that trains"
    for key in ("successCondition", "failureCondition"):
        if not template.get(key) and not default_condition(experiment.kind, key):
            message = f"the condition is missing, and {experiment.kind or 'this kind'} has no default"
            yield (*TRIAL, key), message, "add successCondition and failureCondition"
    if not isinstance(template.get("trialParameters"), list):
        yield (*TRIAL, "trialParameters"), "the list is missing", "list name and reference of each parameter"
    spec, config = template.get("trialSpec"), template.get("configMap")
    if spec is None and config is None:
        yield (*TRIAL, "trialSpec"), "trialSpec and configMap are both missing", "add the trial's workload as trialSpec"
    if spec is not None and config is not None:
        yield (*TRIAL, "configMap"), "trialSpec and configMap exclude each other", "remove one of them"
    if isinstance(config, dict) and spec is None:
        for key in ("configMapName", "configMapNamespace", "templatePath"):
            if not config.get(key):
                fix = "add configMapName, configMapNamespace and templatePath"
                yield (*TRIAL, "configMap", key), f"{key} is missing", fix


def _references(experiment: Experiment) -> Iterator[Problem]:
    names: set[str] = set()
    references: set[str] = set()
    parameter_names = [parameter.name for parameter in experiment.parameters]
    for name, reference, path in experiment.trial_parameters:
        if not name or not reference or "{" in name or "}" in name:
            yield path, "a trial parameter needs a reference, and a name without braces", "add name and reference"
            continue
        if name in names:
            yield (*path, "name"), f"the name {name} occurs twice", "give every trial parameter its own name"
        if reference in references:
            message = f"two trial parameters refer to {reference}"
            yield (*path, "reference"), message, "remove one, and use the other's placeholder twice"
        names.add(name)
        references.add(reference)
        if parameter_names and not is_meta(reference) and reference not in parameter_names:
            fix = f"use one of {', '.join(parameter_names)}, or ${{trialSpec.Name}}"
            yield (*path, "reference"), f"the search space has no parameter {reference}", fix


def _placeholders(experiment: Experiment) -> Iterator[Problem]:
    spec = experiment.get(*TEMPLATE)
    if not isinstance(spec, dict):
        return
    strings = list(iter_strings(spec, TEMPLATE))
    text = "\n".join(value for _, value in strings)
    names = {name for name, _, _ in experiment.trial_parameters}
    for name, _, path in experiment.trial_parameters:
        if name and PLACEHOLDER.format(name=name) not in text:
            fix = f"write {PLACEHOLDER.format(name=name)} in the command, or remove the trial parameter"
            yield (*path, "name"), f"the template does not use {name}", fix
    for path, value in strings:
        for placeholder in ANY_PLACEHOLDER.findall(value):
            if (name := placeholder[len("${trialParameters.") : -1]) not in names:
                yield path, f"no trial parameter belongs to {placeholder}", f"add {name} to trialParameters"


def _workload(experiment: Experiment) -> Iterator[Problem]:
    spec = experiment.get(*TEMPLATE)
    if spec is None:
        return
    if not isinstance(spec, dict):
        yield TEMPLATE, "the workload must be a mapping", "write a Job or another workload"
        return
    for key in ("name", "namespace"):
        if experiment.get(*TEMPLATE, "metadata", key):
            yield (*TEMPLATE, "metadata", key), f"Katib sets the {key} itself", "remove it"
    for key in ("apiVersion", "kind"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            yield (*TEMPLATE, key), f"{key} is missing", "add apiVersion and kind, e.g. batch/v1 and Job"


def _job(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "Job" and experiment.get(*TEMPLATE, "apiVersion") == "batch/v1":
        yield from job_problems(experiment.get(*TEMPLATE), TEMPLATE, "V1Job", compared=True)


def _collector(experiment: Experiment) -> Iterator[Problem]:
    kind, path = experiment.collector, (*COLLECTOR, "collector")
    if experiment.get(*path) is not None and not experiment.get(*path, "kind"):
        yield (*path, "kind"), "the kind of the collector is missing", f"use one of {', '.join(COLLECTORS)}"
    elif kind == "PrometheusMetric":
        message = "the katib-config that Katib ships has no PrometheusMetric collector"
        yield (*path, "kind"), message, "use StdOut or File"
    elif kind not in COLLECTORS:
        yield (*path, "kind"), f"{kind!r} is not a metrics collector", f"use one of {', '.join(COLLECTORS)}"
    if kind == "Custom" and not experiment.get(*path, "customCollector"):
        yield (*path, "customCollector"), "the container is missing", "add the collector's container"


def _source(experiment: Experiment) -> Iterator[Problem]:
    kind, path = experiment.collector, (*SOURCE, "fileSystemPath")
    source, absolute = experiment.mapping(*path), posixpath.isabs(experiment.metrics_path)
    path_kind = {"File": "File", "TensorFlowEvent": "Directory"}.get(kind)
    if path_kind and ((source.get("kind") or path_kind) != path_kind or not absolute):
        message = f"the {kind} collector needs the absolute path of a {path_kind.lower()}"
        yield (*path, "path"), message, f"use kind: {path_kind} and an absolute path"
    if kind == "File":
        if experiment.metrics_format not in ("TEXT", "JSON"):
            yield (*path, "format"), f"{experiment.metrics_format!r} is not a format", "use TEXT or JSON"
        if experiment.metrics_format == "JSON" and experiment.get(*SOURCE, "filter") is not None:
            yield (*SOURCE, "filter"), "the format JSON does not take a filter", "remove the filter"
    elif kind == "TensorFlowEvent" and source.get("format"):
        yield (*path, "format"), "event files do not take a format", "remove the format"
    elif kind == "Custom" and source and not (source.get("kind") in ("File", "Directory") and absolute):
        message = "the Custom collector needs kind File or Directory, and an absolute path"
        yield path, message, "add kind and path"


def _filters(experiment: Experiment) -> Iterator[Problem]:
    if experiment.collector in ("File", "TensorFlowEvent", "Custom"):  # the webhook skips StdOut's; K209 does not
        yield from filter_problems(experiment)


def filter_problems(experiment: Experiment) -> Iterator[Problem]:
    """Return filters that do not compile, or whose first two groups cannot be a name and a value."""
    for index, value in enumerate(experiment.items(*SOURCE, "filter", "metricsFormat")):
        if problem := metric_filter.filter_problem(str(value)):
            yield (*SOURCE, "filter", "metricsFormat", index), *problem


RULES = (
    Rule("K101", "error", "the Experiment's name is valid", _name),
    Rule("K102", "error", "counts of trials are valid", _counts),
    Rule("K103", "error", "the objective is complete", _objective),
    Rule("K104", "error", "Katib has the algorithm", _algorithm),
    Rule("K105", "error", "Katib has the early stopping", _early_stopping),
    Rule("K106", "error", "the resume policy is valid", _resume_policy),
    Rule("K107", "error", "either parameters or nasConfig is set", _search_space),
    Rule("K108", "error", "types and distributions of parameters are valid", _types),
    Rule("K109", "error", "feasible spaces are complete", _feasible_space),
    Rule("K110", "error", "the trial template is complete", _template),
    Rule("K111", "error", "names and references of trial parameters are valid", _references),
    Rule("K112", "error", "placeholders and trial parameters match", _placeholders),
    Rule("K113", "error", "the workload is an object without a name", _workload),
    Rule("K114", "error", "a Job has only fields of a Job", _job),
    Rule("K115", "error", "the kind of metrics collector is valid", _collector),
    Rule("K116", "error", "the source of metrics is valid", _source),
    Rule("K117", "error", "filters of metrics are valid", _filters),
)
