"""`python -m katib check`: every rule that needs no cluster."""

import importlib.util
from collections.abc import Sequence

from config.errors import InputError
from katib import (
    composition,
    optimization_check,
    rules_advice,
    rules_algorithm,
    rules_command,
    rules_jobs,
    rules_pod,
    rules_runtime,
    rules_steps,
    rules_webhook,
)
from katib.documents import YamlPath, read
from katib.experiment import SPEC, TRIAL, Experiment
from katib.findings import Finding, build_finding
from katib.optimization_job import is_optimization_job

RULES = (
    *rules_webhook.RULES,
    *rules_runtime.RULES,
    *rules_jobs.RULES,
    *rules_pod.RULES,
    *rules_command.RULES,
    *rules_algorithm.RULES,
    *rules_advice.RULES,
    *rules_steps.RULES,
)
# Of one Experiment: each point of the search space is composed, in about 10 ms.
MAX_PARAMETERS, MAX_CHOICES = 200, 1_000
TYPE_RULES = ("K114", "K118", "K218")  # other rules may fail on values of the wrong type
TITLES = {
    "K001": "the file is valid YAML",
    "K002": "the document is an Experiment",
    "K003": "every rule was applied",
    "K005": "the search space is of a size that can be checked",
    **{rule.code: rule.title for rule in RULES},
    **composition.TITLES,
    **{rule.code: rule.title for rule in optimization_check.ALL_RULES},
}


def check(files: Sequence[str]) -> tuple[list[list[Finding]], list[Finding]]:
    """Read files and apply every rule, to Experiments and OptimizationJobs.

    Args:
        files: YAML files of one or more documents each; `-` is standard input.

    Returns:
        The findings of each search, and all findings in the order of files and lines.
    """
    checked: list[list[Finding]] = []
    findings: list[Finding] = []
    for file in files:
        try:
            documents = read(file)
        except InputError as error:
            message = str(error).removeprefix(file).lstrip(":")
            line, _, rest = message.partition(": ")
            line_number, message = (int(line), rest) if line.isdigit() else (1, message.strip())
            findings.append(Finding("K001", "error", file, line_number, "", message))
            continue
        if not documents:
            findings.append(Finding("K001", "error", file, 1, "", "the file is empty"))
        for document in documents:
            experiment = Experiment(document)
            kind, version = experiment.get("kind"), str(experiment.get("apiVersion"))
            is_experiment = kind == "Experiment" and version.startswith("kubeflow.org/")
            if not is_experiment and not is_optimization_job(document.value):
                message = f"skipped: {kind or 'the document'} is not an Experiment of kubeflow.org"
                findings.append(build_finding(experiment, "K002", "note", ("kind",), message))
                continue
            checked.append(check_search(experiment))
            findings += checked[-1]
    if checked and importlib.util.find_spec("kubernetes") is None:
        message = "fields of Jobs and containers were not checked: the package kubernetes is not installed"
        fix = "pip install -e '.[katib]' in isotrain's checkout"
        findings.append(Finding("K003", "note", files[0], 1, "", message, fix))
    composition.save_cache()
    return checked, findings


def check_search(search: Experiment) -> list[Finding]:
    """Return the findings of one Experiment or OptimizationJob, by line."""
    is_job = is_optimization_job(search.value)
    return optimization_check.check_job(search) if is_job else check_experiment(search)


def check_experiment(experiment: Experiment) -> list[Finding]:
    """Return the findings of one Experiment, by line."""
    if problem := _size_problem(experiment):
        return [build_finding(experiment, "K005", "error", *problem)]
    findings: list[Finding] = []
    for rule in sorted(RULES, key=lambda rule: rule.code not in TYPE_RULES):
        try:
            findings += rule.apply(experiment)
        except (TypeError, AttributeError, ValueError, KeyError, OverflowError):
            # The value has another type than the rule expects, which a type rule has reported; else the rule has a bug.
            if not any(finding.code in TYPE_RULES for finding in findings):
                raise
    version = experiment.get("apiVersion")
    if version != "kubeflow.org/v1beta1":
        message = f"Katib 0.19 does not have the version {version}"
        fix = "use kubeflow.org/v1beta1"
        findings.append(build_finding(experiment, "K002", "error", ("apiVersion",), message, fix))
    findings += (build_finding(experiment, *problem) for problem in composition.command_problems(experiment))
    return sorted(findings, key=lambda finding: (finding.line, finding.code))


def _size_problem(experiment: Experiment) -> tuple[YamlPath, str, str] | None:
    """Path, message and fix of a search space that is too large for the rules; None if it is not."""
    for path in ((SPEC, "parameters"), (*TRIAL, "trialParameters")):
        if (count := len(experiment.items(*path))) > MAX_PARAMETERS:
            return path, f"it has {count:,} parameters; at most {MAX_PARAMETERS} are supported", "remove parameters"
    parameters = experiment.parameters
    if (count := sum(len(parameter.choices) for parameter in parameters)) > MAX_CHOICES:
        longest = max(parameters, key=lambda parameter: len(parameter.choices))
        message = f"the lists of the search space have {count:,} values; at most {MAX_CHOICES:,} are supported"
        return longest.space_path, message, "shorten the list, or search a range"
    return None
