"""Requests to one namespace of the Kubernetes API: JSON in and out, retries, and errors with the server's own message.

Resources are named as kubectl names them: "pods", or "trials.v1beta1.kubeflow.org" (plural, version, group).
"""

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.errors import InputError, UnreachableError, exception_chain

ATTEMPTS = 6
TIMEOUT = 30.0  # seconds to wait for a response
REQUEST_TIMEOUT = (TIMEOUT, TIMEOUT)  # to connect and to read; the client ignores a single float
RETRIED_CODES = (429, 500, 502, 503, 504)
PAGE = 500  # objects of a list in one response
_SINGULARS = {
    **{"experiments": "Experiment", "trainjobs": "TrainJob", "pytorchjobs": "PyTorchJob"},
    "optimizationjobs": "OptimizationJob",
    "inferenceservices": "InferenceService",
}
_FIRST_PAUSE = 0.25  # seconds after the first attempt; it doubles
_SILENCE = 10.0  # seconds after which a retry is announced
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What provides an API that may be missing on a cluster.
_PROVIDERS = {
    "kubeflow.org/v1beta1": "Katib",
    "kubeflow.org/v1": "the training operator",
    "trainer.kubeflow.org/v1alpha1": "Kubeflow Trainer",
    "jobset.x-k8s.io/v1alpha2": "JobSet",
    "argoproj.io/v1alpha1": "Argo Workflows",
    "serving.kserve.io/v1beta1": "KServe",
}


