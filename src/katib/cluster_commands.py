"""`python -m katib submit|watch|best|trials|delete`."""

import argparse
import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from config import terminal
from config.errors import InputError, UnreachableError
from config.numbers import format_number
from katib import report, table
from katib.cluster import LABEL, Cluster, Status, condition, trial
from katib.documents import Document
from katib.experiment import Experiment
from katib.experiment_changes import changed
from katib.run import COMPLETED_FAILED, checked, train_command
from katib.trials import Trial, best_of, experiment_of, read

WATCH = 20  # seconds of one watch, after which the Experiment is read again in any case


def submit(asked: argparse.Namespace) -> int:
    """Checks an Experiment and creates it; one that is there already, and the same, is attached to."""
    change = partial(
        changed, overrides=asked.overrides, name=asked.name, max_trials=asked.max_trials, image=asked.image
    )
    experiment = checked(asked.file, asked.no_check, change)
    cluster = Cluster(asked.context, asked.namespace or experiment.get("metadata", "namespace"))
    if cluster.collects() is False:
        raise InputError(
            f"Katib collects no metrics in the namespace {cluster.namespace}: kubectl label namespace "
            f"{cluster.namespace} {LABEL}=enabled"
        )
    value = {**experiment.value, "metadata": {**experiment.mapping("metadata"), "namespace": cluster.namespace}}
    existing = cluster.experiment(experiment.name)
    if existing is None:
        try:
            cluster.create(value)
        except Status as status:
            # Somebody was quicker; or we were, and the answer was lost.
            existing = cluster.experiment(experiment.name) if status.code == 409 else None
            if existing is None:
                raise UnreachableError(f"cannot create {experiment.name}: {status.code} {status.message}") from status
    if existing is None:
        print(f"isotrain: created the Experiment {experiment.name} in {cluster.namespace}", file=sys.stderr)
    elif differences := list(_differences(experiment.value["spec"], existing["spec"], "spec")):
        raise InputError(
            f"there is another Experiment {experiment.name} in {cluster.namespace}; it differs in "
            f"{', '.join(differences[:5])}. Give this one another name, or delete that one"
        )
    else:
        print(f"isotrain: the same Experiment {experiment.name} is there already: attached to it", file=sys.stderr)
    if not asked.watch:
        print(f"isotrain: python -m katib watch {experiment.name} -n {cluster.namespace}", file=sys.stderr)
        return 0
    return _watch(cluster, experiment.name, asked.timeout)


def watch(asked: argparse.Namespace) -> int:
    """Shows a live table of trials until the Experiment is completed."""
    return _watch(Cluster(asked.context, asked.namespace), asked.name, asked.timeout)


def _watch(cluster: Cluster, name: str, timeout: float | None) -> int:
    end = None if timeout is None else time.monotonic() + timeout
    live: table.LiveTable | None = None
    told = ""
    while True:
        value = cluster.the_experiment(name)
        experiment = Experiment(Document(name, value, {}))
        live = live or table.LiveTable(experiment.objective, experiment.maximize, experiment.count("maxTrialCount"))
        objects, version = cluster.trials(name)
        trials = [trial(each, experiment) for each in objects]
        state, message = condition(value)
        if told != (line := f"isotrain: {state}: {message}"):
            print(line, file=sys.stderr, flush=True)
            told, live.drawn = line, 0
        live.show(trials)
        if state in ("Succeeded", "Failed"):
            print(
                "\n".join(
                    table.trial_lines(trials, experiment.objective, experiment.maximize, terminal.terminal_width())
                )
            )
            return 0 if state == "Succeeded" else COMPLETED_FAILED
        left = WATCH if end is None else int(min(WATCH, end - time.monotonic()))
        if left <= 0:
            raise UnreachableError(f"{name} is not completed after {timeout:g} s; it goes on on the cluster")
        begun = time.monotonic()
        try:
            next(cluster.changes(name, version, left), None)
        except Status as status:
            if status.code != 410:  # 410: the version is too old, and the list is read again anyway
                raise UnreachableError(f"cannot watch {name}: {status.code} {status.message}") from status
        if time.monotonic() - begun < 0.2:
            time.sleep(0.2)  # a server that drops every watch is not asked all the time


