"""`python -m pipelines submit|schedule|status`: runs on Kubeflow Pipelines, through its SDK."""

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import ExecutionError, InputError, UnreachableError
from config.files import PROJECT, read_json
from pipelines import artifacts, record
from pipelines.arguments import bind_parameters
from pipelines.check import check_pipeline
from pipelines.compilation import read_documents, spec_parameters

# KFP's own wait_for_run_completion misses the last two, and returns normally on FAILED.
TERMINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL = 5.0  # seconds
PATIENCE = 300.0  # seconds without an answer of the server while waiting for a run
MAX_BYTES = 10_000  # of a parameter, KFP's default
LATEST = 15  # runs in a list


def submit(args: argparse.Namespace) -> int:
    """Upload a version, run it, and wait for its end."""
    server, request = _prepare_request(args)
    arguments = request["params"]
    name = f"{arguments.get('model', 'train')} {arguments.get('data', '')} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    run = str(server.call("run_pipeline", server.experiment_id(args.experiment), name, **request).run_id)
    link = server.link(run)
    print(f"run={run}", flush=True)
    print(f"isotrain: {link}", file=sys.stderr)
    if args.no_wait:
        return 0
    result = server.wait(run, args.timeout)
    steps = _read_steps(result)
    print(record.format_steps(steps))
    if args.summary:
        with Path(args.summary).open("a", encoding="utf-8") as file:
            file.write(_format_summary(run, str(result.state), steps, link))
    if result.state != "SUCCEEDED":
        raise ExecutionError(f"the run {run} is {result.state}: {link}")
    return 0


def schedule(args: argparse.Namespace) -> int:
    """Create a recurring run, whose runs never overlap. Others of its name are deleted after it is created."""
    if len(args.cron.split()) != 6:
        raise InputError(f"--cron {args.cron!r}: must have six fields, seconds first, as '0 0 3 * * *'")
    server, request = _prepare_request(args)
    experiment_id = server.experiment_id(args.experiment)
    schedules = server.call("list_recurring_runs", page_size=100, experiment_id=experiment_id).recurring_runs or []
    options = {"cron_expression": args.cron, "no_catchup": True, "max_concurrency": 1}
    created = server.call("create_recurring_run", experiment_id, args.name, **options, **request)
    replaced = [item for item in schedules if item.display_name == args.name]
    for item in replaced:
        server.call("delete_recurring_run", item.recurring_run_id)
    print(f"schedule={created.recurring_run_id}", flush=True)
    print(f"isotrain: {args.name} runs at {args.cron}; {len(replaced)} of that name replaced", file=sys.stderr)
    return 0


def status(args: argparse.Namespace) -> int:
    """Print the steps of a run, on this machine or on a cluster, or the latest runs."""
    candidates = [Path(args.run), Path("outputs") / "pipelines" / args.run] if args.run else []
    folder = next((path for path in candidates if (path / "steps").is_dir()), None)
    if folder is not None:
        if args.terminate:
            raise InputError(f"{folder} is a run on this machine: end it with Ctrl-C; the same command resumes it")
        print(record.format_steps(record.read_steps(folder)))
        print(f"isotrain: {folder}: {_local_state(folder)}", file=sys.stderr)
        return 0
    if not args.run and not args.host and not os.environ.get("KFP_HOST"):
        for path in sorted(Path("outputs/pipelines").glob("*/steps"), reverse=True)[:LATEST]:
            print(f"{_local_state(path.parent):<12}{path.parent}")
        return 0
    server = Server(args.host, args.namespace)
    if not args.run:
        options = {"page_size": LATEST, "sort_by": "created_at desc", "namespace": server.namespace}
        for run in server.call("list_runs", **options).runs or []:
            print(f"{run.state or '':<12}{run.run_id}  {run.display_name}")
    elif args.terminate:
        server.call("terminate_run", args.run)
        print(f"isotrain: requested the end of {args.run}", file=sys.stderr)
    else:
        run = server.call("get_run", args.run)
        print(record.format_steps(_read_steps(run)))
        print(f"isotrain: {run.state}: {server.link(args.run)}", file=sys.stderr)
    return 0


def _local_state(folder: Path) -> str:
    return str(read_json(folder / "pipeline.json").get("state", "not ended"))


