"""The Argo Workflow that Kubeflow Pipelines makes of a compiled pipeline: its nodes, as in status.nodes.

As seen on KFP master of August 2026 with Argo 4.0.5: a pod's node and one more for each attempt, drivers before every
task, an `executor` below every step, an exit handler as `onExit`. Ids are the Workflow's name and a hash of the node's name.
"""

from collections.abc import Mapping
from typing import Any

WORKFLOW = "train-x7k2p"
TIME = "2026-01-01T00:{:02}:{:02}Z"
NEVER = "0001-01-01T00:00:00Z"


def node_id(name: str) -> str:
    """The id of a node: Argo's 32-bit FNV-1a of its name."""
    if name == WORKFLOW:
        return name
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return f"{WORKFLOW}-{value}"


def make_nodes(
    spec: Mapping[str, Any], phases: Mapping[str, str], state: str = "Running", message: str = ""
) -> list[dict[str, Any]]:
    """The nodes of a Workflow.

    Args:
        spec: The compiled pipeline.
        phases: Phase of each task that has begun, by its key: Argo's, "Cached" for a cache hit, or "Driver" while its driver runs.
        state: Phase of the Workflow.
        message: Argo's message of pods that failed or are pending.
    """
    nodes: list[dict[str, Any]] = []
    seconds = iter(range(10_000))

    def add(name: str, phase: str, kind: str, template: str, duration: int = 1) -> dict[str, Any]:
        start, ended = next(seconds), phase not in ("Running", "Pending")
        end = start + (duration if phase != "Omitted" else 0)
        nodes.append({
            "id": node_id(name), "name": name, "displayName": name.rpartition(".")[2] if kind != "exit" else ".".join(name.split(".")[-2:]),
            "type": {"exit": "DAG"}.get(kind, kind), "templateName": template, "phase": phase,
            "startedAt": TIME.format(start // 60, start % 60), "finishedAt": TIME.format(end // 60, end % 60) if ended else NEVER,
            "children": [], **({"message": message} if kind == "Pod" and phase in ("Failed", "Pending", "Error") else {}),
        })  # fmt: skip
        return nodes[-1]

    def add_pod(name: str, phase: str, template: str, attempts: int = 1) -> None:
        """A retried pod: the node around the attempts, and one for each of them."""
        outer = add(name, "Running" if phase == "Pending" else phase, "Retry", template)
        for number in range(attempts):
            inner = add(f"{name}({number})", phase if number == attempts - 1 else "Failed", "Pod", template)
            outer["children"].append(inner["id"])

    def add_task(parent: str, key: str, task: Mapping[str, Any]) -> None:
        name, component = f"{parent}.{key}", spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            inside = [phases[inner] for inner in _keys(spec, component) if inner in phases]
            if not inside:
                return
            add_pod(f"{name}-driver", "Succeeded", "system-dag-driver")
            phase = (
                "Running"
                if "Running" in inside or state == "Running"
                else "Failed"
                if "Failed" in inside
                else "Succeeded"
            )
            add(name, phase, "DAG", task["componentRef"]["name"])
            add_dag(name, component)
        elif key in phases:
            phase = phases[key]
            if phase == "Omitted":
                add(f"{name}-driver", phase, "Skipped", "system-container-driver")
                add(name, phase, "Skipped", "system-container-executor")
                return
            add_pod(f"{name}-driver", "Running" if phase == "Driver" else "Succeeded", "system-container-driver")
            if phase == "Driver":
                return
            if phase == "Cached":
                step = add(name, "Succeeded", "DAG", "system-container-executor", 0)
                skipped = add(f"{name}.executor", "Omitted", "Skipped", "system-container-impl")
                skipped |= {"startedAt": step["startedAt"], "finishedAt": step["startedAt"], "phase": "Skipped"}
                return
            retry = "retry-" if "retryPolicy" in task else ""
            outer = add(name, phase, "DAG", f"{retry}system-container-executor", 7 if key == "train" else 1)
            outer["children"].append(node_id(f"{name}.executor"))
            add_pod(f"{name}.executor", phase, f"{retry}system-container-impl", 2 if retry and phase == "Failed" else 1)

    def add_dag(name: str, component: Mapping[str, Any]) -> None:
        tasks = dict(component["dag"]["tasks"])
        for key in sorted(tasks):
            if tasks[key].get("triggerPolicy", {}).get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED":
                add_task(name, key, tasks[key])
        for key, task in tasks.items():
            if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED" and key in phases:
                hook = f"{name}.{task['dependentTasks'][0]}.onExit"
                add(hook, "Succeeded", "exit", f"exit-hook-root-{key}")
                add_task(hook, key, task)

    add(WORKFLOW, state, "DAG", "entrypoint")
    if not phases:
        return nodes
    add_pod(f"{WORKFLOW}.root-driver", phases.get("root", "Succeeded"), "system-dag-driver")
    if "root" in phases:
        return nodes
    add(f"{WORKFLOW}.root", state, "DAG", "root")
    add_dag(f"{WORKFLOW}.root", spec["root"])
    return nodes


def _keys(spec: Mapping[str, Any], component: Mapping[str, Any]) -> list[str]:
    """The keys of all tasks inside of a component."""
    keys = []
    for key, task in component.get("dag", {}).get("tasks", {}).items():
        keys += [key, *_keys(spec, spec["components"][task["componentRef"]["name"]])]
    return keys


def add_default_retries(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes under workflow defaults with a retryStrategy, as in the manifests since 2.17: also a DAG has attempts.

    A DAG `a.b` becomes `a(0).b` of the type Retry and `a(0).b(0)`, which the names below continue.
    """
    dags = {node["name"] for node in nodes if node["type"] == "DAG"}

    def rename(name: str) -> str:
        parts = name.split(".")
        heads = [".".join(parts[:end]) for end in range(1, len(parts))]
        return ".".join(
            [*(f"{part}(0)" if head in dags else part for part, head in zip(parts, heads, strict=False)), parts[-1]]
        )

    ids = {node["id"]: node_id(rename(node["name"])) for node in nodes}
    result = []
    for node in nodes:
        name = rename(node["name"])
        children = [ids.get(child, child) for child in node["children"]]
        if node["name"] in dags:
            inner = {**node, "id": node_id(f"{name}(0)"), "name": f"{name}(0)", "displayName": f"{node['displayName']}(0)", "children": children}  # fmt: skip
            result.append({**node, "id": node_id(name), "name": name, "type": "Retry", "children": [inner["id"]]})
            result.append(inner)
        else:
            result.append({**node, "id": node_id(name), "name": name, "children": children})
    return result


def make_tasks(run: str, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The task details of v2beta1: without messages, types, paths and ids of nodes; in the order of the ids."""
    states = {"Error": "FAILED", "Omitted": None}
    tasks = []
    for number, node in enumerate(sorted(nodes, key=lambda node: str(node["id"]))):
        state = states.get(node["phase"], node["phase"].upper())
        tasks.append({
            "run_id": run, "task_id": f"0000-{number}", "display_name": node["displayName"], "create_time": TIME.format(0, 0),
            "start_time": node["startedAt"], "end_time": node["finishedAt"], **({"state": state} if state else {}),
            **({"child_tasks": [{"pod_name": child} for child in node["children"]]} if node["children"] else {}),
        })  # fmt: skip
    return tasks


def make_workflow(nodes: list[dict[str, Any]], state: str, terminated: bool, namespace: str) -> dict[str, Any]:
    """The Workflow as the API of v1beta1 returns it, in pipeline_runtime.workflow_manifest."""
    spec = {"activeDeadlineSeconds": 0} if terminated else {}
    return {
        "metadata": {"name": WORKFLOW, "namespace": namespace},
        "spec": spec,
        "status": {"phase": state, "nodes": {node["id"]: node for node in nodes}},
    }
