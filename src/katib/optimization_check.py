"""Rules of `check` for OptimizationJobs: those of the CRD, what a trial needs, and the composition of its command."""

import dataclasses
import re
from collections.abc import Iterator, Mapping

from katib import composition, optimization_schema, rules_advice, rules_command, rules_jobs
from katib import optimization_job as api
from katib.documents import YamlPath
from katib.experiment import SPEC, Experiment, iter_strings, parse_number
from katib.experiment_from_job import build_experiment, job_path, parameter_keys, placeholder_names
from katib.findings import Finding, Problem, Rule, build_finding

# Rules of Experiments that hold for the TrainJobs of an OptimizationJob and for the values in their commands.
_CODES = ("K004", "K206", "K218", "K224", "K225", "K226", "K228", "K314", "K315")
_SHARED_RULES = [row for row in (*rules_jobs.RULES, *rules_command.RULES, *rules_advice.RULES) if row.code in _CODES]
DIRECT = "Custom"  # a collector that does not wrap commands, and reads no output
_FIXES = {
    "K404": f"end hydra.run.dir with $({api.TRIAL_VARIABLE}), a variable of trainer.env: {{name: {api.TRIAL_VARIABLE}, "
    f'valueFrom: {{fieldRef: {{fieldPath: "{api.TRIAL_FIELD}"}}}}}}'
}
NO_CONTROLLER = "no release of Kubeflow Trainer has a controller for OptimizationJobs (2.3): a cluster with their CRD stores them, and starts no trial"
NO_CONTROLLER_FIX = "`python -m katib run` runs it on this machine, `python -m katib convert` makes an Experiment of it"


def _fields(job: Experiment) -> Iterator[Problem]:
    if (version := job.get("apiVersion")) != api.API_VERSION:
        yield ("apiVersion",), f"Trainer has no version {version} of OptimizationJob", f"use {api.API_VERSION}"
    yield from optimization_schema.field_problems(job.value)
    for path in job.document.repeated:
        yield path, "the key occurs twice, and the first value is lost", "remove one of them"


def _limits(job: Experiment) -> Iterator[Problem]:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", job.name) or len(job.name) > 253:
        message = f"invalid name {job.name!r}" if job.name else "the name is missing"
        yield ("metadata", "name"), message, "use lower-case letters, digits, dashes and dots"
    yield from optimization_schema.limit_problems(job.value)


def _names(job: Experiment) -> Iterator[Problem]:
    for path, name in _parameters(job):
        if not re.fullmatch(r"[-._A-Za-z0-9]+", name, re.ASCII):
            message = f"{api.VARIABLE}{name} is not the name of a variable, so no trial can be created"
            yield (*path, "name"), message, "use letters, digits and _"


def _plain_names(job: Experiment) -> Iterator[Problem]:
    for path, name in _parameters(job):
        is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII)
        if not is_plain and re.fullmatch(r"[-._A-Za-z0-9]+", name, re.ASCII):
            message = f"{name} becomes a part of a variable's name, and later versions of the CRD may refuse it"
            yield (*path, "name"), message, "use letters, digits and _, and a letter first"


def _parameters(job: Experiment) -> Iterator[tuple[YamlPath, str]]:
    for index, parameter in enumerate(job.items(*api.PARAMETERS)):
        yield (*api.PARAMETERS, index), str(parameter["name"])


def _reach(job: Experiment) -> Iterator[Problem]:
    texts = [text for _, text in iter_strings(job.mapping(*api.TEMPLATE), ())]
    for path, name in _parameters(job):
        variable = rf"{api.VARIABLE}{re.escape(name)}(?![A-Za-z0-9_])"
        if not any(re.search(variable, text) for text in texts) and _experiment(job).calls_train:
            message = f"no trial uses {name}: the command does not mention {api.VARIABLE}{name}"
            yield (*path, "name"), message, f"add KEY=$({api.VARIABLE}{name}) to the command, or remove the parameter"


def _integers(job: Experiment) -> Iterator[Problem]:
    for path, _ in _parameters(job):
        for kind in ("uniform", "logUniform"):
            bounds = job.mapping(*path, "searchSpace", kind)
            for key in ("min", "max") if bounds.get("type") == "Int" else ():
                number = parse_number(bounds[key])
                if number is not None and number != int(number):
                    message = f"{key} of an Int must be an integer, got {bounds[key]}"
                    yield (*path, "searchSpace", kind, key), message, "use an integer, or type: Float"


