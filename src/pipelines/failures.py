"""Why a step of a run on Kubeflow failed, or does not start: what its log, its Workflow and its pods say."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster import api, reasons
from config.errors import InputError, UnreachableError
from pipelines.nodes import ACTIVE_STATES, Node, run_state, step_pattern, step_pods
from pipelines.server import Server

_NODE_NAME = "workflows.argoproj.io/node-name"  # annotation of Argo's pods
_PROGRESS = re.compile(r"^\s*isotrain: [a-z ]+(?: …|: done in )")  # of pipelines.record
_EXIT_STATUS = re.compile(r"exit status (\d+)")  # in the launcher's last line; KFP itself sees 1
_DELETED = re.compile(r"^pod deleted$|exit code 143\b")
# Argo's message, and that of a pod, which tell no more than that the step failed: the log does.
_NO_REASON = re.compile(
    r"^(?:[\w.-]+: )?(?:Error|Failed)? ?\(?exit code 1\)?$|^$|^PodInitializing$|^ContainerCreating$", re.IGNORECASE
)
_NO_POD_REASON = re.compile(r"^container \S+: exit code 1$")


def explain_steps(
    server: Server, run: Any, rows: Sequence[dict[str, Any]], nodes: Sequence[Node], namespace: str | None
) -> str:
    """Fill in the message of the steps that failed, and of those that are under way but do not start.

    The log of a step is read over KFP's API. Pods and events, which need rights in Kubernetes, are looked at only for what
    neither log nor Workflow tells.

    Args:
        server: Keeps the logs.
        run: The run of the API.
        rows: Steps, as of `nodes.fold_steps`; their messages are set.
        nodes: Nodes of the run.
        namespace: Namespace of the run's pods, if it is known.

    Returns:
        What concerns no step: what could not be looked at, and why; drivers that do not start; a Workflow that is gone.
    """
    silent = []
    drivers = [row for row in _driver_rows(rows, nodes) if row["state"] in ("PENDING", "FAILED")]
    for row in [*rows, *drivers]:
        failed = row["state"] in ("FAILED", "UNKNOWN")
        if not failed and row["state"] not in ACTIVE_STATES:
            continue
        text = read_log(server, run.run_id, row, nodes, namespace) if failed else ""
        line = _error_line(text, row["step"])
        pods = list(step_pods(nodes, row["key"]))
        message = next(
            (node.message for node in pods if node.state != "SUCCEEDED" and not _NO_REASON.match(node.message)), ""
        )
        row["message"] = line or reasons.explain_exit_codes(message)
        if failed and not line and not message:
            row["message"] = reasons.last_error_line(text)
        if not line and (failed or not pods or pods[0].state == "PENDING"):
            silent.append(row)
    needs_pods = bool(nodes) and _is_old(run) and run_state(run) in (*ACTIVE_STATES, "CANCELING")
    notes = [_explain_pods(silent, run.run_id, namespace, needs_pods) if silent or needs_pods else ""]
    notes += [f"{row['step']}: {row['message']}" for row in drivers if row["message"]]
    return "; ".join(note for note in notes if note)


def _driver_rows(rows: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Rows of the drivers of the pipeline itself and of its groups, without which no step begins."""
    steps = {f"{row['key']}-driver" for row in rows}
    states = {
        node.name.partition("(")[0]: node.state for node in nodes if node.name.partition("(")[0].endswith("-driver")
    }
    attempts = {node.name.partition("(")[0]: node.state for node in nodes if node.name.endswith(")")}
    return [
        {"step": name, "key": name.removesuffix("-driver"), "state": attempts.get(name, state), "message": ""}
        for name, state in states.items()
        if name not in steps
    ]


def is_deleted(row: Mapping[str, Any]) -> bool:
    """Return whether a step failed because its pod was deleted: by a drain, on a spot node, by hand.

    Argo says `pod deleted`, or, if it looks between the end of the container and the removal of the pod, that the step ended
    with 143.

    Args:
        row: A step with its message (`explain_steps`).
    """
    return row["state"] == "FAILED" and bool(_DELETED.search(row["message"]))


