"""What Katib's validating webhook refuses, rule by rule (validator.go of Katib v0.19)."""

import posixpath
import re
from collections.abc import Iterator

from katib.experiment import (
    ANY_PLACEHOLDER,
    PLACEHOLDER,
    TEMPLATE,
    Experiment,
    condition,
    is_meta,
    leaves,
)
from katib.rule import Problem, Rule
from katib.schema import job_problems

# Those with a service in the shipped katib-config.
ALGORITHMS = (
    *("random", "tpe", "multivariate-tpe", "grid", "bayesianoptimization", "cmaes", "sobol", "hyperband", "pbt"),
    *("enas", "darts"),
)
STOPPERS = ("medianstop",)
COLLECTORS = ("StdOut", "File", "TensorFlowEvent", "Push", "Custom")
POLICIES = ("Never", "LongRunning", "FromVolume")
TYPES = ("double", "int", "discrete", "categorical", "unknown")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal", "unknown")
SPEC = "spec"
OBJECTIVE = (SPEC, "objective")
TRIAL = (SPEC, "trialTemplate")
SOURCE = (SPEC, "metricsCollectorSpec", "source")


def _name(experiment: Experiment) -> Iterator[Problem]:
    name = experiment.name
    # The webhook's expression is not anchored at its end; the names of the objects that follow from it are checked by
    # the API server, which wants the whole to fit.
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 40:
        yield (
            ("metadata", "name"),
            f"{name!r} is not a name that Katib takes" if name else "there is no name",
            "use up to 40 lower-case letters, digits and dashes, beginning with a letter and not ending with a dash",
        )


def _counts(experiment: Experiment) -> Iterator[Problem]:
    maximum, failed = experiment.count("maxTrialCount"), experiment.count("maxFailedTrialCount")
    parallel = experiment.count("parallelTrialCount", 3)
    if failed is not None and failed < 0:
        yield (SPEC, "maxFailedTrialCount"), f"{failed} is below 0", "use 0 or more"
    if maximum is not None and maximum <= 0:
        yield (SPEC, "maxTrialCount"), f"{maximum} is not above 0", "use 1 or more"
    if parallel is not None and parallel <= 0:
        yield (SPEC, "parallelTrialCount"), f"{parallel} is not above 0", "use 1 or more"
    if maximum is not None and failed is not None and failed > maximum:
        yield (SPEC, "maxFailedTrialCount"), f"{failed} is more than maxTrialCount {maximum}", f"use at most {maximum}"
    if maximum is not None and parallel is not None and parallel > maximum:
        given = "" if experiment.count("parallelTrialCount") else " (the default)"
        message = f"{parallel}{given} is more than maxTrialCount {maximum}"
        yield (SPEC, "parallelTrialCount"), message, f"use at most {maximum}"


