"""Names of Kubeflow Trainer's OptimizationJob, and the text of a manifest.

The API is that of Trainer's master of August 2026 (pkg/apis/trainer/v1alpha1/optimizationjob_types.go); no release has a
controller for it yet.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from katib.api_types import API_VERSIONS
from katib.documents import YamlPath, string_dumper
from katib.findings import Level

KIND = "OptimizationJob"
API_VERSION = API_VERSIONS["TrainJob"]
# A parameter reaches a trial as the variable of this prefix and its name.
VARIABLE = "KUBEFLOW_TRAINER_OPT_"
# The variable with a trial's name; Katib sets it by itself, in an OptimizationJob it is the name of the TrainJob.
TRIAL_VARIABLE = "KATIB_TRIAL_NAME"
TRIAL_FIELD = "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
NAMESPACE_FIELD = "metadata.namespace"
REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")  # to a variable, as Kubernetes expands it in commands
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
MAX_TRIALS = MAX_PARAMETERS = MAX_CHOICES = 100
MAX_TEXT = 64  # characters of a name, a number or a choice
PARAMETERS: YamlPath = ("spec", "parameters")
TEMPLATE: YamlPath = ("spec", "trainJobTemplate")
TRAINER: YamlPath = (*TEMPLATE, "spec", "trainer")

# What another kind of search cannot express: level, path, what is lost, what to do.
Difference = tuple[Level, YamlPath, str, str]


def is_optimization_job(value: Any) -> bool:
    """Return whether a document is an OptimizationJob, of any version."""
    if not isinstance(value, Mapping):
        return False
    return value.get("kind") == KIND and str(value.get("apiVersion")).startswith("trainer.kubeflow.org/")


def trial_variable() -> dict[str, Any]:
    """Return the variable with a trial's name: that of the JobSet, which has the name of its TrainJob."""
    return {"name": TRIAL_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": TRIAL_FIELD}}}


def format_yaml(value: Mapping[str, Any]) -> str:
    """Format an object as YAML that Kubernetes reads as it is: texts that would be numbers or booleans are in quotes."""
    text: str = yaml.dump(value, Dumper=string_dumper(), sort_keys=False, width=110, allow_unicode=True)
    return text
