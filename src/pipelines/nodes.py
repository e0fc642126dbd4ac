"""The steps of a run on Kubeflow, from the nodes of its Argo Workflow, which are what KFP's API returns for its tasks.

A step has several nodes: its driver, itself, its executor, and one more of each for every attempt, `NAME(0)`. Nodes are named
by the keys of tasks in the compiled pipeline (`gate-2`); the names of steps are in its `taskInfo` (`drift gate`).
"""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.graph import DEPENDENCIES

TERMINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
ACTIVE_STATES = ("RUNNING", "PENDING")
REPORTING = timedelta(seconds=30)  # that the termination may precede its time in the history of the run
_ATTEMPT = re.compile(r"\((\d+)\)$")  # of a node's name
_ATTEMPTS = re.compile(r"\(\d+\)(?=\.|$)")  # of all parts of a path
_PHASES = {"Error": "FAILED", "Omitted": "SKIPPED"}  # of Argo, where they are not KFP's states


@dataclass(frozen=True)
class Node:
    """A node of a Workflow.

    Attributes:
        name: Key of the task, with `(N)` for an attempt, `-driver` for a driver; `executor` for the container of a step.
        state: KFP's state; SKIPPED also for a node that was omitted, to which KFP gives no state.
        start, end: Times, if it has begun and ended.
        path: Name with those of the nodes around it, as `train-x.root.train.executor(0)`; "" if the API does not tell.
        message: Argo's message.
        pods: Names under which the log of its pod may be kept.
        children: Ids of nodes that follow it.
    """

    name: str
    state: str
    start: datetime | None = None
    end: datetime | None = None
    path: str = ""
    message: str = ""
    pods: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


def run_state(run: Any) -> str:
    """Return the state of a run: KFP's, PENDING while it has none yet, and TERMINATED for FAILED after a termination."""
    state = _state(run.state) or "PENDING"
    return "TERMINATED" if state == "FAILED" and termination_time(run) else state


def termination_time(run: Any) -> datetime | None:
    """Return when a run was terminated; None if it was not."""
    history = [item for item in run.state_history or [] if item.state == "CANCELING"]
    return _time(history[0].update_time) or datetime(1971, 1, 1, tzinfo=UTC) if history else None


def task_nodes(run: Any) -> list[Node]:
    """Return the nodes of a run from the task details of the API, which may be older than its state."""
    details = getattr(run.run_details, "task_details", None) or []
    return [
        Node(
            name=str(task.display_name or ""),
            state=_state(task.state) or "SKIPPED",
            start=_time(task.start_time),
            end=_time(task.end_time),
            children=tuple(str(child.pod_name) for child in task.child_tasks or [] if child.pod_name),
        )
        for task in details
    ]


def is_compressed(workflow: Mapping[str, Any]) -> bool:
    """Return whether Argo compressed the nodes of a Workflow, as it does above 1 MB. KFP then keeps the tasks of before."""
    return bool((workflow.get("status") or {}).get("compressedNodes"))


def workflow_nodes(workflow: Mapping[str, Any]) -> list[Node]:
    """Return the nodes of a Workflow; none of {}."""
    name, status = str((workflow.get("metadata") or {}).get("name")), workflow.get("status") or {}
    items = status.get("nodes") or {}
    if is_compressed(workflow):
        items = json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
    nodes = []
    for item in items.values():
        identity, phase = str(item["id"]), str(item.get("phase") or "Pending")
        pod = f"{name}-{item.get('templateName')}-{identity.rpartition('-')[2]}"  # with POD_NAMES=v1, the id
        nodes.append(
            Node(
                name=str(item.get("displayName") or item["name"]),
                state=_PHASES.get(phase, phase.upper()),
                start=_time(item.get("startedAt")),
                end=_time(item.get("finishedAt")),
                path=str(item["name"]),
                message=str(item.get("message") or ""),
                pods=(pod, identity) if item.get("type") == "Pod" else (),
                children=tuple(item.get("children") or ()),
            )
        )
    return nodes


