"""Katib on a cluster: its SDK's client, and the Kubernetes API where the SDK lacks something."""

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError, UnreachableError, exception_chain
from katib.collector import UNAVAILABLE, apply_strategy
from katib.experiment import Experiment, parse_number
from katib.trials import Trial

GROUP, VERSION = "kubeflow.org", "v1beta1"
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
COLLECTOR_LABEL = "katib.kubeflow.org/metrics-collector-injection"
ATTEMPTS = 6
TIMEOUT = 30.0  # seconds to wait for a response
REQUEST_TIMEOUT = (TIMEOUT, TIMEOUT)  # to connect and to read; the client ignores a single float
RETRIED_CODES = (429, 500, 502, 503, 504)
# In the order in which Katib's controller evaluates a trial's conditions.
_CONDITIONS = ("Killed", "Failed", "Succeeded", "EarlyStopped", "Running", "MetricsUnavailable")


class ApiStatusError(UnreachableError):
    """An error status of the API that the caller may handle.

    Attributes:
        code: HTTP status code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Cluster:
    """Experiments and trials of one namespace."""

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Read the kubeconfig as kubectl does, or the service account inside a pod.

        Args:
            context: context of the kubeconfig; None takes the current one.
            namespace: None takes the context's, else `default`.

        Raises:
            InputError: there is no usable kubeconfig, context or SDK.
        """
        try:
            from kubeflow.katib import KatibClient
            from kubernetes import config
            from kubernetes.config.config_exception import ConfigException
        except ImportError as error:
            message = "Katib's SDK is not installed; pip install -e '.[katib]' in isotrain's checkout"
            raise InputError(message) from error
        fix = "set KUBECONFIG, or write ~/.kube/config as your cluster's documentation describes"
        try:
            self.client = KatibClient(context=context, namespace=namespace or "default")
            if namespace is None and not self.client.in_cluster:
                contexts, active = config.list_kube_config_contexts()
                selection = next((row for row in contexts if row["name"] == context), active)
                namespace = selection["context"].get("namespace")
        except ConfigException as error:
            raise InputError(f"cannot connect to a cluster: {str(error).strip()}; {fix}") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"invalid kubeconfig: {error}; {fix}") from error
        self.namespace = namespace or ("default" if not self.client.in_cluster else _pod_namespace())
        self.custom_api, self.core_api = self.client.custom_api, self.client.core_api

    # --- requests

    def call(self, action: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the client, and retry it with growing pauses where that may help.

        Args:
            action: what the call does, for messages: "read the Experiment a".
            function: function of the client.
            args, kwargs: its arguments.

        Raises:
            ApiStatusError: the server returned a status that the caller may handle (404, 409, 410).
            InputError: the cluster refused the request, the user is not logged in, or Katib is not installed.
            UnreachableError: the cluster did not respond.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(ATTEMPTS):
            pause = min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                return function(*args, **kwargs)
            except Exception as error:
                # The SDK wraps them in RuntimeErrors.
                kinds = (ApiException, HTTPError, OSError)
                cause: Any = next((link for link in exception_chain(error) if isinstance(link, kinds)), None)
                if cause is None:
                    raise
                if isinstance(cause, ApiException) and cause.status not in (0, None):
                    if cause.status not in RETRIED_CODES:
                        raise _status_error(action, cause) from error
                    message = f"{cause.status} {cause.reason}"
                    with contextlib.suppress(ValueError):
                        pause = max(pause, min(30.0, float(str((cause.headers or {}).get("Retry-After")))))
                else:
                    message = str(cause).split("(Caused by")[-1].strip(" ()")
                if attempt == ATTEMPTS - 1:
                    raise UnreachableError(f"cannot {action}: the cluster does not respond ({message})") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _call_objects(self, action: str, function: Callable[..., Any], *path: str, **kwargs: Any) -> Any:
        """Call a function of the custom objects API on a path of this namespace: plural, then name."""
        path = (GROUP, VERSION, self.namespace, *path)
        return self.call(action, function, *path, _request_timeout=REQUEST_TIMEOUT, **kwargs)

    # --- objects

    def find_experiment(self, name: str) -> dict[str, Any] | None:
        """Return an Experiment's object; None if it does not exist."""
        get = self.custom_api.get_namespaced_custom_object
        try:
            return dict(self._call_objects(f"read the Experiment {name}", get, "experiments", name))
        except ApiStatusError as status:
            if status.code == 404:
                return None
            raise

    def missing_experiment(self, name: str) -> InputError:
        """Return the exception for an Experiment that does not exist."""
        return InputError(f"the namespace {self.namespace} has no Experiment {name}; choose another --namespace")

    def create(self, value: dict[str, Any]) -> None:
        """Create an Experiment through the SDK.

        Raises:
            ApiStatusError: 409 if the name is taken.
        """
        name = value["metadata"]["name"]
        self.call(f"create the Experiment {name}", self.client.create_experiment, value, self.namespace)

    def delete(self, name: str) -> None:
        """Delete an Experiment, its trials and their workloads.

        Raises:
            ApiStatusError: 404 if it does not exist.
        """
        delete = self.custom_api.delete_namespaced_custom_object
        action = f"delete the Experiment {name}"
        self._call_objects(action, delete, "experiments", name, propagation_policy="Foreground")

    def has_collector_label(self) -> bool | None:
        """Return whether the namespace has the label that Katib requires; None without permission to read it."""
        try:
            action, read = f"read the namespace {self.namespace}", self.core_api.read_namespace
            value = self.call(action, read, self.namespace, _request_timeout=REQUEST_TIMEOUT)
        except ApiStatusError as status:
            if status.code != 404:
                raise
            message = f"the namespace {self.namespace} does not exist; choose another --namespace"
            raise InputError(message) from status
        except InputError:
            return None
        return bool((value.metadata.labels or {}).get(COLLECTOR_LABEL) == "enabled")

    def list_trials(self, name: str) -> tuple[list[dict[str, Any]], str]:
        """Return the trial objects of an Experiment by age, and the version of the list, for `wait_for_change`."""
        list_objects, selector = self.custom_api.list_namespaced_custom_object, f"{EXPERIMENT_LABEL}={name}"
        value = self._call_objects(f"list the trials of {name}", list_objects, "trials", label_selector=selector)
        items = sorted(value["items"], key=lambda item: item["metadata"].get("creationTimestamp", ""))
        return items, str(value["metadata"].get("resourceVersion", ""))

    def wait_for_change(self, name: str, version: str, seconds: int) -> None:
        """Wait until a trial of an Experiment changes, or the connection ends.

        Args:
            name: name of the Experiment.
            version: version of the list that the change follows.
            seconds: maximum time to wait.

        Raises:
            ApiStatusError: 410 if the version is too old.
        """
        from kubernetes import watch
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        stream = watch.Watch()
        try:
            events = stream.stream(
                self.custom_api.list_namespaced_custom_object,
                *(GROUP, VERSION, self.namespace, "trials"),
                label_selector=f"{EXPERIMENT_LABEL}={name}",
                resource_version=version,
                timeout_seconds=seconds,
                _request_timeout=(TIMEOUT, seconds + TIMEOUT),
            )
            next(iter(events), None)
        except ApiException as error:
            if error.status not in RETRIED_CODES:
                raise _status_error(f"watch the trials of {name}", error) from error
        except (HTTPError, OSError):
            return  # the connection was lost: the caller lists again
        finally:
            stream.stop()


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


def experiment_condition(value: Mapping[str, Any]) -> tuple[str, str]:
    """Return the latest true condition of an Experiment's object, and its message."""
    rows = [row for row in (value.get("status") or {}).get("conditions") or [] if row.get("status") == "True"]
    messages = {row["type"]: str(row.get("message", "")) for row in rows}
    name = next((name for name in ("Failed", "Succeeded", *reversed(messages)) if name in messages), "Created")
    return name, messages.get(name, "")


def _status_error(action: str, error: Any) -> Exception:
    """Return the exception for an error response of the API."""
    try:
        body = json.loads(error.body or "{}")
    except ValueError:
        body = {}
    message = str(body.get("message") or error.body or error.reason or "").strip()
    if error.status == 401:
        return InputError(f"cannot {action}: not logged in to the cluster ({message}); log in again")
    if error.status == 403:
        return InputError(f"cannot {action}: no permission ({message}); katib/cluster/rbac.yaml has the roles")
    if error.status == 404 and not body:
        return InputError(
            f"cannot {action}: Katib is not installed on this cluster (it has no Experiments of {GROUP}/{VERSION}); "
            "install it, or choose another --context"
        )
    if error.status in (400, 422):
        return InputError(f"the cluster refused to {action}: {message}")
    return ApiStatusError(f"cannot {action}: {error.status} {message}", error.status)


def _pod_namespace() -> str:
    with contextlib.suppress(OSError):
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    print("isotrain: the pod's namespace cannot be read; using the namespace default", file=sys.stderr)
    return "default"
