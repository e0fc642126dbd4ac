"""An Experiment on this machine: trials as processes, points from Optuna, decisions as Katib makes them."""

import dataclasses
import math
import os
import random
import re
import shutil
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config import process
from config.errors import InputError
from config.numbers import format_number
from katib import asha, collector, hyperband, suggestion, trial_processes
from katib.collector import EarlyStopper, Entry, StopRule, UnreadableMetrics
from katib.experiment import Experiment, parse_number
from katib.experiment_changes import fixed_parameters
from katib.processes import kill_stray_processes
from katib.trial_processes import Launch, TrialProcesses, prepare_launch
from katib.trials import ENDED, FAILED, Store, Trial
from katib.warm_start import WarmStart

# Seconds between polls: QUICK while a trial is younger than YOUNG, so that short trials do not wait.
QUICK, SLOW, YOUNG = 0.005, 0.05, 1.0


@dataclass
class ActiveTrial:
    """A running trial.

    Attributes:
        trial: the trial.
        processes: its processes.
        slot: index among the trials that run.
        stopper: applies its early-stopping rule; None without one.
        started: time of its start, on the monotonic clock.
        deadline: seconds that it may run; None without a limit.
        offset: bytes of the metrics file that the stopper has processed.
        stopped_early: whether its rule stopped it.
        collector_error: why Katib's collector would have failed.
        overdue: whether it exceeded its deadline.
        terminated: time of its SIGTERM, on the monotonic clock.
    """

    trial: Trial
    processes: TrialProcesses
    slot: int
    stopper: EarlyStopper | None
    started: float
    deadline: float | None
    offset: int = 0
    stopped_early: bool = False
    collector_error: str = ""
    overdue: bool = False
    terminated: float | None = None


