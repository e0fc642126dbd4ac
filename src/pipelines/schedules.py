"""Schedules (recurring runs) of Kubeflow Pipelines: replacing, removing and listing them.

A schedule owns the Workflows of its runs. Deleting it deletes them, too: a run under way would end without a trace and stay
RUNNING for ever. So a schedule is disabled first, and deleted only when none of its runs is under way.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from config.errors import InputError, UnreachableError
from config.terminal import format_table, terminal_width
from pipelines.nodes import TERMINAL_STATES, run_state
from pipelines.server import Server

POLL = 15.0  # seconds between two looks at runs under way
SETTLE = 2.0  # seconds in which a run that was just started gets into the list


def find_schedules(server: Server, experiment: str, name: str = "") -> list[Any]:
    """Return the schedules of an experiment, oldest first; only those of a name if it is given."""
    schedules: list[Any] = []
    token = ""
    while True:
        page = server.call("list_recurring_runs", page_token=token, page_size=100, experiment_id=experiment)
        schedules += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            break
    schedules = [item for item in schedules if not name or item.display_name == name]
    return sorted(schedules, key=lambda item: str(item.created_at))


@contextlib.contextmanager
def retire(server: Server, schedules: Sequence[Any], wait: bool, timeout: float | None) -> Iterator[None]:
    """Disable schedules, run a block, which may create their successor, and delete them.

    If anything fails, those that were enabled are enabled again.

    Args:
        server: The server.
        schedules: The schedules.
        wait: Whether to wait for the end of runs under way.
        timeout: Seconds to wait at most; None: without limit.

    Raises:
        InputError: A run is under way, and `wait` is not set.
        UnreachableError: It has not ended in time.
    """
    active = [item for item in schedules if _is_enabled(item)]
    try:
        for item in active:
            server.call("disable_recurring_run", item.recurring_run_id)
        if active:
            time.sleep(SETTLE)
        wait_for_runs(server, schedules, wait, timeout)
        yield
    except BaseException:
        for item in active:
            server.call("enable_recurring_run", item.recurring_run_id)
        raise
    for item in schedules:
        server.call("delete_recurring_run", item.recurring_run_id)


def format_schedules(server: Server, schedules: Sequence[Any]) -> str:
    """Format schedules as a table: name, whether enabled, cron, and state of the latest run; their ids are below each row."""
    rows, ids = [], []
    for item in schedules:
        cron = getattr(getattr(item.trigger, "cron_schedule", None), "cron", None)
        runs = _list_runs(server, item.recurring_run_id)
        state = "enabled" if _is_enabled(item) else "disabled"
        latest = run_state(runs[0]) if runs else "no run yet"
        rows.append([str(item.display_name), state, str(cron or "periodic"), latest])
        ids.append(f"  id {item.recurring_run_id}" + (f"\n  latest run {runs[0].run_id}" if runs else ""))
    table = format_table(["name", "state", "cron", "latest run"], rows, terminal_width(), limit=30, flexible=0)
    head, *lines = table.split("\n")
    return "\n".join([head, *(f"{line}\n{text}" for line, text in zip(lines, ids, strict=True))])


def wait_for_runs(server: Server, schedules: Sequence[Any], wait: bool, timeout: float | None) -> None:
    """Wait until no run of schedules is under way.

    Args:
        server: The server.
        schedules: The schedules.
        wait: Whether to wait; else a run under way is an error.
        timeout: Seconds to wait at most; None: without limit.

    Raises:
        InputError: A run is under way, and `wait` is not set.
        UnreachableError: It has not ended in time.
    """
    start, announced = time.monotonic(), ""
    while True:
        active = [
            run
            for item in schedules
            for run in _list_runs(server, item.recurring_run_id)
            if run_state(run) not in (*TERMINAL_STATES, "TERMINATED")
        ]
        if not active:
            return
        name = f"the run {active[0].run_id} ({run_state(active[0])}) of the schedule {schedules[0].display_name}"
        if not wait:
            raise InputError(
                f"{name} is under way and would be lost with it: --wait waits for its end, python -m pipelines "
                f"terminate {active[0].run_id} ends it; nothing was changed"
            )
        if timeout is not None and time.monotonic() - start > timeout:
            raise UnreachableError(f"{name} has not ended after {timeout:g} s; nothing was changed")
        if announced != name:
            print(
                f"isotrain: waiting for the end of {name}; the schedule is disabled meanwhile",
                file=sys.stderr,
                flush=True,
            )
            announced = name
        time.sleep(POLL)


def _list_runs(server: Server, schedule: str) -> list[Any]:
    """The latest runs of a schedule, newest first."""
    predicates = [{"operation": "EQUALS", "key": "recurring_run_id", "stringValue": schedule}]
    options = {"page_size": 20, "sort_by": "created_at desc", "namespace": server.namespace}
    return list(server.call("list_runs", filter=json.dumps({"predicates": predicates}), **options).runs or [])


def _is_enabled(schedule: Any) -> bool:
    return str(schedule.status) != "DISABLED" and str(schedule.mode) != "DISABLE"