def step_names(spec: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the name of each step by its key in a compiled pipeline, in the order of the pipeline.

    Args:
        spec: Specification of the pipeline; None if it is unknown: isotrain's own is assumed.
    """
    if not spec or "root" not in spec:
        gates = [name for name in DEPENDENCIES if name.endswith(" gate")]
        keys = {name: f"gate-{number}" if number > 1 else "gate" for number, name in enumerate(gates, 1)}
        return {keys.get(name, name): name for name in DEPENDENCIES}
    components = spec.get("components", {})
    names = {}
    for parent in (spec["root"], *components.values()):
        for key, task in parent.get("dag", {}).get("tasks", {}).items():
            if "dag" not in components.get(task["componentRef"]["name"], {}):
                names[key] = str(task.get("taskInfo", {}).get("name") or key)
    order = list(DEPENDENCIES)
    return dict(sorted(names.items(), key=lambda item: order.index(item[1]) if item[1] in order else len(order)))


def fold_steps(run: Any, nodes: Sequence[Node], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row for each step, as `record.format_steps` takes them.

    The states agree with the state of the run: once it has ended, no step is running, what was never reached is SKIPPED,
    and what the termination of the run ended is TERMINATED.

    Args:
        run: The run of the API.
        nodes: Its nodes.
        names: Name of each step by its key (`step_names`).

    Returns:
        Rows of `step`, `key`, `state`, `seconds` and `message`.
    """
    state, terminated = run_state(run), termination_time(run)
    ended = state in (*TERMINAL_STATES, "TERMINATED")
    rows = []
    for key, name in names.items():
        node, driver = _latest(nodes, key), _latest(nodes, f"{key}-driver")
        if node is None and driver is not None and driver.state != "SUCCEEDED":
            node = driver  # the driver prepares the step; nothing else exists where it fails
        elif node is None:
            node = Node(key, "PENDING" if driver else "WAITING")
        step = "SKIPPED" if ended and node.state == "WAITING" else node.state
        if ended and step in ACTIVE_STATES:  # KFP stores the tasks after the run
            step = {"SUCCEEDED": "SUCCEEDED", "TERMINATED": "TERMINATED"}.get(state, "UNKNOWN")
        elif step == "FAILED" and terminated and (node.end is None or node.end >= terminated - REPORTING):
            step = "TERMINATED"
        elif step == "SUCCEEDED" and _is_cached(node, nodes):
            step = "CACHED"
        rows.append({"step": name, "key": key, "state": step, "seconds": _seconds(node, ended), "message": ""})
    return rows


def step_pattern(key: str, driver: bool = False) -> str:
    """Return a regular expression for the end of the path of a step's pods: of its container, or of its driver."""
    attempt = r"(\(\d+\))?"
    name = re.escape(key)
    return rf"\.{name}-driver{attempt}$" if driver else rf"\.{name}{attempt}\.executor{attempt}$"


def step_pods(nodes: Sequence[Node], key: str) -> Iterator[Node]:
    """Yield the nodes of a step that have a pod, the latest first: of its container, then of its driver.

    Args:
        nodes: The nodes of a Workflow, with paths.
        key: Key of the step.
    """
    for pattern in (step_pattern(key), step_pattern(key, driver=True)):
        pods = [node for node in nodes if node.pods and re.search(pattern, node.path)]
        yield from sorted(pods, key=lambda node: (str(node.start or ""), _attempt(node)), reverse=True)


def _latest(nodes: Sequence[Node], name: str) -> Node | None:
    """The node of a name: the one around all attempts if there is one, else the last attempt."""
    matches = [node for node in nodes if _ATTEMPT.sub("", node.name) == name]
    exact = [node for node in matches if node.name == name]
    # A node that was stored twice has the later state once.
    return max(exact or matches, key=lambda node: (_attempt(node), *_progress(node)), default=None)


def _attempt(node: Node) -> int:
    match = _ATTEMPT.search(node.name)
    return int(match[1]) if match else -1


def _progress(node: Node) -> tuple[int, str]:
    """How far a node has come, for comparison."""
    order = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED")
    return order.index(node.state) if node.state in order else -1, str(node.end or "")


def _is_cached(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether a step took its results from the cache: it has no duration, and its executor was skipped."""
    if _seconds(node, True) > 1 or node.start is None:
        return False
    executors = [other for other in nodes if _ATTEMPT.sub("", other.name) == "executor" and other.state == "SKIPPED"]
    if node.path:  # with a retryStrategy in the workflow defaults, parts of a path have attempts, too
        heads = {_ATTEMPTS.sub("", other.path).rpartition(".")[0] for other in executors}
        return _ATTEMPTS.sub("", node.path) in heads
    return any(other.start and abs((other.start - node.start).total_seconds()) <= 1 for other in executors)


def _seconds(node: Node, ended: bool) -> float:
    """Duration of a node; so far, if it has not ended."""
    if node.start is None or (node.end is None and (ended or node.state != "RUNNING")):
        return 0.0
    return max(0.0, ((node.end or datetime.now(UTC)) - node.start).total_seconds())


def _state(state: Any) -> str:
    return "" if state in (None, "RUNTIME_STATE_UNSPECIFIED") else str(state)


def _time(value: Any) -> datetime | None:
    """A time of the API; None for the year 1 and for 1970, which stand for none."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value if isinstance(value, datetime) and value.year > 1970 else None
