"""`python -m pipelines submit|schedule|status`: through Kubeflow Pipelines' own SDK."""

import argparse
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from config.errors import ExecutionError, InputError, UnreachableError
from config.source_code import PROJECT
from pipelines import check, compilation, record, table
from pipelines.arguments import bind_parameters

# wait_for_run_completion of KFP's client does not know the last two, and returns normally on FAILED.
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL = 5.0  # seconds
PATIENCE = 300.0  # seconds that a server may not answer while a run is waited for
LIMIT = 10_000  # bytes of a parameter, KFP's default
LATEST = 15


def submit(asked: argparse.Namespace) -> int:
    """Uploads a version, runs it, and waits for its end."""
    spec, arguments = _asked(asked)
    client = Server(asked.host, asked.namespace)
    pipeline, version = client.upload(
        asked.file, str(spec["pipelineInfo"]["name"]), asked.version or _version(asked.file)
    )
    run = client.run(pipeline, version, asked.experiment, arguments, asked.service_account)
    print(f"run={run}", flush=True)
    print(f"isotrain: {client.link(run)}", file=sys.stderr)
    if asked.no_wait:
        return 0
    found = client.wait(run, asked.timeout)
    steps = steps_of(found)
    print(table.format_steps(steps))
    if asked.summary:
        with Path(asked.summary).open("a", encoding="utf-8") as file:
            file.write(summary(run, str(found.state), steps, client.link(run)))
    if found.state != "SUCCEEDED":
        raise ExecutionError(f"the run {run} is {found.state}: {client.link(run)}")
    return 0


def schedule(asked: argparse.Namespace) -> int:
    """Makes a recurring run; one of the same name is replaced once the new one is there."""
    spec, arguments = _asked(asked)
    if len(asked.cron.split()) != 6:
        raise InputError(f"--cron {asked.cron!r}: six fields, seconds first, as '0 0 3 * * *'")
    client = Server(asked.host, asked.namespace)
    pipeline, version = client.upload(
        asked.file, str(spec["pipelineInfo"]["name"]), asked.version or _version(asked.file)
    )
    made, replaced = client.schedule(
        asked.name, asked.cron, pipeline, version, asked.experiment, arguments, asked.service_account
    )
    print(f"schedule={made}", flush=True)
    print(f"isotrain: {asked.name} runs at {asked.cron}; {replaced} of that name replaced", file=sys.stderr)
    return 0


def status(asked: argparse.Namespace) -> int:
    """Shows the steps of a run, here or on a cluster, or the latest runs."""
    here = [Path(asked.run), Path("outputs") / "pipelines" / asked.run] if asked.run else []
    local = next((each for each in here if (each / "steps").is_dir()), None)
    if local is not None and asked.terminate:
        raise InputError(f"{local} is a run of this machine: Ctrl-C ends it, and the same command goes on with it")
    if local is not None:
        whole = record.read_json(local / "pipeline.json")
        print(table.format_steps(record.read_steps(local)))
        print(f"isotrain: {local}: {whole.get('state', 'not ended')}", file=sys.stderr)
        return 0
    if not asked.run and not asked.host and not os.environ.get("KFP_HOST"):
        for path in sorted(Path("outputs/pipelines").glob("*/steps"), reverse=True)[:LATEST]:
            print(f"{record.read_json(path.parent / 'pipeline.json').get('state', 'not ended'):<12}{path.parent}")
        return 0
    client = Server(asked.host, asked.namespace)
    if not asked.run:
        for each in client.latest():
            print(f"{each.state or '':<12}{each.run_id}  {each.display_name}")
        return 0
    if asked.terminate:
        client.terminate(asked.run)
        print(f"isotrain: asked to end {asked.run}", file=sys.stderr)
        return 0
    found = client.get(asked.run)
    print(table.format_steps(steps_of(found)))
    print(f"isotrain: {found.state}: {client.link(asked.run)}", file=sys.stderr)
    return 0