class Search:
    """Runs an Experiment until it is completed or interrupted; ended trials are stored on disk."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        overrides: Sequence[str] = (),
        mounts: dict[str, Path] | None = None,
        max_trials: int | None = None,
        parallel: int | None = None,
        deadline: float | None = None,
        wait: bool = False,
        on_change: Callable[[list[Trial]], None] = lambda trials: None,
        warm_start: WarmStart | None = None,
    ) -> None:
        """Open the search's folder.

        Args:
            experiment: a checked Experiment.
            folder: folder of the search; an existing search is resumed.
            overrides: overrides to add to the trials' command line; one of a parameter's key fixes the parameter.
            mounts: local folders for paths that containers mount.
            max_trials, parallel: in place of the file's counts.
            deadline: seconds after which a trial fails; None takes the file's activeDeadlineSeconds.
            wait: wait while another process uses the folder.
            on_change: called with all trials when one starts or ends.
            warm_start: starts those trials that it can (`--warm`).

        Raises:
            InUseError: another process uses the folder.
            InputError: the Experiment needs a cluster, or the folder belongs to another search.
        """
        if re.search(r"[^\w./@%+,:=-]", str(folder)):
            message = f"the search folder {folder} has blanks or symbols in its path"
            raise InputError(f"{message}, and Katib passes paths to the shell without quotes; choose another --folder")
        trial_processes.check_local_support(experiment)
        suggestion.check_search_support(experiment)
        self.experiment, self.folder, self.overrides = experiment, folder, list(overrides)
        self.on_change, self.warm_start = on_change, warm_start
        self.environment = dict(os.environ)  # before libraries that the search imports add to it (threadpoolctl)
        self.max_trials = max_trials or experiment.count("maxTrialCount")
        self.parallel = parallel or experiment.parallel
        process.check_processes("--parallel" if parallel else "parallelTrialCount", self.parallel)
        if experiment.algorithm == asha.NAME and self.max_trials is None:
            raise InputError(
                "asha starts new trials until there are maxTrialCount, which the file lacks; add --max-trials N"
            )
        self.max_failed = experiment.count("maxFailedTrialCount")
        self.deadline = deadline
        self.fixed = fixed_parameters(experiment, overrides)
        self.store = Store(folder, experiment, self.overrides, wait)
        mounts = mounts or {}
        paths = trial_processes.mount_paths(experiment)
        self.mounts = {path: mounts.get(path, folder / path.strip("/")) for path in paths}
        for local_folder in self.mounts.values():
            local_folder.mkdir(parents=True, exist_ok=True)
        self.study = self.store.study(suggestion.build_sampler(experiment, len(self.store.trials)))
        schedulers: dict[str, type[hyperband.Scheduler | asha.Scheduler]]
        schedulers = {"hyperband": hyperband.Scheduler, asha.NAME: asha.Scheduler}
        scheduler = schedulers.get(experiment.algorithm)
        self.scheduler = scheduler(experiment) if scheduler else None
        self.active: list[ActiveTrial] = []
        self.completed = False

    # --- the loop

    def run(self) -> tuple[str, str]:
        """Run trials until the Experiment is completed.

        Returns:
            Its condition, Succeeded or Failed, and Katib's reason.
        """
        self._resume()
        self.on_change(self.store.trials)
        while True:
            verdict = self.verdict()
            if verdict is not None and not self.active:
                return verdict
            if verdict is not None:
                for active in self.active:  # they end as Killed
                    if active.terminated is None:
                        active.terminated, self.completed = time.monotonic(), True
                        active.processes.terminate()
            else:
                ended = sum(trial.status in ENDED for trial in self.store.trials)
                target = min(self.parallel, (self.max_trials or math.inf) - ended)
                while len(self.active) < target and self._start_next():
                    pass
                if not self.active and self.verdict() is None:
                    return "Succeeded", "ExperimentSuggestionEndReached"
            current_time = time.monotonic()
            time.sleep(QUICK if any(current_time - active.started < YOUNG for active in self.active) else SLOW)
            for active in list(self.active):
                self._poll(active)

    def verdict(self) -> tuple[str, str] | None:
        """Return condition and reason once the Experiment is completed; in Katib's order: goal, failures, count."""
        trials = self.store.trials
        best, goal = self.store.best(), self.experiment.goal
        sign = -1 if self.experiment.maximize else 1
        if goal is not None and best is not None and sign * (best.value or 0.0) <= sign * goal:
            return "Succeeded", "ExperimentGoalReached"
        failed = sum(trial.status in FAILED for trial in trials)
        if self.max_failed is not None and failed and failed >= self.max_failed:
            return "Failed", "ExperimentFailed"
        if self.max_trials is not None and sum(trial.status in ENDED for trial in trials) >= self.max_trials:
            return "Succeeded", "ExperimentMaxTrialsReached"
        return None

    def interrupt(self) -> None:
        """End running trials with SIGTERM, so that they write checkpoints; the next call of `run` resumes them."""
        for active in self.active:
            active.processes.terminate()
        end = time.monotonic() + max((active.processes.launch.grace for active in self.active), default=0.0)
        for active in self.active:
            if not active.processes.wait(max(0.1, end - time.monotonic())):
                active.processes.kill()
        self.active.clear()

    # --- starting trials

    def _resume(self) -> None:
        """Continue the trials of a search that was killed: watch those that still run, restart the others."""
        for trial in [trial for trial in self.store.trials if trial.status not in ENDED]:
            slot = len(self.active)
            launch = self._prepare(trial, slot)
            processes = TrialProcesses.adopt(trial.processes, launch)
            if processes is None:
                kill_stray_processes(trial.name)
                processes = self._start(launch, slot)
            self._activate(trial, processes, slot)

    def _start_next(self) -> bool:
        """Start one trial; return False if none can start."""
        position: dict[str, Any] | None = None
        if self.scheduler is not None:
            position = self.scheduler.next_position(self.store.trials)
            if position is None:
                return False
        elif self.experiment.algorithm == "grid":
            previous = [trial.assignments for trial in self.store.trials]
            points = ({**point, **self.fixed} for point in suggestion.grid_points(self.experiment))
            point = next((point for point in points if point not in previous), None)
            if point is None:
                return False
            position = {"fixed": point, "parent": None}
        elif self.experiment.algorithm == "sobol":
            point = suggestion.sobol_point(self.experiment, len(self.store.trials))
            position = {"fixed": {**point, **self.fixed}, "parent": None}
        number, assignments = self._suggest((position or {}).get("fixed", {}))
        suffix = "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=8))
        name = f"{self.experiment.name}-{suffix}"
        rule = self._early_stopping_rule()
        trial = Trial(name, number, "Running", assignments, position=position or {}, rule=rule, started=_timestamp())
        used_slots = {active.slot for active in self.active}
        slot = next(index for index in range(self.parallel) if index not in used_slots)
        launch = self._prepare(trial, slot)
        if position and position["parent"]:
            self._copy_parent_run(position["parent"], name)
        self.store.add(trial)
        self._activate(trial, self._start(launch, slot), slot)
        self.on_change(self.store.trials)
        return True

    def _suggest(self, fixed: dict[str, str]) -> tuple[int, dict[str, str]]:
        """Return Optuna's trial number and the assignments of the next point.

        Args:
            fixed: assignments that the algorithm sets.
        """
        fixed = {name: value for name, value in fixed.items() if name not in self.fixed}
        parameters = self.experiment.parameters
        algorithm = suggestion.LOCAL_ALGORITHMS.get(self.experiment.algorithm, self.experiment.algorithm)
        distributions: dict[str, Any] = {}
        values: dict[str, Any] = {}
        draw_names: dict[str, str] = {}
        for parameter in parameters:
            name = parameter.name
            if name in fixed:
                distributions[name], values[name] = suggestion.fixed_distribution(parameter, fixed[name], algorithm)
            elif name not in self.fixed:
                draw_names[name] = suggestion.draw_name(parameter, algorithm)
                distributions[draw_names[name]] = suggestion.build_distribution(parameter, algorithm)
        if values:
            self.study.enqueue_trial(values)
        row = self.study.ask(distributions)
        assignments = fixed | self.fixed
        for parameter in parameters:
            if parameter.name in draw_names:
                draw = row.params[draw_names[parameter.name]]
                assignments[parameter.name] = suggestion.write_draw(parameter, algorithm, draw)
        return row.number, {parameter.name: assignments[parameter.name] for parameter in parameters}

    def _early_stopping_rule(self) -> dict[str, Any] | None:
        if self.experiment.early_stopping != "medianstop":
            return None
        experiment, settings = self.experiment, self.experiment.stopping_settings
        histories = [trial.history for trial in self.store.trials if trial.status == "Succeeded"]
        min_trials, start_step = int(settings.get("min_trials_required", "3")), int(settings.get("start_step", "4"))
        objective, maximize = experiment.objective, experiment.maximize
        rule = collector.medianstop_rule(histories, objective, maximize, min_trials, start_step)
        return None if rule is None else vars(rule)

    def _prepare(self, trial: Trial, slot: int) -> Launch:
        try:
            folder, mounts = self.folder / "trials" / trial.name, self.mounts
            slots = (slot, self.parallel)
            return prepare_launch(self.experiment, trial, folder, mounts, self.overrides, slots, self.environment)
        except ValueError as error:
            raise InputError(f"cannot start a trial: {error}") from error

    def _start(self, launch: Launch, slot: int) -> TrialProcesses:
        launch.metrics_file.unlink(missing_ok=True)
        return TrialProcesses.start(launch, (slot, self.parallel), self.warm_start)

    def _activate(self, trial: Trial, processes: TrialProcesses, slot: int) -> None:
        stopper, experiment = None, self.experiment
        if trial.rule is not None:
            rule = StopRule(**trial.rule)
            stopper = EarlyStopper(rule, experiment.maximize, experiment.filters, experiment.metrics_format)
        deadline = self.deadline or processes.launch.deadline
        self.active.append(ActiveTrial(trial, processes, slot, stopper, time.monotonic(), deadline))
        self.store.set_processes(trial, processes.ids())

    def _copy_parent_run(self, parent: str, name: str) -> None:
        """Copy the run of a trial's parent (hyperband, asha), from which train.py resumes."""
        source, target = self.store.run_folder(parent, self.mounts), self.store.run_folder(name, self.mounts)
        if source is None or target is None or not (source / "checkpoints").is_dir() or target.exists():
            return
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".lock*"))

    # --- watching trials

    def _poll(self, active: ActiveTrial) -> None:
        code = active.processes.poll()
        if active.stopper is not None and not active.stopped_early and not active.collector_error:
            self._apply_early_stopping(active, active.stopper)
        if code is not None and (active.terminated is None or not active.processes.is_alive()):
            self._end(active, code)
            return
        seconds = time.monotonic() - active.started
        if active.deadline is not None and seconds > active.deadline and active.terminated is None:
            active.overdue, active.terminated = True, time.monotonic()
            active.processes.terminate()
        if active.terminated is not None and time.monotonic() - active.terminated > active.processes.launch.grace:
            active.processes.kill()

    def _apply_early_stopping(self, active: ActiveTrial, stopper: EarlyStopper) -> None:
        """Process new lines of the metrics file, and stop the trial if its rule says so."""
        path = active.processes.launch.metrics_file
        try:
            with path.open("rb") as file:
                file.seek(active.offset)
                data = file.read()
        except OSError:
            return
        length = data.rfind(b"\n") + 1
        active.offset += length
        for line in data[:length].decode(errors="replace").split("\n")[:-1]:
            try:
                if stopper.update(line):
                    active.stopped_early, active.terminated = True, time.monotonic()
                    active.processes.stop_early()
                    return
            except UnreadableMetrics as error:
                active.collector_error, active.terminated = str(error), time.monotonic()
                active.processes.terminate()
                return

    def _end(self, active: ActiveTrial, code: int) -> None:
        self.active.remove(active)
        active.processes.kill()  # processes that its shell left
        active.processes.reap()
        experiment = self.experiment
        entries: list[Entry] = []
        unreadable = ""
        try:
            text = active.processes.launch.metrics_file.read_bytes().decode(errors="replace")  # \r is not a line break
            entries = collector.parse_metrics(text, experiment.metrics, experiment.metrics_format, experiment.filters)
        except OSError:
            unreadable = "the metrics file is missing"
        except UnreadableMetrics as error:
            unreadable = str(error)
        status, reason = self._status(active, code, entries, unreadable)
        metrics: dict[str, dict[str, str]] = {}
        value: float | None = None
        if status in ("Succeeded", "EarlyStopped"):
            metrics = collector.aggregate(entries, experiment.metrics)
            text = collector.apply_strategy(metrics[experiment.objective], experiment.strategies[experiment.objective])
            # Katib's controller parses it with Go, its services with Python.
            value = parse_number(text) if collector.parse_go_float(text) is not None else None
            if value is None:
                reason = (
                    f"{experiment.objective} is not a finite number ({text!r}): on a cluster every further call of the "
                    "algorithm's service fails (kubeflow/katib#2723)"
                )
        reported = [entry for entry in entries if entry.name == experiment.objective]
        by_time = sorted(reported, key=lambda entry: collector.parse_go_time(entry.time) or (0.0, 0))
        trial = dataclasses.replace(
            active.trial,
            status=status,
            reason=reason,
            value=value,
            metrics=metrics,
            history=[number for entry in by_time if (number := parse_number(entry.value)) is not None],
            curve=[(entry.time, entry.value) for entry in reported],
            ended=_timestamp(),
            exit_code=code,
            processes=[],
        )
        self.store.end(trial, self.study)
        self.on_change(self.store.trials)

    def _status(self, active: ActiveTrial, code: int, entries: list[Entry], unreadable: str) -> tuple[str, str]:
        """Return status and reason as Katib's trial controller would."""
        objective = self.experiment.objective
        if active.overdue:
            return "Failed", f"DeadlineExceeded: it ran longer than {active.deadline:g} s"
        if active.stopped_early:
            rule = active.trial.rule
            return "EarlyStopped", f"{objective} was worse than {format_number(rule['value'], 6)}" if rule else ""
        if self.completed and active.terminated is not None:
            return "Killed", "the Experiment was completed"
        if active.collector_error or (unreadable and code == 0):
            return "Failed", f"the metrics collector failed: {active.collector_error or unreadable}"
        if trial_processes.meets_success_condition(self.experiment, code == 0):
            if collector.aggregate(entries, [objective])[objective]["latest"] == collector.UNAVAILABLE:
                return "MetricsUnavailable", f"{objective} was not reported in a form that Katib's collector reads"
            return "Succeeded", ""
        return "Failed", f"exit status {code}"


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
