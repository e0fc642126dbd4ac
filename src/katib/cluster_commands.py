"""`python -m katib submit|watch|best|trials|delete`."""

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.api import ApiStatusError
from config.errors import InputError, UnreachableError
from config.masking import mask_shell, register_secrets
from config.numbers import format_number
from katib import report, table
from katib.cluster import COLLECTOR_LABEL, Cluster, experiment_condition, parse_trial
from katib.documents import Document
from katib.experiment import TEMPLATE, Experiment
from katib.experiment_changes import change_experiment
from katib.experiment_from_job import build_experiment
from katib.optimization_changes import change_job
from katib.optimization_check import NO_CONTROLLER, NO_CONTROLLER_FIX
from katib.optimization_cluster import JobCluster, connect_to
from katib.optimization_job import is_optimization_job
from katib.resources import Resources, change_resources
from katib.rules_jobs import RUNTIME
from katib.run import FAILED_EXIT_CODE, load_checked, train_command
from katib.scheduling import Scheduling, change_scheduling
from katib.trial_reasons import Reasons
from katib.trials import ENDED, Trial, best_trial, read_experiment, read_trials
from reports.page import check_page

WATCH_SECONDS = 20  # after which the Experiment is read again even without a change
START_SECONDS = 5  # the same while a trial does not run: a change of its pods is none of the trial
COMPLETED = ("Succeeded", "Failed")


def submit(args: argparse.Namespace) -> int:
    """Check a search and create it; attach to an existing one that is the same."""
    if args.wait_for_start is not None and not args.watch:
        raise InputError("--wait-for-start waits for trials, as --watch does: add --watch")
    resources = Resources(args.cpu, args.memory, args.gpus)
    scheduling = Scheduling(args.queue, args.priority_class)

    def change(experiment: Experiment) -> Experiment:
        changed = change_experiment(experiment, args.overrides, args.name, args.max_trials, args.image)
        change_resources(changed, resources)
        change_scheduling(changed, scheduling)
        return changed

    def change_search(search: Experiment) -> Experiment:
        if not is_optimization_job(search.value):
            return change(search)
        changes = (
            args.overrides,
            args.name,
            args.max_trials,
            args.image,
            resources != Resources(),
            scheduling != Scheduling(),
        )
        return change_job(search, change) if any(changes) else search

    return submit_checked(args, load_checked(args.file, args.no_check, change_search))


def submit_checked(args: argparse.Namespace, search: Experiment) -> int:
    """Create a search that was checked; attach to an existing one that is the same.

    Args:
        args: the command line of `submit`: context, namespace, dry_run, watch, timeout and wait_for_start.
        search: the Experiment or OptimizationJob.
    """
    is_job = is_optimization_job(search.value)
    cluster = (JobCluster if is_job else Cluster)(args.context, args.namespace or search.get("metadata", "namespace"))
    kind, name = cluster.kind, search.name
    if not is_job and cluster.has_collector_label() is False:
        raise InputError(
            f"Katib does not collect metrics in the namespace {cluster.namespace}; kubectl label namespace "
            f"{cluster.namespace} {COLLECTOR_LABEL}=enabled"
        )
    _check_runtime(cluster, build_experiment(search)[0] if is_job else search)
    value = {**search.value, "metadata": {**search.mapping("metadata"), "namespace": cluster.namespace}}
    existing = cluster.find_object(name)
    if args.dry_run and existing is None:
        cluster.check_create(value)
        print(f"isotrain: {cluster.namespace} accepts the {kind} {name}; nothing created", file=sys.stderr)
        return 0
    if existing is None:
        try:
            cluster.create(value)
        except ApiStatusError as status:
            # 409: another process was faster, or our request succeeded and its response was lost.
            existing = cluster.find_object(name) if status.code == 409 else None
            if existing is None:
                raise
    if existing is None:
        print(f"isotrain: created the {kind} {name} in {cluster.namespace}", file=sys.stderr)
    elif differences := list(_differences(search.value["spec"], existing["spec"], "spec")):
        raise InputError(
            f"the namespace {cluster.namespace} has another {kind} {name}, which differs in "
            f"{', '.join(differences[:5])}; choose another --name, or delete it"
        )
    else:
        print(f"isotrain: the same {kind} {name} exists already; attached to it", file=sys.stderr)
    if is_job and not (existing or {}).get("status"):
        print(f"isotrain: {NO_CONTROLLER}; {NO_CONTROLLER_FIX}", file=sys.stderr)
    if args.dry_run:
        return 0
    if not args.watch:
        print(f"isotrain: watch it with python -m katib watch {name} -n {cluster.namespace}", file=sys.stderr)
        return 0
    return _watch(cluster, name, args.timeout, args.wait_for_start)


