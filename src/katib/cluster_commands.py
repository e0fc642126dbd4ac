"""`python -m katib submit|watch|best|trials|delete`."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from config.errors import InputError, UnreachableError
from config.numbers import format_number
from katib import report, table
from katib.cluster import COLLECTOR_LABEL, ApiStatusError, Cluster, experiment_condition, parse_trial
from katib.documents import Document
from katib.experiment import Experiment
from katib.experiment_changes import change_experiment
from katib.run import FAILED_EXIT_CODE, load_checked, train_command
from katib.trials import Trial, best_trial, read_experiment, read_trials
from reports.page import check_page

WATCH_SECONDS = 20  # after which the Experiment is read again even without a change
COMPLETED = ("Succeeded", "Failed")


def submit(args: argparse.Namespace) -> int:
    """Check an Experiment and create it; attach to an existing one that is the same."""
    change = partial(
        change_experiment, overrides=args.overrides, name=args.name, max_trials=args.max_trials, image=args.image
    )
    experiment = load_checked(args.file, args.no_check, change)
    cluster = Cluster(args.context, args.namespace or experiment.get("metadata", "namespace"))
    if cluster.has_collector_label() is False:
        raise InputError(
            f"Katib does not collect metrics in the namespace {cluster.namespace}; kubectl label namespace "
            f"{cluster.namespace} {COLLECTOR_LABEL}=enabled"
        )
    value = {**experiment.value, "metadata": {**experiment.mapping("metadata"), "namespace": cluster.namespace}}
    existing = cluster.find_experiment(experiment.name)
    if existing is None:
        try:
            cluster.create(value)
        except ApiStatusError as status:
            # 409: another process was faster, or our request succeeded and its response was lost.
            existing = cluster.find_experiment(experiment.name) if status.code == 409 else None
            if existing is None:
                raise
    if existing is None:
        print(f"isotrain: created the Experiment {experiment.name} in {cluster.namespace}", file=sys.stderr)
    elif differences := list(_differences(experiment.value["spec"], existing["spec"], "spec")):
        raise InputError(
            f"the namespace {cluster.namespace} has another Experiment {experiment.name}, which differs in "
            f"{', '.join(differences[:5])}; choose another --name, or delete it"
        )
    else:
        print(f"isotrain: the same Experiment {experiment.name} exists already; attached to it", file=sys.stderr)
    if not args.watch:
        command = f"python -m katib watch {experiment.name} -n {cluster.namespace}"
        print(f"isotrain: watch it with {command}", file=sys.stderr)
        return 0
    return _watch(cluster, experiment.name, args.timeout)


def watch(args: argparse.Namespace) -> int:
    """Show a live table of trials until the Experiment is completed."""
    return _watch(Cluster(args.context, args.namespace), args.name, args.timeout)


def _watch(cluster: Cluster, name: str, timeout: float | None) -> int:
    end = None if timeout is None else time.monotonic() + timeout
    live_table: table.LiveTable | None = None
    previous_line = ""
    while True:
        value, experiment = _load_experiment(cluster, name)
        if live_table is None:
            live_table = table.LiveTable(experiment, experiment.count("maxTrialCount"))
        objects, version = cluster.list_trials(name)
        rows = [parse_trial(item, experiment) for item in objects]
        condition, message = experiment_condition(value)
        if previous_line != (line := f"isotrain: {condition}: {message}"):
            print(line, file=sys.stderr, flush=True)
            previous_line, live_table.drawn_lines = line, 0
        live_table.show(rows)
        if condition in COMPLETED:
            print("\n".join(table.trial_lines(rows, experiment)))
            return 0 if condition == "Succeeded" else FAILED_EXIT_CODE
        seconds = WATCH_SECONDS if end is None else int(min(WATCH_SECONDS, end - time.monotonic()))
        if seconds <= 0:
            raise UnreachableError(f"{name} is not completed after {timeout:g} s; it continues on the cluster")
        started = time.monotonic()
        try:
            cluster.wait_for_change(name, version, seconds)
        except ApiStatusError as status:
            if status.code != 410:  # 410: the version is too old, and the list is read again anyway
                raise
        if time.monotonic() - started < 0.2:
            time.sleep(0.2)  # limits the requests to a server that drops every watch


def best(args: argparse.Namespace) -> int:
    """Print the best assignments so far as Hydra overrides: of an Experiment, or of a folder of `run`."""
    local = read_experiment(Path(args.name))
    if local is not None:
        experiment, trial = local, best_trial(read_trials(Path(args.name)), local.maximize)
    else:
        value, experiment = _load_experiment(Cluster(args.context, args.namespace), args.name)
        trial = _optimal_trial(value, experiment)
    if trial is None:
        raise InputError(f"{args.name} has no best trial yet; wait until a trial has succeeded")
    overrides = [f"{name}={text}" for name, text in trial.assignments.items()]
    if args.json:
        row = {
            "trial": trial.name,
            "objective": experiment.objective,
            "value": trial.value,
            "assignments": trial.assignments,
            "overrides": overrides,
            "command": train_command(experiment, trial, []),
        }
        print(json.dumps(row, indent=2))
    else:
        number = format_number(trial.value, 6) if trial.value is not None else "not a number"
        print(shlex.join(overrides))
        print(f"isotrain: {trial.name}: {experiment.objective} {number}", file=sys.stderr)
    return 0


def trials(args: argparse.Namespace) -> int:
    """List the trials as a table, as JSON lines, or as a report."""
    if args.report:
        check_page(args.report)
    cluster = Cluster(args.context, args.namespace)
    value, experiment = _load_experiment(cluster, args.name)
    rows = [parse_trial(item, experiment) for item in cluster.list_trials(args.name)[0]]
    if args.json:
        for row in rows:
            print(json.dumps(row.to_row()))
    else:
        print("\n".join(table.trial_lines(rows, experiment)) or "no trials yet")
    if args.report:
        optimal = _optimal_trial(value, experiment)
        command = train_command(experiment, optimal, []) if optimal else ""
        report.write(Path(args.report), experiment, rows, ": ".join(experiment_condition(value)), command)
        print(f"isotrain: wrote {args.report}", file=sys.stderr)
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete an Experiment, and wait until it does not exist any more."""
    cluster = Cluster(args.context, args.namespace)
    if args.unfinished:
        value = cluster.find_experiment(args.name)
        condition = experiment_condition(value)[0] if value is not None else "not there"
        if value is None or condition in COMPLETED:
            print(f"isotrain: nothing to delete: the Experiment {args.name} is {condition}", file=sys.stderr)
            return 0
    try:
        cluster.delete(args.name)
    except ApiStatusError as status:
        if status.code != 404:
            raise
        raise cluster.missing_experiment(args.name) from status
    end = time.monotonic() + args.timeout
    while cluster.find_experiment(args.name) is not None:
        if time.monotonic() > end:
            raise UnreachableError(f"the Experiment {args.name} still exists {args.timeout:g} s after its deletion")
        time.sleep(0.5)
    print(f"isotrain: deleted the Experiment {args.name} from {cluster.namespace}", file=sys.stderr)
    return 0


