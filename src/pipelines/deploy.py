"""Deployment of a run to an InferenceService of KServe: apply, wait, replay, and put the previous one back if that fails."""

import argparse
import contextlib
import copy
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from cluster import reasons
from cluster.api import ApiStatusError, Connection, ForbiddenError, connect
from config import command, files
from config.errors import EquivalenceError, ExecutionError, InputError, SignalInterrupt, UnreachableError, first_line
from config.parsing import parse_yaml
from pipelines.commands import run_command

SERVICES = "inferenceservices.v1beta1.serving.kserve.io"
ROLES = "deploy/kserve/access"
VERSION = "isotrain/model-version"  # annotation of the pods (`serving manifest`)
DEPLOYMENT = "isotrain/deployment"  # annotation of the pods: the beginning of the SHA-256 of what was applied
POLL = 2.0  # seconds between two looks
_LABEL = "serving.kserve.io/inferenceservice"  # of the pods
_RESTARTS = 3  # of a server that ends again and again
_FAILED = ("BlockedByFailedLoad", "InvalidSpec")  # transitionStatus when the failure is one of the present version
_PREVIOUS = "previous.json"
_PLAIN = ("image", "name", "namespace", "canary", "stable", "output")  # settings that are not for `--setting`


def deploy(args: argparse.Namespace) -> int:
    """Deploy a run.

    Args:
        args: options of the command.

    Returns:
        The exit code.

    Raises:
        EquivalenceError: it does not get ready or answers otherwise; the previous InferenceService is back.
        ForbiddenError, InputError, UnreachableError: as the cluster's API.
    """
    run, _ = command.take_override([args.run], "run", "name one run by run=FOLDER")
    step: dict[str, Any] = {"commands": []}
    text = _manifest(step, run, args)
    value = parse_yaml(text.encode())[0]
    predictor = value["spec"]["predictor"]
    version = str(predictor["annotations"][VERSION])
    # The version alone is also that of present servers if only the image or the resources change.
    predictor["annotations"][DEPLOYMENT] = sha256(json.dumps(predictor, sort_keys=True).encode()).hexdigest()[:12]
    if args.if_champion and (reason := _other_champion(step, Path(run), version, args)):
        print(f"not deployed: {reason}", flush=True)
        return 0
    api = connect(args.context, args.namespace, ROLES)
    folder = Path(args.folder) if args.folder else None
    previous = _remember(api, args.name, folder, text)
    with _signals_raise():
        applied = False
        try:
            _put(api, value)
            applied = True
            print(f"InferenceService {args.name}: version {version} is applied", flush=True)
            address = _wait_ready(api, args.name, _marks(predictor), args.timeout)
            run_command(step, "-m", "serving", "replay", args.url or address, f"run={run}", "--wait", "60")
        except BaseException as error:
            if isinstance(error, InputError) and not applied:  # refused: nothing has changed
                raise
            outcome = _put_back(api, args.name, previous, 0 if isinstance(error, SignalInterrupt) else args.timeout)
            if not isinstance(error, EquivalenceError | ExecutionError):
                print(f"isotrain: {outcome}", file=sys.stderr, flush=True)
                raise
            message = f"version {version} was not deployed: {str(error).removesuffix(':')}; {outcome}"
            if isinstance(error, EquivalenceError) or error.exit_code == EquivalenceError.exit_code:
                raise EquivalenceError(message) from error
            raise ExecutionError(message, error.exit_code) from error
    print(
        f"InferenceService {args.name}: version {version} is deployed, and answers as the run was validated", flush=True
    )
    return 0


def _manifest(step: dict[str, Any], run: str, args: argparse.Namespace) -> str:
    options = []
    for setting in args.setting:
        name, equals, value = setting.partition("=")
        if not equals or not name or name in _PLAIN:
            raise InputError(
                f"--setting {setting}: write NAME=VALUE with an option of `serving manifest`, such as cpu=2"
            )
        options.append(f"--{name}={value}")
    namespace = ["--namespace", args.namespace] if args.namespace else []
    words = [f"run={run}", "--name", args.name, "--image", args.image, *namespace, *options]
    return run_command(step, "-m", "serving", "manifest", *words)