def _check_runtime(cluster: Cluster, experiment: Experiment) -> None:
    """Refuse TrainJobs whose TrainingRuntime is not there: only the trial would say so, after minutes."""
    reference = experiment.mapping(*TEMPLATE, "spec", "runtimeRef") if experiment.kind == "TrainJob" else {}
    name = str(reference.get("name"))
    if reference.get("kind") != "TrainingRuntime" or cluster.has_runtime(name) is not False:
        return
    advice = f"kubectl apply -k katib/cluster/trainer -n {cluster.namespace}" if name == RUNTIME else "create it"
    raise InputError(f"the namespace {cluster.namespace} has no TrainingRuntime {name}; {advice}")


def watch(args: argparse.Namespace) -> int:
    """Show a live table of trials until the Experiment is completed."""
    return _watch(connect_to(args.context, args.namespace, args.name), args.name, args.timeout, args.wait_for_start)


def _watch(cluster: Cluster, name: str, timeout: float | None, wait_for_start: float | None) -> int:
    start = time.monotonic()
    end = None if timeout is None else start + timeout
    live_table: table.LiveTable | None = None
    reasons: Reasons | None = None
    printed: set[str] = set()
    last_activity, ended = start, -1
    while True:
        value, experiment = _load_experiment(cluster, name)
        live_table = live_table or table.LiveTable(experiment, experiment.count("maxTrialCount"))
        reasons = reasons or Reasons(cluster, value)
        objects, version = cluster.list_trials(name)
        rows, search_reason = reasons.explain(value, [parse_trial(item, experiment) for item in objects])
        condition, message = experiment_condition(value)
        _print_new(printed, [f"{condition}: {message}" if message else ""], live_table)
        _print_new(printed, _reason_lines(rows, search_reason, reasons, sys.stderr.isatty()).values(), live_table)
        live_table.show(rows)
        if condition in COMPLETED:
            print("\n".join(table.trial_lines(rows, experiment)))
            return 0 if condition == "Succeeded" else FAILED_EXIT_CODE
        previous, ended = ended, sum(row.status in ENDED for row in rows)
        if reasons.running or previous != ended:
            last_activity = time.monotonic()
        remaining: list[float] = [WATCH_SECONDS if len(reasons.running) == len(rows) - ended else START_SECONDS]
        if end is not None:
            remaining.append(end - time.monotonic())
            if remaining[-1] <= 0:
                raise UnreachableError(
                    f"{name} is not completed after {timeout:g} s; it continues on the cluster"
                    + _because(rows, search_reason, reasons)
                )
        if wait_for_start is not None:
            remaining.append(last_activity + wait_for_start - time.monotonic())
            if "pods" in reasons.missing:
                raise InputError(f"--wait-for-start needs to list pods: {reasons.missing['pods']}")
            if remaining[-1] <= 0:
                raise UnreachableError(
                    f"no trial of {name} has run for {wait_for_start:g} s{_because(rows, search_reason, reasons)}; it "
                    f"continues on the cluster: python -m katib delete {name} -n {cluster.namespace} ends it"
                )
        started = time.monotonic()
        try:
            cluster.wait_for_change(name, version, math.ceil(min(remaining)))
        except ApiStatusError as status:
            if status.code != 410:  # 410: the version is too old, and the list is read again anyway
                raise
        if time.monotonic() - started < 0.2:
            time.sleep(0.2)  # limits the requests to a server that drops every watch


def _print_new(printed: set[str], lines: Iterable[str], live_table: table.LiveTable) -> None:
    """Print lines that were not printed before, above the live table: some reasons of a pod alternate for ever."""
    for text in lines:
        if text and text not in printed:
            print(f"isotrain: {text}", file=sys.stderr, flush=True)
            live_table.drawn_lines = 0
            printed.add(text)


def _reason_lines(rows: Sequence[Trial], search_reason: str, reasons: Reasons, with_ended: bool) -> dict[str, str]:
    """Return a line for each trial that does not run or failed, for the search, and for what could not be looked at.

    Args:
        rows: trials with their reasons.
        search_reason: why no trial is created.
        reasons: where they come from.
        with_ended: whether to include trials that have ended.
    """
    lines = {
        row.name: f"{row.name} {'failed' if row.status in ENDED else 'does not run'}: {row.reason}"
        if row.reason
        else ""
        for row in rows
        if with_ended or row.status not in ENDED
    }
    missing = reasons.missing_line()
    return {
        **lines,
        "search": f"no trial runs: {search_reason}" if search_reason else "",
        "missing": f"why trials fail or do not run is not known: {missing}" if missing else "",
    }