def best(asked: argparse.Namespace) -> int:
    """Says the best assignment so far, as Hydra overrides: of an Experiment, or of a folder that `run` left."""
    here = experiment_of(Path(asked.name))
    if here is not None:
        experiment, best_ = here, best_of(read(Path(asked.name)), here.maximize)
    else:
        cluster = Cluster(asked.context, asked.namespace)
        value = cluster.the_experiment(asked.name)
        experiment = Experiment(Document(asked.name, value, {}))
        optimal = (value.get("status") or {}).get("currentOptimalTrial") or {}
        best_ = _optimal(optimal, experiment) if optimal.get("bestTrialName") else None
    if best_ is None:
        raise InputError(f"{asked.name} has no best trial yet")
    found = best_
    shown = format_number(found.value, 6) if found.value is not None else "no number"
    overrides = [f"{name}={text}" for name, text in found.assignments.items()]
    if asked.json:
        row = {"trial": found.name, "objective": experiment.objective, "value": found.value}
        more = {"assignments": found.assignments, "overrides": overrides}
        print(json.dumps({**row, **more, "command": train_command(experiment, found, [])}, indent=2))
    else:
        print(shlex.join(overrides))
        print(f"isotrain: {found.name}: {experiment.objective} {shown}", file=sys.stderr)
    return 0


def _optimal(value: dict[str, Any], experiment: Experiment) -> Trial:
    object_ = {
        "metadata": {"name": value["bestTrialName"]},
        "spec": {"parameterAssignments": value.get("parameterAssignments")},
        "status": {"observation": value.get("observation")},
    }
    return trial(object_, experiment)


def trials(asked: argparse.Namespace) -> int:
    """Lists the trials: as a table, as JSON lines, or as a report."""
    cluster = Cluster(asked.context, asked.namespace)
    value = cluster.the_experiment(asked.name)
    experiment = Experiment(Document(asked.name, value, {}))
    found = [trial(each, experiment) for each in cluster.trials(asked.name)[0]]
    if asked.json:
        for each in found:
            print(json.dumps(each.row()))
    else:
        lines = table.trial_lines(found, experiment.objective, experiment.maximize, terminal.terminal_width())
        print("\n".join(lines) or "no trials yet")
    if asked.report:
        optimal = (value.get("status") or {}).get("currentOptimalTrial") or {}
        chosen = _optimal(optimal, experiment) if optimal.get("bestTrialName") else None
        report.write(
            Path(asked.report),
            name=asked.name,
            objective=experiment.objective,
            maximize=experiment.maximize,
            algorithm=experiment.algorithm,
            parameters=experiment.parameters,
            trials=found,
            verdict=": ".join(condition(value)),
            command=train_command(experiment, chosen, []) if chosen else "",
        )
        print(f"isotrain: wrote {asked.report}", file=sys.stderr)
    return 0


def delete(asked: argparse.Namespace) -> int:
    """Deletes an Experiment, and waits until it is gone."""
    cluster = Cluster(asked.context, asked.namespace)
    if asked.unfinished:
        value = cluster.experiment(asked.name)
        state = condition(value)[0] if value is not None else "not there"
        if value is None or state in ("Succeeded", "Failed"):
            print(f"isotrain: the Experiment {asked.name} is {state}: nothing to delete", file=sys.stderr)
            return 0
    try:
        cluster.delete(asked.name)
    except Status as status:
        if status.code == 404:
            raise InputError(f"there is no Experiment {asked.name} in the namespace {cluster.namespace}") from status
        raise UnreachableError(f"cannot delete {asked.name}: {status.code} {status.message}") from status
    end = time.monotonic() + asked.timeout
    while cluster.experiment(asked.name) is not None:
        if time.monotonic() > end:
            raise UnreachableError(f"{asked.name} is still being deleted after {asked.timeout:g} s")
        time.sleep(0.5)
    print(f"isotrain: deleted the Experiment {asked.name} from {cluster.namespace}", file=sys.stderr)
    return 0


def _differences(ours: Any, theirs: Any, place: str) -> Any:
    """Places where what we want is not what is there; defaults that the cluster adds do not count."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from _differences(value, theirs.get(key), f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(theirs) >= len(ours):
        if len(theirs) > len(ours) and not place.endswith("metricStrategies"):
            yield place
        for index, value in enumerate(ours):
            yield from _differences(value, theirs[index], f"{place}[{index}]")
    elif ours != theirs and not (theirs is None and not ours and "trialSpec" not in place):
        yield place  # Katib's own fields lose their zero values on the way: retain: false is not kept