def failed_step(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe the first step that failed: ` in the step train: training diverged`; "" if none did."""
    row = next((row for row in rows if row["state"] in ("FAILED", "UNKNOWN")), None)
    if row is None:
        return ""
    return f" in the step {row['step']}" + (f": {row['message']}" if row["message"] else "")


def read_log(server: Server, run: str, row: Mapping[str, Any], nodes: Sequence[Node], namespace: str | None) -> str:
    """Return the log of a step: of its last pod that has one; "" if there is none, or the step is not known to have failed.

    KFP keeps the logs, but does not find them of a Workflow that Argo compressed: then those of the pods are read.

    Args:
        server: Keeps the logs.
        run: Id of the run.
        row: The step, as of `nodes.fold_steps`.
        nodes: Nodes of the run. Without paths they tell only the pods of steps that failed.
        namespace: Namespace of the run's pods, if it is known.
    """
    names = [name for node in step_pods(nodes, row["key"]) for name in node.pods]
    has_paths = any(node.path for node in nodes)
    if not has_paths:
        # What follows the nodes that failed is tried; the log of a step names it.
        failed = [
            node for node in nodes if node.state == "FAILED" and node.name.partition("(")[0] in (row["key"], "executor")
        ]
        names = list(dict.fromkeys(child for node in failed for child in reversed(node.children)))
    for name in names:
        text = server.log(run, name)
        if text and (has_paths or f"isotrain: {row['step']} …" in text):
            return text
    if has_paths and names:
        with contextlib.suppress(InputError, UnreachableError):  # without a kubeconfig, or its right to read logs
            connection = api.connect(namespace=namespace, roles="deploy/base/access.yaml")
            return next((text for name in names if (text := connection.read_log(name, "main"))), "")
    return ""


def _error_line(log: str, step: str) -> str:
    """The last message of isotrain in a step's log, with the exit code of the step."""
    lines = [line for line in log.splitlines() if not _PROGRESS.match(line)]
    if not any(line.lstrip().startswith("isotrain: ") for line in lines):
        return ""
    line = reasons.last_error_line("\n".join(lines)).removeprefix(f"{step}: ")
    codes = [int(code) for code in _EXIT_STATUS.findall(log)]
    return (
        f"{line} ({reasons.exit_reason(codes[-1])})"
        if line and codes and codes[-1] > 1 and "exit code" not in line
        else line
    )


def _is_old(run: Any) -> bool:
    """Whether a run was created more than a minute ago, so that its first pod was."""
    created = getattr(run, "created_at", None)
    return isinstance(created, datetime) and datetime.now(UTC) - created > timedelta(minutes=1)


def _explain_pods(rows: Sequence[dict[str, Any]], run: str, namespace: str | None, needs_pods: bool) -> str:
    """Fill in what the pods of steps say; returns why they could not be looked at, or that those of a run are gone."""
    try:
        connection = api.connect(namespace=namespace, roles="deploy/base/access.yaml")
        pods, _ = connection.list("pods", labels=f"pipeline/runid={run}")
        events, _ = connection.list("events") if pods else ([], "")
    except (InputError, UnreachableError) as error:
        missing = [row["step"] for row in rows if not row["message"] and row["state"] != "RUNNING"]
        return f"the pods of {', '.join(missing)} could not be looked at: {error}" if missing else ""
    if needs_pods and not pods:
        return (
            f"the namespace {connection.namespace} has no pod of this run: its Workflow is gone (deleted with its schedule, "
            "or by hand), and its state will stay as it is"
        )
    for row in rows:
        expression = re.compile(f"{step_pattern(row['key'])}|{step_pattern(row['key'], driver=True)}")
        for pod in reversed(pods):
            name = str((pod["metadata"].get("annotations") or {}).get(_NODE_NAME, ""))
            if expression.search(name) and (reason := reasons.pod_reason(pod, events)):
                if not (row["message"] and _NO_POD_REASON.match(reason)):
                    row["message"] = reason
                break
    return ""
