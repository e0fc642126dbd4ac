"""A cluster's Katib: through its SDK's client, and the Kubernetes API where that says too little."""

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.errors import InputError, UnreachableError
from katib.collector import UNAVAILABLE, chosen
from katib.experiment import Experiment, parse_number
from katib.trials import Trial

GROUP, VERSION = "kubeflow.org", "v1beta1"
LABEL = "katib.kubeflow.org/metrics-collector-injection"
TRIES = 6
AGAIN = (429, 500, 502, 503, 504)
# In the order in which Katib's controller looks at a trial's conditions.
_CONDITIONS = ("Killed", "Failed", "Succeeded", "EarlyStopped", "Running", "MetricsUnavailable")


class Status(Exception):
    """The server's answer, where the caller knows what it means.

    Attributes:
        code: HTTP's.
        message: the server's own words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Cluster:
    """Experiments and trials of one namespace."""

    def __init__(self, context: str | None = None, namespace: str | None = None, timeout: float = 30.0) -> None:
        """Reads the kubeconfig as kubectl does; inside a pod, its service account.

        Args:
            context: of the kubeconfig; None takes the current one.
            namespace: None takes the context's, else default.
            timeout: seconds for each answer.

        Raises:
            InputError: no kubeconfig, no such context, or no SDK.
        """
        try:
            from kubeflow.katib import KatibClient
            from kubernetes import config
            from kubernetes.config.config_exception import ConfigException
        except ImportError as error:
            raise InputError("this needs Katib's SDK: pip install 'isotrain[katib]'") from error
        where = "set KUBECONFIG, or write ~/.kube/config (your cluster's documentation says how)"
        self.timeout = timeout
        self.waits = (timeout, timeout)  # to connect, to read; the client overlooks a single float
        try:
            self.client = KatibClient(context=context, namespace=namespace or "default")
            if namespace is None and not self.client.in_cluster:
                contexts, active = config.list_kube_config_contexts()
                chosen_ = next((each for each in contexts if each["name"] == context), active)
                namespace = chosen_["context"].get("namespace")
        except ConfigException as error:
            raise InputError(f"no cluster to talk to: {str(error).strip()}; {where}") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"the kubeconfig cannot be used: {error}; {where}") from error
        self.namespace = namespace or ("default" if not self.client.in_cluster else _own_namespace())
        self.custom, self.core = self.client.custom_api, self.client.core_api

    # --- talking

    def ask(self, what: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Calls the API, again where that may help, with growing pauses.

        Args:
            what: is asked for, for messages: "read the Experiment a".
            call: of the client; given the arguments and a time-out.

        Raises:
            Status: an answer that the caller may understand (404, 409, 410).
            InputError: no permission, no login, or no Katib.
            UnreachableError: no answer.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        for turn in range(TRIES):
            pause = min(8.0, 0.25 * 2**turn) * random.uniform(0.5, 1.0)
            try:
                return call(*arguments, **more)
            except Exception as error:
                found = _cause(error, (ApiException, HTTPError, OSError))
                if found is None:
                    raise
                if isinstance(found, ApiException) and found.status not in (0, None):
                    if found.status not in AGAIN:
                        raise self._status(what, found) from error
                    said = f"{found.status} {found.reason}"
                    with contextlib.suppress(ValueError):
                        pause = max(pause, min(30.0, float(str((found.headers or {}).get("Retry-After")))))
                else:
                    said = str(found).split("(Caused by")[-1].strip(" ()")
                if turn == TRIES - 1:
                    raise UnreachableError(f"cannot {what}: the cluster does not answer ({said})") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _status(self, what: str, error: Any) -> Exception:
        import json

        try:
            body = json.loads(error.body or "{}")
        except ValueError:
            body = {}
        message = str(body.get("message") or error.body or error.reason or "").strip()
        if error.status == 401:
            return InputError(f"cannot {what}: the cluster does not know you; log in again ({message})")
        if error.status == 403:
            return InputError(f"cannot {what}: no permission ({message}); katib/cluster/rbac.yaml has what is needed")
        if error.status == 404 and not body:
            return InputError(
                f"cannot {what}: this cluster has no Katib (no Experiments of {GROUP}/{VERSION}); install it, or choose "
                "another --context"
            )
        if error.status in (400, 422):
            return InputError(f"the cluster refuses to {what}: {message}")
        return Status(error.status, message)

    # --- objects

    def experiment(self, name: str) -> dict[str, Any] | None:
        """The object; None if there is none of this name."""
        try:
            found = self.ask(
                f"read the Experiment {name}",
                self.custom.get_namespaced_custom_object,
                *(GROUP, VERSION, self.namespace, "experiments", name),
                _request_timeout=self.waits,
            )
        except Status as status:
            if status.code == 404:
                return None
            raise UnreachableError(f"cannot read the Experiment {name}: {status.code} {status.message}") from status
        return dict(found)

    def the_experiment(self, name: str) -> dict[str, Any]:
        """The object.

        Raises:
            InputError: there is none.
        """
        found = self.experiment(name)
        if found is None:
            raise InputError(f"there is no Experiment {name} in the namespace {self.namespace}")
        return found

    def create(self, value: dict[str, Any]) -> None:
        """Creates an Experiment through the SDK.

        Raises:
            Status: 409 if the name is taken.
        """
        name = value["metadata"]["name"]
        self.ask(f"create the Experiment {name}", self.client.create_experiment, value, self.namespace)

    def delete(self, name: str) -> None:
        """Deletes an Experiment, its trials and their workloads.

        Raises:
            Status: 404 if there is none.
        """
        self.ask(
            f"delete the Experiment {name}",
            self.custom.delete_namespaced_custom_object,
            *(GROUP, VERSION, self.namespace, "experiments", name),
            propagation_policy="Foreground",
            _request_timeout=self.waits,
        )

    def collects(self) -> bool | None:
        """Whether the namespace has the label without which Katib refuses Experiments; None if that cannot be seen."""
        try:
            found = self.ask(
                f"read the namespace {self.namespace}",
                self.core.read_namespace,
                self.namespace,
                _request_timeout=self.waits,
            )
        except Status as status:
            if status.code == 404:
                raise InputError(f"there is no namespace {self.namespace}") from status
            raise
        except InputError:
            return None
        return bool((found.metadata.labels or {}).get(LABEL) == "enabled")

    def trials(self, name: str) -> tuple[list[dict[str, Any]], str]:
        """The trial objects of an Experiment by age, and the version of the list, to watch from."""
        found = self.ask(
            f"list the trials of {name}",
            self.custom.list_namespaced_custom_object,
            *(GROUP, VERSION, self.namespace, "trials"),
            label_selector=f"katib.kubeflow.org/experiment={name}",
            _request_timeout=self.waits,
        )
        items = sorted(found["items"], key=lambda each: each["metadata"].get("creationTimestamp", ""))
        return items, str(found["metadata"].get("resourceVersion", ""))

    def changes(self, name: str, since: str, seconds: int) -> Iterator[None]:
        """Gives a beat whenever a trial of the Experiment changes, for at most so many seconds.

        Raises:
            Status: 410 when `since` is too old.
        """
        from kubernetes import watch
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        stream = watch.Watch()
        try:
            for _ in stream.stream(
                self.custom.list_namespaced_custom_object,
                *(GROUP, VERSION, self.namespace, "trials"),
                label_selector=f"katib.kubeflow.org/experiment={name}",
                resource_version=since,
                timeout_seconds=seconds,
                _request_timeout=(self.timeout, seconds + self.timeout),
            ):
                yield
        except ApiException as error:
            if error.status not in AGAIN:
                raise self._status(f"watch the trials of {name}", error) from error
        except (HTTPError, OSError):
            return  # dropped: the caller lists again
        finally:
            stream.stop()


def trial(value: Mapping[str, Any], experiment: Experiment) -> Trial:
    """A trial object as ours.

    Args:
        value: as the API gives it.
        experiment: that it belongs to.
    """
    status = value.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or [] if each.get("status") == "True"}
    state = next((each for each in _CONDITIONS if each in conditions), "Pending")
    metrics = {
        each["name"]: {key: str(each.get(key, UNAVAILABLE)) for key in ("min", "max", "latest")}
        for each in (status.get("observation") or {}).get("metrics") or []
    }
    objective = metrics.get(experiment.objective)
    text = chosen(objective, experiment.strategies[experiment.objective]) if objective else ""
    why = conditions.get(state, {})
    return Trial(
        name=value["metadata"]["name"],
        number=-1,
        status=state,
        assignments={each["name"]: str(each["value"]) for each in value["spec"].get("parameterAssignments") or []},
        value=parse_number(text),
        metrics=metrics,
        reason=str(why.get("message", "")) if state in ("Failed", "MetricsUnavailable", "Killed") else "",
        started=str(status.get("startTime") or ""),
        ended=str(status.get("completionTime") or ""),
    )


def condition(value: Mapping[str, Any]) -> tuple[str, str]:
    """The latest condition of an Experiment that holds, and its message."""
    holding = [each for each in (value.get("status") or {}).get("conditions") or [] if each.get("status") == "True"]
    for name in ("Failed", "Succeeded"):
        for each in holding:
            if each["type"] == name:
                return name, str(each.get("message", ""))
    return (holding[-1]["type"], str(holding[-1].get("message", ""))) if holding else ("Created", "")


def _cause(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> Any:
    """The SDK raises RuntimeErrors of its own; what happened is behind them."""
    while error is not None:
        if isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None


def _own_namespace() -> str:
    with contextlib.suppress(OSError):
        from pathlib import Path

        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    print("isotrain: no namespace is known; using default", file=sys.stderr)
    return "default"