def _other_champion(step: dict[str, Any], run: Path, version: str, args: argparse.Namespace) -> str:
    """Return why a run is not the champion; "" if it is."""
    record = files.read_json(run / "run.json")
    task, data = (
        dict(record.get("config", {}).get("task") or {}).get("name"),
        dict(record.get("choices") or {}).get("data"),
    )
    name = args.registered or f"{task}-{data or 'data'}"
    server = args.server
    if server is None and args.root and not os.environ.get("MLFLOW_TRACKING_URI"):
        server = f"sqlite:///{Path(args.root).absolute() / 'mlflow' / 'mlflow.db'}"
    options = ["--server", server] if server else []
    champion = json.loads(run_command(step, "-m", "runs", "champion", name, *options, "--json"))
    if champion is None:
        return f"{name} has no champion"
    if champion["digest"][: len(version)] != version:
        return f"{name} version {champion['version']}, from {champion['run']}, is the champion, not this run"
    return ""


def _remember(api: Connection, name: str, folder: Path | None, text: str) -> dict[str, Any] | None:
    """Return the InferenceService as it was before the first attempt; None if there was none."""
    if folder is None:
        return api.find(SERVICES, name)
    file = folder / _PREVIOUS
    if not file.exists():
        files.write_json(file, {"previous": api.find(SERVICES, name)})
        files.write_text(folder / "inferenceservice.yaml", text)
    previous = files.read_json(file).get("previous")
    return dict(previous) if previous else None


def _put(api: Connection, value: Mapping[str, Any]) -> None:
    """Create an InferenceService, or replace its specification; other labels and annotations stay."""
    name = value["metadata"]["name"]
    for attempt in range(5):
        present = api.find(SERVICES, name)
        try:
            if present is None:
                api.create(SERVICES, {**value, "metadata": {**value["metadata"], "namespace": api.namespace}})
                return
            metadata = copy.deepcopy(present["metadata"])
            metadata.pop("managedFields", None)
            for key in ("labels", "annotations"):
                if value["metadata"].get(key):
                    metadata[key] = {**(metadata.get(key) or {}), **value["metadata"][key]}
            body = {**value, "metadata": metadata}
            body.pop("status", None)
            api.request(f"replace the InferenceService {name}", "PUT", api.path(SERVICES, name), body=body)
            return
        except ApiStatusError as status:
            if status.code not in (404, 409) or attempt == 4:  # changed, created or deleted meanwhile
                raise


def _marks(holder: Mapping[str, Any]) -> dict[str, str]:
    """Return our annotations of a predictor, which KServe gives to its pods, or of a pod's metadata."""
    rows = (holder.get("annotations") or {}).items()
    return {key: str(value) for key, value in rows if key in (VERSION, DEPLOYMENT)}