def _objective(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.mapping(*OBJECTIVE):
        yield OBJECTIVE, "there is no objective", "give type, objectiveMetricName and additionalMetricNames"
        return
    if (kind := experiment.get(*OBJECTIVE, "type")) not in ("minimize", "maximize"):
        yield (*OBJECTIVE, "type"), f"{kind!r} is no direction", "use minimize or maximize"
    if not experiment.objective:
        yield (*OBJECTIVE, "objectiveMetricName"), "there is no metric", "name the metric that the trials print"
    elif experiment.objective in experiment.metrics[1:]:
        place = (*OBJECTIVE, "additionalMetricNames")
        yield place, f"it repeats the objective {experiment.objective}", "name only the other metrics"


def _algorithm(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm not in ALGORITHMS:
        message = f"{experiment.algorithm!r} has no service" if experiment.algorithm else "there is no algorithm"
        yield (SPEC, "algorithm", "algorithmName"), message, f"use one of {', '.join(ALGORITHMS)}"


def _stopping(experiment: Experiment) -> Iterator[Problem]:
    if experiment.get(SPEC, "earlyStopping") is not None and experiment.early_stopping not in STOPPERS:
        place = (SPEC, "earlyStopping", "algorithmName")
        yield place, f"{experiment.early_stopping!r} has no service", "use medianstop"


def _policy(experiment: Experiment) -> Iterator[Problem]:
    if (policy := experiment.get(SPEC, "resumePolicy", default="Never")) not in POLICIES:
        yield (SPEC, "resumePolicy"), f"{policy!r} is no policy", f"use {' or '.join(POLICIES)}"


def _space(experiment: Experiment) -> Iterator[Problem]:
    parameters, nas = experiment.items(SPEC, "parameters"), experiment.get(SPEC, "nasConfig")
    if not parameters and nas is None:
        yield (SPEC, "parameters"), "there is no search space", "list the parameters to search"
    if parameters and nas is not None:
        yield (SPEC, "nasConfig"), "parameters and nasConfig exclude each other", "keep one of them"


def _types(experiment: Experiment) -> Iterator[Problem]:
    for each in experiment.parameters:
        if each.type not in TYPES:
            close = {"integer": "int", "float": "double", "number": "double", "string": "categorical"}.get(
                each.type, ""
            )
            mend = f"use {close}" if close else f"use one of {', '.join(TYPES[:-1])}"
            yield (*each.place, "parameterType"), f"{each.type!r} is no type of a parameter", mend
        if each.distribution not in DISTRIBUTIONS:
            place = (*each.place, "feasibleSpace", "distribution")
            yield place, f"{each.distribution!r} is no distribution", f"use one of {', '.join(DISTRIBUTIONS[:-1])}"


def _feasible(experiment: Experiment) -> Iterator[Problem]:
    for each in experiment.parameters:
        place = (*each.place, "feasibleSpace")
        if not experiment.mapping(*place):
            yield place, f"{each.name} has no feasible space", "give min and max, or a list"
        elif each.type in ("double", "int"):
            if each.choices:
                yield (
                    (*place, "list"),
                    f"a list does not go with {each.type}",
                    "give min and max, or make it categorical",
                )
            if not each.low or not each.high:
                yield place, f"{each.type} needs min and max", 'give both, as quoted texts: min: "0.1"'
        elif each.type in ("categorical", "discrete") and (each.low or each.high or each.step):
            yield place, f"min, max and step do not go with {each.type}", "give a list of quoted texts"


def _template(experiment: Experiment) -> Iterator[Problem]:
    template = experiment.mapping(*TRIAL)
    if not template:
        yield TRIAL, "there is no trial template", "give trialSpec, trialParameters and primaryContainerName"
        return
    if not template.get("primaryContainerName"):
        yield (*TRIAL, "primaryContainerName"), "it is missing", "name the container that trains"
    for key, good in (("successCondition", True), ("failureCondition", False)):
        if not template.get(key) and not condition(experiment.kind, good):
            yield (*TRIAL, key), f"it is missing, and {experiment.kind or 'this kind'} has no default", "give both"
    if not isinstance(template.get("trialParameters"), list):
        yield (*TRIAL, "trialParameters"), "there are none", "list name and reference of each parameter"
    spec, config = template.get("trialSpec"), template.get("configMap")
    if spec is None and config is None:
        yield (*TRIAL, "trialSpec"), "there is neither trialSpec nor configMap", "give the trial's workload"
    if spec is not None and config is not None:
        yield (*TRIAL, "configMap"), "trialSpec and configMap exclude each other", "keep one of them"
    if isinstance(config, dict) and spec is None:
        for key in ("configMapName", "configMapNamespace", "templatePath"):
            if not config.get(key):
                yield (*TRIAL, "configMap", key), "it is missing", "give name, namespace and path of the template"


def _references(experiment: Experiment) -> Iterator[Problem]:
    names: set[str] = set()
    references: set[str] = set()
    known = [each.name for each in experiment.parameters]
    for name, reference, place in experiment.trial_parameters:
        if not name or not reference or "{" in name or "}" in name:
            yield place, "a trial parameter needs a name, without braces, and a reference", "give both"
            continue
        if name in names:
            yield (*place, "name"), f"{name} occurs twice", "give every trial parameter a name of its own"
        if reference in references:
            yield (*place, "reference"), f"{reference} is referred to twice", "use the one placeholder twice instead"
        names.add(name)
        references.add(reference)
        if known and not is_meta(reference) and reference not in known:
            choices = f"use one of {', '.join(known)}, or ${{trialSpec.Name}} and its like"
            yield (*place, "reference"), f"there is no parameter {reference}", choices


def _placeholders(experiment: Experiment) -> Iterator[Problem]:
    spec = experiment.get(*TEMPLATE)
    if not isinstance(spec, dict):
        return
    text = "\n".join(text for _, text in leaves(spec, TEMPLATE))
    for name, _, place in experiment.trial_parameters:
        if name and PLACEHOLDER.format(name=name) not in text:
            mend = f"write {PLACEHOLDER.format(name=name)} in the command, or drop the trial parameter"
            yield (*place, "name"), f"the template does not use {name}", mend
    names = {name for name, _, _ in experiment.trial_parameters}
    for place, value in leaves(spec, TEMPLATE):
        for found in ANY_PLACEHOLDER.findall(value):
            if (name := found[len("${trialParameters.") : -1]) not in names:
                yield place, f"{found} is no trial parameter", f"add {name} to trialParameters"


def _workload(experiment: Experiment) -> Iterator[Problem]:
    spec = experiment.get(*TEMPLATE)
    if spec is None:
        return
    if not isinstance(spec, dict):
        yield TEMPLATE, "it is no object", "give a Job or another workload"
        return
    for key in ("name", "namespace"):
        if experiment.get(*TEMPLATE, "metadata", key):
            yield (*TEMPLATE, "metadata", key), "Katib gives it itself", "remove it"
    for key in ("apiVersion", "kind"):
        if not spec.get(key):
            yield (*TEMPLATE, key), "it is missing", "e.g. apiVersion: batch/v1 and kind: Job"


def _job(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "Job" and experiment.get(*TEMPLATE, "apiVersion") == "batch/v1":
        yield from job_problems(experiment.get(*TEMPLATE), TEMPLATE, "V1Job")


def _collector(experiment: Experiment) -> Iterator[Problem]:
    kind, place = experiment.collector, (SPEC, "metricsCollectorSpec", "collector", "kind")
    if kind == "PrometheusMetric":
        yield place, "the shipped katib-config has no PrometheusMetric", "use StdOut or File"
    elif kind not in COLLECTORS:
        yield place, f"{kind!r} is no collector", f"use one of {', '.join(COLLECTORS)}"
    if kind == "Custom" and not experiment.get(*place[:-1], "customCollector"):
        yield (*place[:-1], "customCollector"), "it is missing", "give the collector's container"


def _source(experiment: Experiment) -> Iterator[Problem]:
    kind, place = experiment.collector, (*SOURCE, "fileSystemPath")
    given = experiment.mapping(*place)
    if kind == "File":
        if given.get("kind", "File") != "File" or not posixpath.isabs(experiment.metrics_path):
            yield (*place, "path"), "the collector needs the absolute path of a file", "kind: File and path: /…"
        if experiment.metrics_format not in ("TEXT", "JSON"):
            yield (*place, "format"), f"{experiment.metrics_format!r} is no format", "use TEXT or JSON"
        if experiment.metrics_format == "JSON" and experiment.get(*SOURCE, "filter") is not None:
            yield (*SOURCE, "filter"), "a filter does not go with JSON", "remove it"
    elif kind == "TensorFlowEvent":
        if given.get("kind", "Directory") != "Directory" or not posixpath.isabs(experiment.metrics_path):
            yield (*place, "path"), "the collector needs the absolute path of a directory", "kind: Directory, path: /…"
        if given.get("format"):
            yield (*place, "format"), "event files have no format", "remove it"
    elif kind == "Custom" and given:
        told = given.get("kind") in ("File", "Directory") and posixpath.isabs(experiment.metrics_path)
        if not told:
            yield place, "it needs kind File or Directory, and an absolute path", "give both"


def _filters(experiment: Experiment) -> Iterator[Problem]:
    if experiment.collector not in ("File", "TensorFlowEvent", "Custom"):
        return  # the webhook does not look at StdOut's; K215 does
    yield from filter_problems(experiment)


def filter_problems(experiment: Experiment) -> Iterator[Problem]:
    """Expressions that do not compile or do not catch both a name and a value."""
    for index, text in enumerate(experiment.items(*SOURCE, "filter", "metricsFormat")):
        place = (*SOURCE, "filter", "metricsFormat", index)
        if found := re.search(r"\(\?(=|!|<=|<!|>|P=)|(?<!\\)\\[1-9]|[*+?}]\+", str(text)):
            yield place, f"Go's expressions have no {found[0]}", "write it without looking around and back"
            continue
        try:
            re.compile(re.sub(r"\\(z|p\w|p\{\w+\}|Q|E)", "x", str(text)))  # those that Go has and Python has not
        except re.error as error:
            yield place, f"no regular expression: {error}", "in YAML, quote it with single quotes"
            continue
        if not re.search(r".*\(.*\).*\(.*\).*", str(text)):
            yield place, "it needs two groups, the name and the value", r"e.g. '([\w-]+)=([+-]?\d+\.?\d*)'"


RULES = (
    Rule("K101", "error", "the name of the Experiment", _name),
    Rule("K102", "error", "counts of trials", _counts),
    Rule("K103", "error", "the objective", _objective),
    Rule("K104", "error", "the algorithm has a service", _algorithm),
    Rule("K105", "error", "the early stopping has a service", _stopping),
    Rule("K106", "error", "the resume policy", _policy),
    Rule("K107", "error", "parameters or nasConfig", _space),
    Rule("K108", "error", "types and distributions of parameters", _types),
    Rule("K109", "error", "feasible spaces", _feasible),
    Rule("K110", "error", "the trial template is complete", _template),
    Rule("K111", "error", "names and references of trial parameters", _references),
    Rule("K112", "error", "placeholders and trial parameters agree", _placeholders),
    Rule("K113", "error", "the workload is an object without a name", _workload),
    Rule("K114", "error", "a Job has only fields of a Job", _job),
    Rule("K115", "error", "the kind of metrics collector", _collector),
    Rule("K116", "error", "the source of metrics", _source),
    Rule("K117", "error", "filters of metrics", _filters),
)
