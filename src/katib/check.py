"""All that can be told of Experiments without a cluster."""

import importlib.util
from collections.abc import Sequence

from config.errors import InputError
from katib import composition, rules_advice, rules_algorithm, rules_runtime, rules_webhook
from katib.documents import Document, read
from katib.experiment import Experiment
from katib.findings import Finding

RULES = (*rules_webhook.RULES, *rules_runtime.RULES, *rules_algorithm.RULES, *rules_advice.RULES)
SHAPES = ("K114", "K118", "K218")  # those about types: what they refuse, others cannot look at
TITLES = {
    "K001": "the file is YAML",
    "K002": "the document is an Experiment",
    "K003": "the check is complete",
    **{rule.code: rule.title for rule in RULES},
    **composition.TITLES,
}


def check(files: Sequence[str]) -> tuple[list[Experiment], list[Finding]]:
    """Reads files and applies every rule.

    Args:
        files: YAML, of one or more documents each; `-` is standard input.

    Returns:
        The Experiments in them, and the findings in the order of files and lines.
    """
    experiments, findings = [], []
    for file in files:
        try:
            documents = read(file)
        except InputError as error:
            message = str(error).removeprefix(file).lstrip(":")
            line, _, rest = message.partition(": ")
            numbered = line.isdigit()
            message = rest if numbered else message.strip()
            findings.append(Finding("K001", "error", file, int(line) if numbered else 1, "", message))
            continue
        if not documents:
            findings.append(Finding("K001", "error", file, 1, "", "the file is empty"))
        for document in documents:
            kind = document.value.get("kind") if isinstance(document.value, dict) else None
            if kind != "Experiment" or not str(document.value.get("apiVersion")).startswith("kubeflow.org/"):
                message = f"{kind or 'it'} is no Experiment of kubeflow.org: it was not looked at"
                findings.append(Finding("K002", "note", file, document.line(()), "kind", message))
                continue
            experiments.append(Experiment(document))
            findings += check_experiment(experiments[-1])
    if experiments and importlib.util.find_spec("kubernetes") is None:
        message = "the fields of Jobs and containers were not looked at: the package kubernetes is not installed"
        findings.append(Finding("K003", "note", files[0], 1, "", message, "pip install 'isotrain[katib]'"))
    composition.remember()
    return experiments, findings


def check_experiment(experiment: Experiment) -> list[Finding]:
    """The findings of one Experiment, by line."""
    version = experiment.get("apiVersion")
    found: list[Finding] = []
    for rule in sorted(RULES, key=lambda each: each.code not in SHAPES):
        try:
            found += rule.findings(experiment)
        except (TypeError, AttributeError, ValueError, KeyError, OverflowError):
            # A value of another type than the rule counts on, which has been said. Otherwise the fault is ours.
            if not any(each.code in SHAPES for each in found):
                raise
    if version != "kubeflow.org/v1beta1":
        document: Document = experiment.document
        message = f"{version} is not the version that Katib 0.19 has"
        mend = "use kubeflow.org/v1beta1"
        found.append(
            Finding("K002", "error", document.file, document.line(("apiVersion",)), "apiVersion", message, mend)
        )
    found += composition.findings(experiment)
    return sorted(found, key=lambda each: (each.line, each.code))