def _prepare_request(args: argparse.Namespace) -> tuple["Server", dict[str, Any]]:
    """The server, and what both kinds of runs take: arguments, the uploaded version, and the service account."""
    if findings := check_pipeline(args.file):
        first = findings[0]
        raise InputError(
            f"{args.file}: {first.location}: {first.message}; python -m pipelines check lists all findings"
        )
    spec = read_documents(args.file)[0]
    arguments = bind_parameters(spec, args.overrides, args.parameters)
    if args.image:
        arguments["image"] = args.image
    image = str(arguments.get("image", spec_parameters(spec).get("image", {}).get("defaultValue", "")))
    if "@sha256:" not in image:
        print(
            f"isotrain: warning: {image} is not named by its digest: cached results may be of another image",
            file=sys.stderr,
        )
    for name, value in arguments.items():
        if len(str(value).encode()) > MAX_BYTES:
            raise InputError(f"{name} has more than {MAX_BYTES:,} bytes, the limit of Kubeflow Pipelines")
    server = Server(args.host, args.namespace)
    ids = server.upload(args.file, str(spec["pipelineInfo"]["name"]), args.version or _default_version(args.file))
    return server, {"params": arguments, "service_account": args.service_account, **ids}


def _default_version(file: str) -> str:
    """A version name from the commit and the content of the file, which settings and uncommitted changes affect, too."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    revision = os.environ.get("ISOTRAIN_REVISION") or commit or time.strftime("%Y-%m-%d")
    return f"{revision[:12]}-{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]}"


def _read_steps(run: Any) -> list[dict[str, Any]]:
    """The steps of a run on a cluster, as `record.format_steps` takes them."""
    details = getattr(run.run_details, "task_details", None) or []
    steps = []
    for task in sorted(details, key=lambda task: str(task.start_time or "9")):
        if not task.display_name or task.display_name == "root" or str(task.display_name).endswith("-driver"):
            continue
        ended = task.end_time if task.end_time and task.start_time and task.end_time > task.start_time else None
        seconds = (ended - task.start_time).total_seconds() if ended else 0.0
        message = getattr(task.error, "message", "") or ""
        steps.append({"step": task.display_name, "state": task.state or "", "seconds": seconds, "message": message})
    return steps


def _format_summary(run: str, state: str, steps: Sequence[Mapping[str, Any]], link: str) -> str:
    """A run in Markdown."""
    rows = [(step["step"], step["state"], f"{step['seconds']:.0f}", step["message"]) for step in steps]
    table = artifacts.table(["step", "state", "seconds", "message"], rows)
    return f"## Pipeline run [{run}]({link}): {state}\n\n{table}\n"


class Server:
    """The API of Kubeflow Pipelines; its errors become exceptions with messages.

    Attributes:
        host: Address of the API; "" inside a cluster.
        namespace: Namespace of a multi-user Kubeflow, if there is one.
        client: KFP's client.
    """

    def __init__(self, host: str | None, namespace: str | None) -> None:
        """Connect.

        Args:
            host: Address of the API; by default KFP_HOST, or the cluster's own inside a cluster.
            namespace: Namespace of a multi-user Kubeflow; by default KFP_NAMESPACE.

        Raises:
            InputError: There is no address.
            UnreachableError: The server does not answer.
        """
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
        if self.host:
            self._request(lambda: _check_health(self.host, token))  # KFP's client would try for half a minute
        self.namespace = namespace or os.environ.get("KFP_NAMESPACE") or None
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
            message = f"{error.status} {_error_message(error)}"
            if error.status in (401, 403):
                raise InputError(f"{server} denies access ({message}): set KFP_TOKEN") from error
            if error.status and 400 <= error.status < 500:
                raise InputError(f"{server} rejects the request: {message}") from error
            raise UnreachableError(f"{server} fails: {message}") from error
        except (HTTPError, TimeoutError, ConnectionError) as error:
            raise UnreachableError(f"{server} does not answer: {type(error).__name__}") from error

    def link(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{self.host}/#/runs/details/{run}"

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

    def wait(self, run: str, timeout: float | None) -> Any:
        """Wait for the end of a run, and return it. A server may be unreachable for PATIENCE seconds.

        Raises:
            UnreachableError: The run has not ended in time; it continues on the cluster.
        """
        start, unreachable_since = time.monotonic(), None
        states: dict[str, str] = {}
        while True:
            try:
                result, unreachable_since = self.call("get_run", run), None
            except UnreachableError:
                unreachable_since = unreachable_since or time.monotonic()
                if time.monotonic() - unreachable_since > PATIENCE:
                    raise
                result = None
            if result is not None:
                for step in _read_steps(result):
                    if states.get(step["step"]) != step["state"]:
                        states[step["step"]] = step["state"]
                        print(f"{step['step']}: {step['state']}", file=sys.stderr, flush=True)
                if result.state in TERMINAL_STATES:
                    return result
            if timeout is not None and time.monotonic() - start > timeout:
                raise UnreachableError(
                    f"the run {run} has not ended after {timeout:g} s; it continues: {self.link(run)}"
                )
            time.sleep(min(POLL, timeout or POLL))


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


def _error_message(error: Any) -> str:
    """The message of the server, without its stack."""
    try:
        return str(json.loads(error.body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "")