def _empty_choices(job: Experiment) -> Iterator[Problem]:
    for path, _ in _parameters(job):
        if "" in job.items(*path, "searchSpace", "categorical", "choices"):
            message = "an empty value can be searched, but not stored as the result"
            yield (*path, "searchSpace", "categorical", "choices"), message, "use a word that the program translates"


def _grid_size(job: Experiment) -> Iterator[Problem]:
    experiment = _experiment(job)
    count, points = job.get(SPEC, "numTrials", default=1), experiment.count("maxTrialCount")
    if points is not None and count > points:
        yield (SPEC, "numTrials"), f"the grid has {points} points, and numTrials is {count}", f"use {points}"


def _status(job: Experiment) -> Iterator[Problem]:
    experiment = _experiment(job)
    if not experiment.calls_train:
        message = (
            f"metrics are read from the status of a TrainJob only: the program must report {experiment.objective} there, "
            "and the last value counts"
        )
        yield api.TRAINER, message, "post to KUBEFLOW_TRAINER_SERVER_URL; isotrain's train.py does"


def _controller(job: Experiment) -> Iterator[Problem]:
    yield ("kind",), NO_CONTROLLER, NO_CONTROLLER_FIX


SCHEMA_RULES = (
    Rule("K501", "error", "the CRD of OptimizationJobs has the fields, with these types", _fields),
    Rule("K502", "error", "required fields are there, and values are within the CRD's limits", _limits),
)
CONTROLLER_RULE = Rule("K511", "note", "Kubeflow Trainer runs OptimizationJobs", _controller)
RULES = (
    Rule("K503", "error", "the CRD's rules hold", lambda row: optimization_schema.rule_problems(row.value)),
    Rule("K504", "error", "names of parameters can be parts of a variable's name", _names),
    Rule("K505", "error", "every parameter reaches the trial", _reach),
    Rule("K506", "error", "bounds of an Int are integers", _integers),
    Rule("K507", "warning", "names of parameters are identifiers", _plain_names),
    Rule("K508", "warning", "every value can be a result", _empty_choices),
    Rule("K509", "warning", "the grid has as many points as trials", _grid_size),
    Rule("K510", "warning", "the program reports to the status of its TrainJob", _status),
)

ALL_RULES = (*SCHEMA_RULES, *RULES, CONTROLLER_RULE)


def check_job(job: Experiment) -> list[Finding]:
    """Return the findings of one OptimizationJob, by line.

    Args:
        job: the document, read as an Experiment is.
    """
    findings = [*CONTROLLER_RULE.apply(job)]
    findings += (finding for rule in SCHEMA_RULES for finding in rule.apply(job))
    if len(findings) == 1:
        findings += RULES[0].apply(job)
    if len(findings) == 1:
        findings += (finding for rule in RULES[1:] for finding in rule.apply(job))
        findings += _trial_findings(job)
    return sorted(findings, key=lambda finding: (finding.line, finding.code))


def _trial_findings(job: Experiment) -> Iterator[Finding]:
    """Return what the rules of Experiments find in the TrainJob and its command, in terms of the OptimizationJob."""
    experiment = _experiment(job)
    texts = placeholder_texts(job)
    rows = [(rule.code, rule.level, *problem) for rule in _SHARED_RULES for problem in rule.problems(experiment)]
    for code, level, path, message, fix in (*rows, *composition.command_problems(experiment)):
        if code == "K407":  # a push beside the status is no error
            continue
        finding = build_finding(job, code, level, job_path(path), message, _FIXES.get(code, fix))
        for placeholder, text in texts.items():
            finding = dataclasses.replace(
                finding, message=finding.message.replace(placeholder, text), fix=finding.fix.replace(placeholder, text)
            )
        yield finding


def placeholder_texts(job: Experiment) -> Mapping[str, str]:
    """Return the reference to a variable for the placeholder of each parameter."""
    keys = parameter_keys(job)
    names = placeholder_names(keys.values())
    return {f"${{trialParameters.{names[key]}}}": f"$({api.VARIABLE}{name})" for name, key in keys.items()}


def _experiment(job: Experiment) -> Experiment:
    return build_experiment(job, DIRECT)[0]
