"""Experiments and trials of a namespace: Katib's SDK, and the Kubernetes API where the SDK lacks something."""

from collections.abc import Mapping
from typing import Any

from cluster.api import ApiStatusError, Connection, ForbiddenError, connect
from config.errors import InputError
from config.numbers import format_count
from katib.collector import UNAVAILABLE, apply_strategy
from katib.experiment import Experiment, parse_number
from katib.trials import Trial

EXPERIMENTS = "experiments.v1beta1.kubeflow.org"
TRIALS = "trials.v1beta1.kubeflow.org"
RUNTIMES = "trainingruntimes.v1alpha1.trainer.kubeflow.org"
SUGGESTIONS = "suggestions.v1beta1.kubeflow.org"
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
COLLECTOR_LABEL = "katib.kubeflow.org/metrics-collector-injection"
# In the order in which Katib's controller evaluates a trial's conditions.
_CONDITIONS = ("Killed", "Failed", "Succeeded", "EarlyStopped", "Running", "MetricsUnavailable")


class Cluster:
    """Experiments and trials of one namespace.

    Attributes:
        api: connection to the namespace.
        kind, resource: of the searches.
        trial_label: label of a pod with the name of its trial.
        has_suggestions: whether a Suggestion and its service stand behind a search.
    """

    kind = "Experiment"
    resource = EXPERIMENTS
    trial_label = "katib.kubeflow.org/trial"
    has_suggestions = True

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Connect, as `cluster.api.connect`.

        Raises:
            InputError: there is no usable kubeconfig or context.
        """
        self.api: Connection = connect(context, namespace)
        self.namespace = self.api.namespace

    def find_experiment(self, name: str) -> dict[str, Any] | None:
        """Return an Experiment's object; None if it does not exist."""
        return self.find_object(name)

    def find_object(self, name: str) -> dict[str, Any] | None:
        """Return a search as the cluster stores it; None if it does not exist."""
        return self.api.find(self.resource, name)

    def missing_experiment(self, name: str) -> InputError:
        """Return the exception for an Experiment that does not exist."""
        return InputError(f"the namespace {self.namespace} has no {self.kind} {name}; choose another --namespace")

    def create(self, value: dict[str, Any]) -> None:
        """Create an Experiment through the SDK.

        Raises:
            ApiStatusError: 409 if the name is taken.
            InputError: the SDK is not installed.
        """
        try:
            from kubeflow.katib import KatibClient
        except ImportError as error:
            message = "Katib's SDK is not installed; pip install -e '.[katib]' in isotrain's checkout"
            raise InputError(message) from error
        client = KatibClient(client_configuration=self.api.client.configuration, namespace=self.namespace)
        action = f"create the Experiment {value['metadata']['name']}"
        self.api.call(action, lambda: client.create_experiment(value, self.namespace), self.api.path(EXPERIMENTS))

    def check_create(self, value: dict[str, Any]) -> None:
        """Let the cluster check an Experiment, its permissions and Katib's webhooks among it, without creating it.

        Raises:
            InputError: it refuses the Experiment, or has no Katib.
            UnreachableError: it does not respond.
        """
        action = f"create the {self.kind} {value['metadata']['name']}"
        self.api.request(action, "POST", self.api.path(self.resource), {"dryRun": "All"}, value)

    def delete(self, name: str) -> bool:
        """Delete an Experiment in the background, and so its trials and their workloads; False if there is none."""
        return self.api.delete(self.resource, name)

    def find_remains(self, name: str) -> tuple[str, str]:
        """Return what is left of a deleted Experiment.

        Returns:
            The objects that still exist, "" if none does; and why pods could not be looked at, "" if they could.
        """
        selector = self.pod_selector(name)
        remains = [f"the Experiment {name}"] if self.find_experiment(name) is not None else []
        if trials := self.list_trials(name)[0]:
            remains.append(f"{format_count(len(trials), 'trial')}")
        unknown = ""
        try:
            if pods := [str(pod["metadata"]["name"]) for pod in self.api.list("pods", labels=selector)[0]]:
                remains.append(f"{format_count(len(pods), 'pod')} ({', '.join(pods[:5])}{', ...' if pods[5:] else ''})")
        except ForbiddenError as error:
            unknown = str(error)
        return ", ".join(remains), unknown

    def has_collector_label(self) -> bool | None:
        """Return whether the namespace has the label that Katib requires; None without permission to read it."""
        action, path = f"read the namespace {self.namespace}", f"/api/v1/namespaces/{self.namespace}"
        try:
            value = self.api.request(action, "GET", path)
        except ApiStatusError as status:
            if status.code != 404:
                raise
            message = f"the namespace {self.namespace} does not exist; choose another --namespace"
            raise InputError(message) from status
        except InputError:
            return None
        return bool((value["metadata"].get("labels") or {}).get(COLLECTOR_LABEL) == "enabled")

    def has_runtime(self, name: str) -> bool | None:
        """Return whether the namespace has a TrainingRuntime; None without permission to read it."""
        try:
            return self.api.find(RUNTIMES, name) is not None
        except ForbiddenError:
            return None

    def pod_selector(self, name: str) -> str:
        """Return the label selector of the pods of an Experiment."""
        return f"{EXPERIMENT_LABEL}={name}"

    def list_trials(self, name: str) -> tuple[list[dict[str, Any]], str]:
        """Return the trial objects of an Experiment by age, and the version of the list, for `wait_for_change`."""
        return self.api.list(TRIALS, labels=f"{EXPERIMENT_LABEL}={name}")

    def wait_for_change(self, name: str, version: str, seconds: int) -> None:
        """Wait until a trial of an Experiment changes, or the connection ends.

        Args:
            name: name of the Experiment.
            version: version of the list that the change follows.
            seconds: maximum time to wait.

        Raises:
            ApiStatusError: 410 if the version is too old.
        """
        self.api.wait_for_change(TRIALS, f"{EXPERIMENT_LABEL}={name}", version, seconds)


