"""The API of Kubeflow Pipelines: its SDK, the requests that it lacks, and errors as messages."""

import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.api import response_message
from config.errors import InputError, UnreachableError
from pipelines.compilation import read_documents


class Server:
    """The API of Kubeflow Pipelines; its errors become exceptions with messages.

    Attributes:
        host: Address of the API; "" inside a cluster.
        namespace: Namespace of a multi-user Kubeflow, if there is one.
        ui: Address of the web pages; "" if it is unknown.
        client: KFP's client.
    """

    def __init__(self, host: str | None, namespace: str | None, ui: str | None = None) -> None:
        """Connect.

        Args:
            host: Address of the API; by default KFP_HOST, or the cluster's own inside a cluster.
            namespace: Namespace of a multi-user Kubeflow; by default KFP_NAMESPACE.
            ui: Address of the web pages, which are not at that of the API; by default KFP_UI.

        Raises:
            InputError: There is no address.
            UnreachableError: The server does not answer.
        """
        self.ui = (ui or os.environ.get("KFP_UI") or "").rstrip("/")
        self.host = (host or os.environ.get("KFP_HOST") or "").rstrip("/")
        if not self.host and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise InputError(
                "set --host or KFP_HOST to the address of Kubeflow Pipelines; kubectl port-forward -n kubeflow "
                "svc/ml-pipeline 8888 makes it http://localhost:8888"
            )
        from kfp import Client
        from kfp.client import set_volume_credentials

        token = os.environ.get("KFP_TOKEN") or None
        path = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token")
        mounted = set_volume_credentials.ServiceAccountTokenVolumeCredentials(path) if Path(path).exists() else None
        # KFP's client would try for half a minute.
        health = self._request(lambda: _check_health(self.host, token)) if self.host else None
        self.namespace = namespace or os.environ.get("KFP_NAMESPACE") or None
        if self.namespace and health is not None and not health.multi_user:
            raise InputError(
                f"Kubeflow Pipelines at {self.host} has no users: all runs are in its own namespace, and -n {self.namespace} "
                "would be ignored; leave -n and KFP_NAMESPACE out"
            )
        credentials = None if token else mounted
        self.client: Any = self._request(
            lambda: Client(host=self.host or None, existing_token=token, credentials=credentials, namespace="kubeflow")
        )

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of KFP's client.

        Raises:
            InputError: The server rejects the request.
            UnreachableError: The server does not answer, or fails.
        """
        return self._request(lambda: getattr(self.client, method)(*args, **kwargs))

    def _request(self, function: Callable[[], Any]) -> Any:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        server = f"Kubeflow Pipelines at {self.host}"
        try:
            # KFP's client prints links on stdout, and warns about its own defaults.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return function()
        except ValueError as error:
            raise InputError(str(error)) from error
        except ApiException as error:
            message = f"{error.status} {response_message(error)}"
            if error.status in (401, 403):
                raise InputError(f"{server} denies access ({message}): set KFP_TOKEN") from error
            if error.status and 400 <= error.status < 500:
                raise InputError(f"{server} rejects the request: {message}") from error
            raise UnreachableError(f"{server} fails: {message}") from error
        except (HTTPError, TimeoutError, ConnectionError) as error:
            raise UnreachableError(f"{server} does not answer: {type(error).__name__}") from error

    def retry(self, run: str) -> None:
        """Start the steps of a failed run again that have not succeeded.

        Raises:
            InputError: The server rejects it.
            UnreachableError: The server does not answer, or fails.
        """
        self._request(lambda: self.client._run_api.run_service_retry_run(run))

    def link(self, run: str) -> str:
        """Return the address of a run's page; "" if that of the pages is unknown."""
        return f"{self.ui}/#/runs/details/{run}" if self.ui else ""

    def spec(self, run: Any) -> dict[str, Any] | None:
        """Return the specification of the pipeline of a run; None if its version is gone."""
        version, specification = run.pipeline_version_reference, run.pipeline_spec
        if not specification and version:
            try:
                existing = self.call("get_pipeline_version", version.pipeline_id, version.pipeline_version_id)
            except InputError:
                return None
            specification = existing.pipeline_spec
        return dict(specification.get("pipeline_spec", specification)) if specification else None

    def workflow(self, run: str) -> dict[str, Any]:
        """Return the Argo Workflow of a run; {} before it has one, or if the server has no API of v1.

        The API of v2 leaves out the messages, names and types of nodes, and stores them after the state of the run.
        """
        with contextlib.suppress(InputError, UnreachableError, ValueError, TypeError, AttributeError):
            details = self._get(f"/apis/v1beta1/runs/{run}", "object")
            return dict(json.loads((details.get("pipeline_runtime") or {}).get("workflow_manifest") or "{}"))
        return {}

    def log(self, run: str, pod: str) -> str:
        """Return the log of a pod of a run; "" if there is none."""
        try:
            text = self._get(f"/apis/v1alpha1/runs/{run}/nodes/{pod}/log", "object")
        except (InputError, UnreachableError):
            return ""
        return text if isinstance(text, str) else ""  # an error is JSON, with the status 200

    def _get(self, path: str, kind: str) -> Any:
        """Request a path that KFP's client has no method for."""
        client = self.client._run_api.api_client
        options = {"auth_settings": ["Bearer"], "_return_http_data_only": True, "_request_timeout": 60}
        return self._request(lambda: client.call_api(path, "GET", response_type=kind, **options))

    def upload(self, file: str, name: str, version: str) -> dict[str, str]:
        """Upload a version of a pipeline, unless it exists.

        Returns:
            `pipeline_id` and `version_id`.

        Raises:
            InputError: The version exists with another content.
        """
        import kfp_server_api

        pipeline_id = self.call("get_pipeline_id", name)
        if pipeline_id is None:
            # upload_pipeline would name the first version after the pipeline (kubeflow/pipelines#13753).
            body = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=self.namespace)
            create = self.client._pipelines_api.pipeline_service_create_pipeline
            pipeline_id = self._request(lambda: create(body)).pipeline_id
        versions = self.call("list_pipeline_versions", pipeline_id, page_size=100, sort_by="created_at desc")
        for existing in versions.pipeline_versions or []:
            if existing.display_name == version:
                if not _same_spec(existing.pipeline_spec, read_documents(file)[0]):
                    raise InputError(
                        f"version {version} of {name} is another pipeline than {file}: set another --version"
                    )
                print(f"isotrain: version {version} of {name} is there already", file=sys.stderr)
                return {"pipeline_id": pipeline_id, "version_id": existing.pipeline_version_id}
        created = self.call("upload_pipeline_version", file, version, pipeline_id=pipeline_id)
        print(f"isotrain: uploaded {name}, version {version}", file=sys.stderr)
        return {"pipeline_id": pipeline_id, "version_id": created.pipeline_version_id}

    def experiment_id(self, name: str) -> str:
        """Create an experiment of KFP, unless it exists, and return its id."""
        return str(self.call("create_experiment", name, namespace=self.namespace).experiment_id)


def _same_spec(existing: Any, spec: Mapping[str, Any]) -> bool:
    """Whether the specification of a version in the API is that of a file; an unknown one counts as equal."""
    if not existing:
        return True
    existing = existing.get("pipeline_spec", existing)
    return all(existing.get(part) == spec.get(part) for part in ("root", "components", "deploymentSpec"))


def _check_health(host: str, token: str | None) -> Any:
    import kfp_server_api

    settings = kfp_server_api.Configuration(host=host)
    settings.retries = False
    if token:
        settings.api_key = {"authorization": token}
        settings.api_key_prefix = {"authorization": "Bearer"}
    return kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(settings)).healthz_service_get_healthz()