def _because(rows: Sequence[Trial], search_reason: str, reasons: Reasons) -> str:
    """Return the first reason known, as the end of a message: `: a-1: the image x cannot be pulled`."""
    waiting = [f"{row.name}: {row.reason}" for row in rows if row.reason and row.status not in ENDED]
    failed = [f"{row.name}: {row.reason}" for row in rows if row.reason and row.status in ENDED]
    start = "" if rows else reasons.describe_start()
    text = next(filter(None, [search_reason, *waiting, *failed[-1:], reasons.missing_line(), start]), "")
    return f": {text}" if text else ""


def best(args: argparse.Namespace) -> int:
    """Print the best assignments so far as Hydra overrides: of an Experiment, or of a folder of `run`."""
    local = read_experiment(Path(args.name))
    if local is not None:
        experiment, trial = local, best_trial(read_trials(Path(args.name)), local.maximize)
        reason = next((f": {row.name}: {row.reason}" for row in read_trials(Path(args.name)) if row.reason), "")
    else:
        experiment, trial, reason = find_best(connect_to(args.context, args.namespace, args.name), args.name)
    if trial is None:
        raise InputError(f"{args.name} has no best trial yet; wait until a trial has succeeded{reason}")
    overrides = [f"{name}={text}" for name, text in trial.assignments.items()]
    if args.json:
        row = {
            "trial": trial.name,
            "objective": experiment.objective,
            "value": trial.value,
            "assignments": trial.assignments,
            "overrides": overrides,
            "command": mask_shell(train_command(experiment, trial, [])),
        }
        print(json.dumps(row, indent=2))
    else:
        number = format_number(trial.value, 6) if trial.value is not None else "not a number"
        print(shlex.join(overrides))
        print(f"isotrain: {trial.name}: {experiment.objective} {number}", file=sys.stderr)
    return 0


def find_best(cluster: Cluster, name: str) -> tuple[Experiment, Trial | None, str]:
    """Return an Experiment of a cluster, its best trial, and, if there is none, why, as the end of a message."""
    value, experiment = _load_experiment(cluster, name)
    if trial := _optimal_trial(value, experiment):
        return experiment, trial, ""
    reasons = Reasons(cluster, value)
    items = cluster.list_trials(name)[0]
    rows, search_reason = reasons.explain(value, [parse_trial(item, experiment) for item in items])
    return experiment, None, _because(rows, search_reason, reasons)


def trials(args: argparse.Namespace) -> int:
    """List the trials as a table, as JSON lines, or as a report."""
    if args.report:
        check_page(args.report)
    cluster = connect_to(args.context, args.namespace, args.name)
    value, experiment = _load_experiment(cluster, args.name)
    reasons, items = Reasons(cluster, value), cluster.list_trials(args.name)[0]
    rows, search_reason = reasons.explain(value, [parse_trial(item, experiment) for item in items])
    if args.json:
        for row in rows:
            print(json.dumps(row.to_row()))
    else:
        print("\n".join(table.trial_lines(rows, experiment)) or "no trials yet")
    for line in _reason_lines(rows, search_reason, reasons, with_ended=True).values():
        if line:
            print(f"isotrain: {line}", file=sys.stderr)
    if args.report:
        optimal = _optimal_trial(value, experiment)
        command = mask_shell(train_command(experiment, optimal, [])) if optimal else ""
        report.write(Path(args.report), experiment, rows, ": ".join(experiment_condition(value)), command)
        print(f"isotrain: wrote {args.report}", file=sys.stderr)
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete an Experiment, and wait until it, its trials and their pods do not exist any more."""
    cluster = connect_to(args.context, args.namespace, args.name)
    if args.unfinished:
        value = cluster.find_experiment(args.name)
        condition = experiment_condition(value)[0] if value is not None else "not there"
        if value is None or condition in COMPLETED:
            print(f"isotrain: nothing to delete: the {cluster.kind} {args.name} is {condition}", file=sys.stderr)
            return 0
    if not cluster.delete(args.name) and not cluster.find_remains(args.name)[0]:
        raise cluster.missing_experiment(args.name)
    end = time.monotonic() + args.timeout
    while True:
        remaining, unknown = cluster.find_remains(args.name)
        if not remaining:
            break
        if time.monotonic() > end:
            raise UnreachableError(
                f"{args.timeout:g} s after the deletion of {args.name} there still are: {remaining}; what ends writes its "
                "checkpoint, repeat the command to wait for it"
            )
        time.sleep(1)
    print(f"isotrain: deleted the {cluster.kind} {args.name} from {cluster.namespace}", file=sys.stderr)
    if unknown:
        print(f"isotrain: its pods could not be looked at, and may still end: {unknown}", file=sys.stderr)
    return 0


def _load_experiment(cluster: Cluster, name: str) -> tuple[dict[str, Any], Experiment]:
    value = cluster.find_experiment(name)
    if value is None:
        raise cluster.missing_experiment(name)
    register_secrets(value)
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