def parse_trial(value: Mapping[str, Any], experiment: Experiment) -> Trial:
    """Return the trial of an API object.

    Args:
        value: the object.
        experiment: the Experiment that it belongs to.
    """
    status = value.get("status") or {}
    conditions = {row["type"]: row for row in status.get("conditions") or [] if row.get("status") == "True"}
    state = next((name for name in _CONDITIONS if name in conditions), "Pending")
    metrics = {
        row["name"]: {key: str(row.get(key, UNAVAILABLE)) for key in ("min", "max", "latest")}
        for row in (status.get("observation") or {}).get("metrics") or []
    }
    objective = metrics.get(experiment.objective)
    text = apply_strategy(objective, experiment.strategies[experiment.objective]) if objective else ""
    message = str(conditions.get(state, {}).get("message", ""))
    return Trial(
        name=value["metadata"]["name"],
        number=-1,
        status=state,
        assignments={row["name"]: str(row["value"]) for row in value["spec"].get("parameterAssignments") or []},
        value=parse_number(text),
        metrics=metrics,
        reason=message if state in ("Failed", "MetricsUnavailable", "Killed") else "",
        started=str(status.get("startTime") or ""),
        ended=str(status.get("completionTime") or ""),
    )


def condition_message(value: Mapping[str, Any], name: str) -> str | None:
    """Return the message of a condition of an object; None if the condition is not true."""
    rows = (value.get("status") or {}).get("conditions") or []
    return next(
        (str(row.get("message", "")) for row in rows if row["type"] == name and row.get("status") == "True"), None
    )


def experiment_condition(value: Mapping[str, Any]) -> tuple[str, str]:
    """Return the latest true condition of an Experiment's object, and its message."""
    rows = [row for row in (value.get("status") or {}).get("conditions") or [] if row.get("status") == "True"]
    messages = {row["type"]: str(row.get("message", "")) for row in rows}
    name = next((name for name in ("Failed", "Succeeded", *reversed(messages)) if name in messages), "Created")
    return name, messages.get(name, "")