def _load_experiment(cluster: Cluster, name: str) -> tuple[dict[str, Any], Experiment]:
    value = cluster.find_experiment(name)
    if value is None:
        raise cluster.missing_experiment(name)
    return value, Experiment(Document(name, value, {}))


def _optimal_trial(value: dict[str, Any], experiment: Experiment) -> Trial | None:
    """Return currentOptimalTrial of an Experiment's object; None if there is none yet."""
    optimal = (value.get("status") or {}).get("currentOptimalTrial") or {}
    if not optimal.get("bestTrialName"):
        return None
    trial = {
        "metadata": {"name": optimal["bestTrialName"]},
        "spec": {"parameterAssignments": optimal.get("parameterAssignments")},
        "status": {"observation": optimal.get("observation")},
    }
    return parse_trial(trial, experiment)


def _differences(local: Any, remote: Any, path: str) -> Iterator[str]:
    """Return paths at which a cluster's value differs from ours, defaults that the cluster adds excepted."""
    if isinstance(local, dict) and isinstance(remote, dict):
        for key, value in local.items():
            yield from _differences(value, remote.get(key), f"{path}.{key}")
    elif isinstance(local, list) and isinstance(remote, list) and len(remote) >= len(local):
        if len(remote) > len(local) and not path.endswith("metricStrategies"):
            yield path
        for index, value in enumerate(local):
            yield from _differences(value, remote[index], f"{path}[{index}]")
    elif local != remote and not (remote is None and not local and "trialSpec" not in path):
        yield path  # Katib's own fields lose zero values on the cluster, e.g. retain: false