def _asked(asked: argparse.Namespace) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The checked specification, and what the run is given."""
    findings = check.check_pipeline(asked.file)
    if findings:
        raise InputError(f"{asked.file}: {findings[0].place}: {findings[0].message}; python -m pipelines check has all")
    spec = compilation.read_documents(asked.file)[0]
    arguments = bind_parameters(spec, asked.overrides, asked.parameters)
    if asked.image:
        arguments["image"] = asked.image
    image = str(arguments.get("image", compilation.spec_parameters(spec).get("image", {}).get("defaultValue", "")))
    if "@sha256:" not in image:
        print(
            f"isotrain: warning: {image} is not named by its digest: cached steps may be another image's",
            file=sys.stderr,
        )
    for name, value in arguments.items():
        if len(str(value).encode()) > LIMIT:
            raise InputError(f"{name} has more than {LIMIT:,} bytes, and Kubeflow Pipelines takes no more")
    return spec, arguments


def _version(file: str) -> str:
    """A version's name: of the code, and of the file, which settings and a dirty tree change too."""
    asked = ["git", "-C", str(PROJECT), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    revision = os.environ.get("ISOTRAIN_REVISION") or found or time.strftime("%Y-%m-%d")
    return f"{revision[:12]}-{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]}"


def steps_of(run: Any) -> list[dict[str, Any]]:
    """The steps of a cluster's run, as `table.format_steps` takes them."""
    details = getattr(run.run_details, "task_details", None) or []
    rows = []
    for each in sorted(details, key=lambda one: str(one.start_time or "9")):
        if not each.display_name or each.display_name == "root" or str(each.display_name).endswith("-driver"):
            continue
        ended = each.end_time if each.end_time and each.start_time and each.end_time > each.start_time else None
        seconds = (ended - each.start_time).total_seconds() if ended else 0.0
        message = getattr(each.error, "message", "") or ""
        rows.append({"step": each.display_name, "state": each.state or "", "seconds": seconds, "message": message})
    return rows


def summary(run: str, state: str, steps: Sequence[Mapping[str, Any]], link: str) -> str:
    """A run in Markdown."""
    rows = [
        f"| {each['step']} | {each['state']} | {each['seconds']:.0f} | {_cell(each['message'])} |" for each in steps
    ]
    return "\n".join(
        [
            f"## Pipeline run [{run}]({link}): {state}",
            "",
            "| step | state | seconds | |",
            "|---|---|---:|---|",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


class Server:
    """Kubeflow Pipelines' API, with its errors said for people."""

    def __init__(self, host: str | None, namespace: str | None) -> None:
        """Connects.

        Args:
            host: address of the API; else KFP_HOST; else, inside a cluster, its own.
            namespace: of a multi-user Kubeflow; else KFP_NAMESPACE.

        Raises:
            InputError: there is no address.
            UnreachableError: the server does not answer.
        """
        self.host = (host or os.environ.get("KFP_HOST") or "").rstrip("/")
        if not self.host and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise InputError(
                "where is Kubeflow Pipelines? --host or KFP_HOST; kubectl port-forward -n kubeflow svc/ml-pipeline 8888 "
                "makes it http://localhost:8888"
            )
        from kfp import Client
        from kfp.client import set_volume_credentials

        token = os.environ.get("KFP_TOKEN") or None
        path = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token")
        own = set_volume_credentials.ServiceAccountTokenVolumeCredentials(path) if Path(path).exists() else None
        if self.host:
            self._ask(lambda: _alive(self.host, token))  # KFP's client asks for half a minute, and forgets the answer
        self.namespace = namespace or os.environ.get("KFP_NAMESPACE") or None
        self.client: Any = self._ask(
            lambda: Client(
                host=self.host or None, existing_token=token, credentials=None if token else own, namespace="kubeflow"
            )
        )

    def _ask(self, call: Callable[[], Any]) -> Any:
        """What a call answers.

        Raises:
            InputError: the server refuses it.
            UnreachableError: it does not answer, or fails.
        """
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            # KFP's client prints links there, and warns of its own defaults.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return call()
        except ValueError as error:
            raise InputError(str(error)) from error
        except ApiException as error:
            said = f"{error.status} {_message(error)}"
            if error.status in (401, 403):
                raise InputError(
                    f"Kubeflow Pipelines at {self.host} lets nobody in like this ({said}): set KFP_TOKEN"
                ) from error
            if error.status and 400 <= error.status < 500:
                raise InputError(f"Kubeflow Pipelines at {self.host} refuses it: {said}") from error
            raise UnreachableError(f"Kubeflow Pipelines at {self.host} fails: {said}") from error
        except (HTTPError, TimeoutError, ConnectionError) as error:
            raise UnreachableError(
                f"Kubeflow Pipelines at {self.host} does not answer: {type(error).__name__}"
            ) from error

    def link(self, run: str) -> str:
        """The run's page."""
        return f"{self.host}/#/runs/details/{run}"

    def upload(self, file: str, name: str, version: str) -> tuple[str, str]:
        """Uploads a version of a pipeline; the same one that is there already is taken.

        Returns:
            Ids of the pipeline and of the version.

        Raises:
            InputError: another pipeline has that version's name.
        """
        import kfp_server_api

        pipeline = self._ask(lambda: self.client.get_pipeline_id(name))
        if pipeline is None:
            # upload_pipeline would name the first version after the pipeline (kubeflow/pipelines#13753).
            body = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=self.namespace)
            made = self._ask(lambda: self.client._pipelines_api.pipeline_service_create_pipeline(body))
            pipeline = made.pipeline_id
        there = self._ask(
            lambda: self.client.list_pipeline_versions(pipeline, page_size=100, sort_by="created_at desc")
        )
        for each in there.pipeline_versions or []:
            if each.display_name == version:
                if not _same(each.pipeline_spec, compilation.read_documents(file)):
                    raise InputError(
                        f"version {version} of {name} is another pipeline than {file}: give another --version"
                    )
                print(f"isotrain: version {version} of {name} is there already", file=sys.stderr)
                return pipeline, each.pipeline_version_id
        found = self._ask(lambda: self.client.upload_pipeline_version(file, version, pipeline_id=pipeline))
        print(f"isotrain: uploaded {name}, version {version}", file=sys.stderr)
        return pipeline, found.pipeline_version_id

    def _experiment(self, name: str) -> str:
        made = self._ask(lambda: self.client.create_experiment(name, namespace=self.namespace))
        return str(made.experiment_id)

    def run(
        self, pipeline: str, version: str, experiment: str, arguments: Mapping[str, Any], account: str | None
    ) -> str:
        """Starts a run, its pods under a service account or Kubeflow's own, and returns its id."""
        group = self._experiment(experiment)
        name = f"{arguments.get('model', 'train')} {arguments.get('data', '')} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        made = self._ask(
            lambda: self.client.run_pipeline(
                group, name, params=dict(arguments), pipeline_id=pipeline, version_id=version, service_account=account
            )
        )
        return str(made.run_id)

    def get(self, run: str) -> Any:
        """A run."""
        return self._ask(lambda: self.client.get_run(run))

    def latest(self) -> list[Any]:
        """The latest runs."""
        found = self._ask(
            lambda: self.client.list_runs(page_size=LATEST, sort_by="created_at desc", namespace=self.namespace)
        )
        return list(found.runs or [])

    def terminate(self, run: str) -> None:
        """Ends a run."""
        self._ask(lambda: self.client.terminate_run(run))

    def wait(self, run: str, timeout: float | None) -> Any:
        """A run that has ended; a server that is away for a while is waited for.

        Raises:
            UnreachableError: it has not ended in time; it goes on on the cluster.
        """
        began, away = time.monotonic(), None
        shown: dict[str, str] = {}
        while True:
            try:
                found, away = self.get(run), None
            except UnreachableError:
                away = away or time.monotonic()
                if time.monotonic() - away > PATIENCE:
                    raise
                found = None
            if found is not None:
                for each in steps_of(found):
                    if shown.get(each["step"]) != each["state"]:
                        shown[each["step"]] = each["state"]
                        print(f"{each['step']}: {each['state']}", file=sys.stderr, flush=True)
                if found.state in TERMINAL:
                    return found
            if timeout is not None and time.monotonic() - began > timeout:
                raise UnreachableError(f"the run {run} has not ended after {timeout:g} s; it goes on: {self.link(run)}")
            time.sleep(min(POLL, timeout or POLL))

    def schedule(
        self,
        name: str,
        cron: str,
        pipeline: str,
        version: str,
        experiment: str,
        arguments: Mapping[str, Any],
        account: str | None,
    ) -> tuple[str, int]:
        """Makes a recurring run in the place of those of its name; runs never overlap, missed ones are not made up.

        Returns:
            Its id, and how many it replaces.
        """
        group = self._experiment(experiment)
        before = self._ask(lambda: self.client.list_recurring_runs(page_size=100, experiment_id=group))
        made = self._ask(
            lambda: self.client.create_recurring_run(
                group, name, cron_expression=cron, no_catchup=True, max_concurrency=1, params=dict(arguments),
                pipeline_id=pipeline, version_id=version, service_account=account,
            )
        )  # fmt: skip
        old = [each for each in before.recurring_runs or [] if each.display_name == name]
        for each in old:
            self._ask(partial(self.client.delete_recurring_run, each.recurring_run_id))
        return str(made.recurring_run_id), len(old)


def _same(there: Any, documents: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a version's specification, as the API tells it, is that of a file; unknown counts as yes."""
    if not there:
        return True
    spec = there.get("pipeline_spec", there)
    return all(spec.get(part) == documents[0].get(part) for part in ("root", "components", "deploymentSpec"))


def _alive(host: str, token: str | None) -> Any:
    """What the server says of its health."""
    import kfp_server_api

    settings = kfp_server_api.Configuration(host=host)
    settings.retries = False
    if token:
        settings.api_key = {"authorization": token}
        settings.api_key_prefix = {"authorization": "Bearer"}
    return kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(settings)).healthz_service_get_healthz()


def _message(error: Any) -> str:
    """What a server says went wrong, without the stack of its layers."""
    import json

    try:
        return str(json.loads(error.body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "")