def _canary_marks(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return our annotations of the pods of each canary in an InferenceService that is put back; KServe adds the stable ones."""
    spec = value.get("spec") or {}
    return [
        {**_marks(spec.get("predictor") or {}), **_marks(entry.get("predictor") or {})}
        for entry in spec.get("canary") or []
    ]


def _wait_ready(api: Connection, name: str, marks: Mapping[str, str], timeout: float) -> str:
    """Wait until all servers are new and ready, and return their address.

    KServe's condition Ready alone is also true while servers of before still answer.

    Args:
        api: the cluster.
        name: of the InferenceService.
        marks: annotations of the new pods; empty for an InferenceService of another origin, where Ready is all that is known.
        timeout: in seconds.

    Raises:
        EquivalenceError: they do not get ready in time, or end again and again.
    """
    deadline = time.monotonic() + timeout
    printed = ""
    while True:
        value = api.find(SERVICES, name) or {}
        canaries = _canary_marks(value)
        pods = [
            pod
            for pod in api.list("pods", labels=f"{_LABEL}={name}")[0]
            if not pod["metadata"].get("deletionTimestamp") and _marks(pod["metadata"]) not in canaries
        ]
        reason = _unready(value, pods, marks)
        if not reason:
            status = value["status"]
            return str((status.get("address") or {}).get("url") or status["url"])
        detail = _pod_detail(api, pods, marks)
        message = f"{reason}; {detail}" if detail else reason
        if message != printed:
            print(f"InferenceService {name}: {message}", flush=True)
            printed = message
        if time.monotonic() >= deadline:
            raise EquivalenceError(f"it did not get ready within {timeout:g} s: {message}")
        if _restarts(_with_marks(pods, marks)) >= _RESTARTS:
            raise EquivalenceError(f"its server ends again and again: {message}")
        time.sleep(POLL)


def _unready(value: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], marks: Mapping[str, str]) -> str:
    """Return what an InferenceService waits for; "" if all its servers are new and ready."""
    status = value.get("status") or {}
    conditions = {str(row["type"]): row for row in status.get("conditions") or []}
    fresh = _with_marks(pods, marks)
    if (conditions.get("Ready") or {}).get("status") != "True":
        model = dict(status.get("modelStatus") or {})
        # KServe keeps the failure of a version before.
        failure = model.get("lastFailureInfo") if model.get("transitionStatus") in _FAILED else None
        failure = failure or {}
        rows = [conditions[kind] for kind in ("PredictorReady", "IngressReady", "Ready") if kind in conditions]
        row: Mapping[str, Any] = next((row for row in rows if row.get("status") != "True"), {})
        words = [str(row.get(key)) for key in ("type", "reason", "message") if row.get(key)]
        text = ": ".join(words) if words else "KServe has not looked at it yet"
        return " ".join(f"{text}{': ' if failure.get('message') else ''}{failure.get('message') or ''}".split())
    if not marks:
        return ""
    if not fresh:
        return "no new server yet"
    if waiting := [pod for pod in fresh if not _is_ready(pod)]:
        return f"{len(waiting)} of {len(fresh)} new servers are not ready"
    # Knative gives a revision its requests when it is ready; pods of the one before go later.
    if status.get("deploymentMode") not in ("Knative", "Serverless") and (old := len(pods) - len(fresh)):
        return f"{old} of {len(pods)} servers are those of before"
    if not ((status.get("address") or {}).get("url") or status.get("url")):
        return "it has no address yet"
    return ""


def _with_marks(pods: Sequence[Mapping[str, Any]], marks: Mapping[str, str]) -> list[Mapping[str, Any]]:
    return [pod for pod in pods if not marks or _marks(pod["metadata"]) == marks]


def _is_ready(pod: Mapping[str, Any]) -> bool:
    rows = (pod.get("status") or {}).get("conditions") or []
    return any(row.get("type") == "Ready" and row.get("status") == "True" for row in rows)


def _restarts(pods: Sequence[Mapping[str, Any]]) -> int:
    rows = [row for pod in pods for row in (pod.get("status") or {}).get("containerStatuses") or []]
    return max((int(row.get("restartCount") or 0) for row in rows), default=0)


def _pod_detail(api: Connection, pods: Sequence[Mapping[str, Any]], marks: Mapping[str, str]) -> str:
    """Return why a new pod is not ready, with the last error in its log; "" if nothing is wrong."""
    waiting = [pod for pod in _with_marks(pods, marks) if not _is_ready(pod)]
    if not waiting:
        return ""
    pod, events, log = waiting[-1], [], ""
    with contextlib.suppress(ForbiddenError, UnreachableError):
        events = api.list("events")[0]
    if _restarts([pod]):
        with contextlib.suppress(ForbiddenError, UnreachableError):
            log = reasons.last_error_line(api.read_log(pod["metadata"]["name"], "kserve-container", lines=50))
    reason = reasons.pod_reason(pod, events)
    return reason if log in reason else ": ".join(filter(None, [reason, log]))


def _put_back(api: Connection, name: str, previous: Mapping[str, Any] | None, timeout: float) -> str:
    """Put the previous InferenceService back, and return what came of it in words."""
    try:
        if previous is None:
            api.delete(SERVICES, name)
            return f"there was none before: the InferenceService {name} is deleted"
        metadata = {key: previous["metadata"].get(key) or {} for key in ("labels", "annotations")} | {"name": name}
        _put(api, {**{key: previous[key] for key in ("apiVersion", "kind", "spec")}, "metadata": metadata})
        marks = _marks(previous["spec"].get("predictor") or {})
        version = marks.get(VERSION)
        subject = f"version {version}" if version else "the one before"
        if not timeout:
            return f"{subject} is put back"
        _wait_ready(api, name, marks, timeout)
        return f"{subject} is put back, and ready"
    except (InputError, UnreachableError, EquivalenceError) as error:
        return f"the InferenceService before it is not back: {first_line(error)}"


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM raise, so that what was applied is taken back."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise SignalInterrupt(number, "interrupted")

    outer = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, outer)