class ApiStatusError(UnreachableError):
    """An error status of the API that the caller may handle.

    Attributes:
        code: HTTP status code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ForbiddenError(InputError):
    """A request for which the user or the service account has no permission."""


class Connection:
    """A connection to one namespace of a cluster.

    Attributes:
        namespace: name of the namespace.
        client: client of the package kubernetes.
        roles: file with the roles that permit the requests, for messages.
    """

    def __init__(self, client: Any, namespace: str, roles: str) -> None:
        self.client, self.namespace, self.roles = client, namespace, roles

    def find(self, resource: str, name: str) -> dict[str, Any] | None:
        """Return an object; None if it does not exist.

        Raises:
            ForbiddenError, InputError, UnreachableError: as `call`.
        """
        try:
            return dict(self.request(f"read {_describe(resource, name)}", "GET", self.path(resource, name)))
        except ApiStatusError as status:
            if status.code == 404:
                return None
            raise

    def list(self, resource: str, labels: str = "", fields: str = "") -> tuple[list[dict[str, Any]], str]:
        """Return the objects of a resource, oldest first, and the version of the list for `wait_for_change`.

        Args:
            resource: name of the resource.
            labels, fields: selectors, as of `kubectl get -l` and `--field-selector`.

        Raises:
            ForbiddenError, InputError, UnreachableError: as `call`.
        """
        action = f"list {_describe(resource)}"
        items: list[dict[str, Any]] = []
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE), "continue": ""}
        while True:
            parameters = {name: value for name, value in query.items() if value}
            value = self.request(action, "GET", self.path(resource), parameters)
            metadata = value.get("metadata") or {}
            items += value.get("items") or []
            query["continue"] = metadata.get("continue") or ""
            if not query["continue"]:
                break
        items.sort(key=lambda item: str(item["metadata"].get("creationTimestamp") or ""))
        return items, str(metadata.get("resourceVersion", ""))

    def create(self, resource: str, value: dict[str, Any]) -> dict[str, Any]:
        """Create an object, and return it as the cluster stored it.

        Raises:
            ApiStatusError: 409 if the name is taken, also by an attempt whose response was lost.
            ForbiddenError, InputError, UnreachableError: as `call`.
        """
        action = f"create {_describe(resource, value['metadata'].get('name', ''))}"
        return dict(self.request(action, "POST", self.path(resource), body=value))

    def delete(self, resource: str, name: str) -> bool:
        """Delete an object in the background: at once, and what it owns after it.

        In the foreground the object would stay until all that it owns is gone, and controllers that still see it create
        its children again.

        Returns:
            Whether it existed.

        Raises:
            ForbiddenError, InputError, UnreachableError: as `call`.
        """
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            self.request(f"delete {_describe(resource, name)}", "DELETE", self.path(resource, name), body=body)
        except ApiStatusError as status:
            if status.code == 404:
                return False
            raise
        return True

    def read_log(self, pod: str, container: str, lines: int = 200) -> str:
        """Return the last lines of a container's log; "" if there is none, for example because the pod is gone.

        Raises:
            ForbiddenError, UnreachableError: as `call`.
        """
        query, path = {"container": container, "tailLines": str(lines)}, self.path("pods", pod) + "/log"
        try:
            return str(self.request(f"read the log of the pod {pod}", "GET", path, query, response_type="str"))
        except ForbiddenError:
            raise
        except (ApiStatusError, InputError) as error:  # 404: no such pod; 400: its container has not started
            if isinstance(error, ApiStatusError) and error.code != 404:
                raise
            return ""

    def wait_for_change(self, resource: str, labels: str, version: str, seconds: int) -> None:
        """Wait until an object of a resource changes, or the connection ends.

        Args:
            resource: name of the resource.
            labels: label selector.
            version: version of the list that the change follows.
            seconds: maximum time to wait.

        Raises:
            ApiStatusError: 410 if the version is too old.
            ForbiddenError, InputError: as `call`.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        action = f"watch {_describe(resource)}"
        query = {"watch": "true", "labelSelector": labels, "resourceVersion": version, "timeoutSeconds": str(seconds)}
        response, text = None, b""
        try:
            timeout = (TIMEOUT, seconds + TIMEOUT)
            response = self._send("GET", self.path(resource), query, None, "object", timeout, preload=False)
            for chunk in response.stream(amt=None, decode_content=False):
                text += chunk
                if b"\n" in text:
                    break
            event = json.loads(text.partition(b"\n")[0] or b"{}")
        except ApiException as error:
            if error.status not in RETRIED_CODES:
                raise self._status_error(action, error, self.path(resource)) from error
            return
        except (HTTPError, OSError, ValueError):
            return  # the connection was lost: the caller lists again
        finally:
            if response is not None:
                response.close()
        if event.get("type") == "ERROR":
            status = event.get("object") or {}
            raise ApiStatusError(f"cannot {action}: {status.get('message')}", int(status.get("code") or 500))

    def request(
        self,
        action: str,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        response_type: str = "object",
    ) -> Any:
        """Send a request, and return the JSON of the response, or its text.

        Args:
            action: what the request does, for messages: "read the Experiment a".
            method: HTTP method.
            path: path of the API.
            query: parameters of the query.
            body: JSON to send.
            response_type: "object" for JSON, "str" for text.

        Raises:
            ForbiddenError, InputError, UnreachableError: as `call`.
        """
        return self.call(
            action, lambda: self._send(method, path, query or {}, body, response_type, REQUEST_TIMEOUT), path
        )

    def call(self, action: str, function: Callable[[], Any], path: str = "") -> Any:
        """Call a function of the client or of a library that uses it, and retry it where that may help.

        Connections that are refused or lost and the statuses `RETRIED_CODES` are retried with growing pauses.

        Args:
            action: what the call does, for messages.
            function: the call.
            path: path of the API, for the message if the cluster does not have it.

        Raises:
            ApiStatusError: the server returned a status that the caller may handle (404, 409, 410).
            ForbiddenError: the user has no permission.
            InputError: the cluster refused the request, the user is not logged in, or the API is not installed.
            UnreachableError: the cluster did not respond, or answered with an error at each attempt.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        start, announced = time.monotonic(), False
        for attempt in range(1, ATTEMPTS + 1):
            pause = min(8.0, _FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            try:
                return function()
            except Exception as error:
                # Katib's SDK wraps them in RuntimeErrors.
                kinds = (ApiException, HTTPError, OSError)
                cause: Any = next((link for link in exception_chain(error) if isinstance(link, kinds)), None)
                if cause is None:
                    raise
                if isinstance(cause, ApiException) and cause.status not in (0, None):
                    if cause.status not in RETRIED_CODES:
                        raise self._status_error(action, cause, path) from error
                    message = f"the cluster answered {cause.status}: {response_message(cause)}"
                    with contextlib.suppress(ValueError):
                        pause = max(pause, min(30.0, float(str((cause.headers or {}).get("Retry-After")))))
                else:
                    message = f"the cluster does not respond ({str(cause).split('(Caused by')[-1].strip(' ()')})"
                seconds = time.monotonic() - start
                if attempt == ATTEMPTS:
                    raise UnreachableError(
                        f"cannot {action}: {message}; {ATTEMPTS} attempts in {seconds:.0f} s{_advice(message)}"
                    ) from error
                if seconds > _SILENCE and not announced:
                    print(f"isotrain: cannot {action} yet: {message}; trying again", file=sys.stderr, flush=True)
                    announced = True
                time.sleep(pause)
        raise AssertionError("unreachable")

    def path(self, resource: str, name: str = "") -> str:
        """Return the path of a resource in this namespace, or of an object."""
        plural, version, group = _parts(resource)
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Any,
        response_type: str,
        timeout: tuple[float, float],
        preload: bool = True,
    ) -> Any:
        return self.client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"} if response_type == "object" else {"Accept": "*/*"},
            body=body,
            response_type=response_type,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=preload,
            _request_timeout=timeout,
        )

    def _status_error(self, action: str, error: Any, path: str) -> Exception:
        """Return the exception for an error response of the API that no retry changes."""
        message = response_message(error)
        if error.status == 401:
            return InputError(f"cannot {action}: not logged in to the cluster ({message}); log in again")
        # Admission webhooks, quotas and Pod Security answer 403, too, but no role would help against them.
        if error.status == 403 and (" cannot " in message or not message):
            return ForbiddenError(f"cannot {action}: no permission ({message}); {self.roles} has the roles")
        if error.status == 404 and not _has_status(error):
            return InputError(f"cannot {action}: {_missing_api(path)}; install it, or choose another --context")
        if error.status in (400, 403, 422):
            return InputError(f"the cluster refused to {action}: {message}")
        return ApiStatusError(f"cannot {action}: {error.status} {message}", error.status)


def connect(
    context: str | None = None, namespace: str | None = None, roles: str = "katib/cluster/rbac.yaml"
) -> Connection:
    """Connect as kubectl does: with the kubeconfig, or with the service account inside a pod without one.

    Args:
        context: context of the kubeconfig; None takes the current one.
        namespace: None takes the context's or the pod's, else `default`.
        roles: file with the roles that permit the requests, for messages.

    Raises:
        InputError: there is no usable kubeconfig or context, or the package kubernetes is missing.
    """
    try:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException
    except ImportError as error:
        message = "the package kubernetes is not installed; pip install -e '.[katib]' in isotrain's checkout"
        raise InputError(message) from error
    fix = "set KUBECONFIG, or write ~/.kube/config as your cluster's documentation describes"
    configuration = client.Configuration()
    configuration.retries = 0  # `Connection.call` retries
    try:
        if context is None and "KUBECONFIG" not in os.environ and _SERVICE_ACCOUNT.is_dir() and not _has_kubeconfig():
            config.load_incluster_config(client_configuration=configuration)
            namespace = namespace or _pod_namespace()
        else:
            file = os.environ.get("KUBECONFIG") or None  # the client reads it when it is imported
            config.load_kube_config(file, context=context, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts(file)
            selection = next((row for row in contexts if row["name"] == context), active)
            namespace = namespace or selection["context"].get("namespace")
    except ConfigException as error:
        raise InputError(f"cannot connect to a cluster: {str(error).strip()}; {fix}") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"invalid kubeconfig: {error}; {fix}") from error
    return Connection(client.ApiClient(configuration), namespace or "default", roles)


def response_message(error: Any) -> str:
    """Return the server's own message of an error response: of its status object, else the start of its text.

    Args:
        error: exception of a generated client, with `body` and `reason`.
    """
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    with contextlib.suppress(ValueError):
        value = json.loads(body)
        if isinstance(value, dict):
            body = str(value.get("message") or value.get("error_message") or value.get("error") or "")
    line = " ".join(body.split())
    return (line if len(line) <= 500 else line[:497] + "...") or str(error.reason or "")


def _has_status(error: Any) -> bool:
    """Whether an error response is a status object; without one, the server does not know the path."""
    try:
        return isinstance(json.loads(error.body), dict)
    except (TypeError, ValueError):
        return False


def _advice(message: str) -> str:
    if "calling webhook" in message:
        return "; the service of this webhook is down or overloaded: look at its pods, then repeat the command"
    return ""


def _missing_api(path: str) -> str:
    """Describe the API of a path that the cluster does not know: `Katib is not installed on this cluster (...)`."""
    parts = path.split("/")
    if parts[1:2] != ["apis"]:
        return f"the cluster does not know {path}"
    api, plural = "/".join(parts[2:4]), parts[6] if len(parts) > 6 else "resources"
    if plural == "optimizationjobs":
        return "the cluster has no OptimizationJobs: their CRD is on Kubeflow Trainer's master, and not in Trainer 2.3"
    return f"{_PROVIDERS.get(api, f'the API {api}')} is not installed on this cluster (it has no {plural} of {api})"


def _parts(resource: str) -> tuple[str, str, str]:
    """Return plural, version and group of a resource."""
    plural, _, rest = resource.partition(".")
    version, _, group = rest.partition(".")
    return plural, version or "v1", group


def _describe(resource: str, name: str = "") -> str:
    """Describe a resource or an object for messages: `the trials`, `the Experiment a`."""
    plural = _parts(resource)[0]
    singular = _SINGULARS.get(plural, plural.removesuffix("s"))
    return f"the {singular} {name}" if name else f"the {plural}"


def _has_kubeconfig() -> bool:
    return (Path.home() / ".kube" / "config").is_file()


def _pod_namespace() -> str:
    with contextlib.suppress(OSError):
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    print("isotrain: the pod's namespace cannot be read; using the namespace default", file=sys.stderr)
    return "default"
