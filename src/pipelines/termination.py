"""Termination of a run on Kubeflow, and what its exit handler, which is killed with it, leaves undone."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import api
from config.errors import InputError, UnreachableError
from config.parsing import parse_yaml, read_bytes
from pipelines.commands import experiment_path
from pipelines.interruption import EXPERIMENTS, experiment_prefix
from pipelines.nodes import TERMINAL_STATES, run_state, task_nodes
from pipelines.server import Server

ENDED = (*TERMINAL_STATES, "TERMINATED")
POLL = 2.0  # seconds
RECENT = 100  # runs that a submission looks back at


def terminate(server: Server, run_id: str, timeout: float) -> str:
    """Terminate a run, wait for its end, and delete the Experiment of its tune step. Twice is not an error.

    Args:
        server: The server.
        run_id: Id of the run.
        timeout: Seconds to wait for the end.

    Returns:
        How it ended, as a sentence.

    Raises:
        InputError: There is no such run.
        UnreachableError: The server does not answer, or the run does not end in time.
    """
    state = run_state(server.call("get_run", run_id))
    is_ended = state in ENDED
    text = f"the run {run_id} had ended before: {state}" if is_ended else _request_end(server, run_id, timeout)
    for line in delete_experiments(server, [server.call("get_run", run_id)]):
        print(f"isotrain: {line}", file=sys.stderr)
    return text


def _request_end(server: Server, run_id: str, timeout: float) -> str:
    try:
        server.call("terminate_run", run_id)
    except (InputError, UnreachableError) as error:
        # 400 "Row not found": it has ended, or is being terminated; 500: its Workflow is gone.
        state = run_state(server.call("get_run", run_id))
        if state in ENDED:
            return f"the run {run_id} had ended before: {state}"
        if state != "CANCELING":
            raise
        if isinstance(error, UnreachableError):
            return f"the run {run_id} has no Workflow any more, so nothing of it runs; Kubeflow will show it as CANCELING ({error})"
        print(f"isotrain: the run {run_id} is being terminated already", file=sys.stderr)
    end = time.monotonic() + timeout
    while (state := run_state(server.call("get_run", run_id))) not in ENDED:
        if time.monotonic() > end:
            raise UnreachableError(
                f"the run {run_id} is {state} {timeout:g} s after its termination: its pods take longer to end, or its "
                "Workflow is gone (deleted with its schedule, or by hand), and it will stay so"
            )
        time.sleep(min(POLL, timeout))
    # Nodes named executor are the containers of steps.
    if not any(node.name.startswith("executor") for node in task_nodes(server.call("get_run", run_id))):
        return f"the run {run_id} is {state}; no step of it had begun"
    return f"the run {run_id} is {state}; its steps wrote their records, and the next run on this volume completes them"


def sweep(server: Server) -> list[str]:
    """Delete the Experiments of runs that ended without their exit handler; returns lines that say so.

    Args:
        server: The server.
    """
    options = {"page_size": RECENT, "sort_by": "created_at desc", "namespace": server.namespace}
    runs = server.call("list_runs", **options).runs or []
    return delete_experiments(server, [run for run in runs if run_state(run) in ENDED and run.state != "SUCCEEDED"])


def delete_experiments(server: Server, runs: Sequence[Any]) -> list[str]:
    """Delete unfinished Experiments of the tune steps of runs that have ended.

    Args:
        server: The server.
        runs: Runs of the API; those without a search on Katib are ignored.

    Returns:
        Lines that say what was deleted, or what could not be looked at.
    """
    searches = {run.run_id: arguments for run in runs if (arguments := _search(run))}
    if not searches:
        return []
    lines: list[str] = []
    for namespace in _namespaces(server, searches):
        try:
            connection = api.connect(namespace=namespace)
            for item in connection.list(EXPERIMENTS)[0]:
                name = str(item["metadata"]["name"])
                owner = next((run for run in searches if name.startswith(experiment_prefix(run))), None)
                if owner is None or _is_completed(item):
                    continue
                connection.delete(EXPERIMENTS, name)
                lines.append(f"deleted the Experiment {name} of the ended run {owner} from {connection.namespace}")
        except (InputError, UnreachableError) as error:
            names = ", ".join(experiment_prefix(run) + "…" for run in list(searches)[:3])
            lines.append(
                f"could not look for unfinished Experiments {names} of ended runs: {error}; if there are any, "
                "python -m katib delete NAME --unfinished removes them"
            )
            break
    return lines


def _search(run: Any) -> Mapping[str, Any] | None:
    """The parameters of a run that searches with Katib."""
    arguments = dict(getattr(run.runtime_config, "parameters", None) or {})
    return arguments if arguments.get("tune") and arguments.get("tune_backend", "katib") == "katib" else None


def _namespaces(server: Server, searches: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
    """Where Experiments of runs may be: in the namespaces of their files, and of their pods; None for the kubeconfig's."""
    names: dict[str | None, None] = {}
    for arguments in searches.values():
        path = experiment_path(str(arguments["tune"]))
        value = parse_yaml(read_bytes(path))[0] if path.is_file() else {}
        if namespace := dict(value.get("metadata") or {}).get("namespace"):
            names[str(namespace)] = None
    latest = next(iter(searches))
    pods = (server.workflow(latest).get("metadata") or {}).get("namespace")
    names[pods or server.namespace] = None
    return list(names)


def _is_completed(experiment: Mapping[str, Any]) -> bool:
    conditions = (experiment.get("status") or {}).get("conditions") or []
    return any(row.get("type") in ("Succeeded", "Failed") and row.get("status") == "True" for row in conditions)
