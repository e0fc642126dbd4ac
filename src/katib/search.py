"""An Experiment on this machine: trials as processes, points from Optuna, decisions as Katib makes them."""

import random
import re
import shutil
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.numbers import format_number
from katib import collector, suggestion, trial_processes
from katib.collector import EarlyStopper, Entry, Unreadable
from katib.experiment import Experiment, parse_number
from katib.trial_processes import Processes
from katib.trials import ENDED, FAILED, Store, Trial

# Seconds between looks at the trials: often while one is young, so that short ones do not wait.
QUICK, SLOW, YOUNG = 0.005, 0.05, 1.0


@dataclass
class Active:
    """A trial that runs."""

    trial: Trial
    processes: Processes
    slot: int
    stopper: EarlyStopper | None
    began: float
    offset: int = 0
    stopped: bool = False
    broken: str = ""
    deadline: float | None = None
    overdue: bool = False
    terminated: float | None = field(default=None)


class Search:
    """Runs an Experiment to its end, or until it is interrupted; what is finished is on disk."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        more: Sequence[str] = (),
        mounts: dict[str, Path] | None = None,
        max_trials: int | None = None,
        parallel: int | None = None,
        deadline: float | None = None,
        told: Callable[[list[Trial]], None] = lambda trials: None,
    ) -> None:
        """Opens the search's folder.

        Args:
            experiment: checked.
            folder: of the search; one that holds this search goes on.
            more: overrides to add to the trials' command line.
            mounts: local folders for paths that containers mount.
            max_trials, parallel: instead of the file's.
            deadline: seconds after which a trial is ended as failed; None takes the file's activeDeadlineSeconds.
            told: is given all trials whenever one begins or ends.

        Raises:
            InputError: what cannot run here, or another search's folder.
        """
        if re.search(r"[^\w./@%+,:=-]", str(folder)):
            raise InputError(
                f"{folder}: Katib's shell takes paths without quotes, so the search's folder must be named without blanks and "
                "symbols; choose one with --folder"
            )
        trial_processes.refuse_what_cannot_run(experiment)
        suggestion.refuse_what_cannot_run(experiment)
        self.experiment, self.folder, self.more, self.told = experiment, folder, list(more), told
        self.max_trials = max_trials or experiment.count("maxTrialCount")
        self.parallel = parallel or experiment.parallel
        self.max_failed = experiment.count("maxFailedTrialCount")
        self.deadline = deadline
        self.distributions = suggestion.distributions(experiment)
        # An override of what a parameter sets fixes it.
        given = dict(each.split("=", 1) for each in self.more if "=" in each)
        self.fixed = {name: given[key] for key, name in trial_processes.keys(experiment).items() if key in given}
        for name in self.fixed:
            del self.distributions[name]
        self.store = Store(folder, experiment, self.more)
        mounts = mounts or {}
        self.mounts = {path: mounts.get(path, folder / path.strip("/")) for path in trial_processes.mounted(experiment)}
        for path in self.mounts.values():
            path.mkdir(parents=True, exist_ok=True)
        self.study = self.store.study(suggestion.sampler(experiment, len(self.store.trials)))
        self.rungs = suggestion.Rungs(experiment) if experiment.algorithm == "hyperband" else None
        self.active: list[Active] = []
        self.leaving = False

    # --- the loop

    def run(self) -> tuple[str, str]:
        """Runs trials until the Experiment is completed.

        Returns:
            Its condition, Succeeded or Failed, and Katib's reason for it.
        """
        self._take_up()
        self.told(self.store.trials)
        while True:
            verdict = self.verdict()
            if verdict is not None and not self.active:
                return verdict
            if verdict is not None:
                self._end_rest()
            else:
                while len(self.active) < self._wanted() and self._begin():
                    pass
                if not self.active and self.verdict() is None:
                    return "Succeeded", "ExperimentSuggestionEndReached"
            now = time.monotonic()
            time.sleep(QUICK if any(now - each.began < YOUNG for each in self.active) else SLOW)
            for each in list(self.active):
                self._look(each)

    def verdict(self) -> tuple[str, str] | None:
        """Whether the Experiment is completed, in Katib's order: goal, failures, number of trials."""
        trials = self.store.trials
        best, goal = self.store.best(), self.experiment.goal
        sign = -1 if self.experiment.maximize else 1
        if goal is not None and best is not None and sign * (best.value or 0.0) <= sign * goal:
            return "Succeeded", "ExperimentGoalReached"
        failed = sum(each.status in FAILED for each in trials)
        if self.max_failed is not None and failed and failed >= self.max_failed:
            return "Failed", "ExperimentFailed"
        if self.max_trials is not None and sum(each.status in ENDED for each in trials) >= self.max_trials:
            return "Succeeded", "ExperimentMaxTrialsReached"
        return None

    def interrupt(self) -> None:
        """Ends what runs with SIGTERM, so that trials write their checkpoints; they go on next time."""
        for each in self.active:
            each.processes.terminate()
        end = time.monotonic() + max((each.processes.launch.grace for each in self.active), default=0.0)
        for each in self.active:
            if not each.processes.wait(max(0.1, end - time.monotonic())):
                each.processes.kill()
        self.active.clear()

    def _wanted(self) -> int:
        """How many trials should run now."""
        if self.max_trials is None:
            return self.parallel
        ended = sum(each.status in ENDED for each in self.store.trials)
        return min(self.parallel, self.max_trials - ended)

    # --- beginning

    def _take_up(self) -> None:
        """Goes on with the trials that ran when the search was killed: those still there are watched, others start again."""
        for trial in [each for each in self.store.trials if each.status not in ENDED]:
            slot = len(self.active)
            launch = self._launch(trial, slot)
            processes = Processes.adopt(trial.processes, launch)
            if processes is None:
                trial_processes.kill_strays(trial.name)
                processes = self._start(trial, launch, slot)
            self._watch(trial, processes, slot)

    def _begin(self) -> bool:
        """Starts one trial; False if there is none to start now."""
        place: dict[str, Any] | None = None
        if self.rungs is not None:
            rows = [
                {"place": each.place, "name": each.name, "assignments": each.assignments, "value": each.value}
                | {"ended": each.status in ENDED}
                for each in self.store.trials
            ]
            place = self.rungs.next(rows)
            if place is None:
                return False
        if self.experiment.algorithm == "grid":
            tried = [each.assignments for each in self.store.trials]
            points = ({**each, **self.fixed} for each in suggestion.grid(self.experiment))
            fixed = next((each for each in points if each not in tried), None)
            if fixed is None:
                return False
            place = {"fixed": fixed, "parent": None}
        number_, assignments = self._ask(place)
        name = f"{self.experiment.name}-{''.join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=8))}"
        trial = Trial(name, number_, "Running", assignments, place=place or {}, rule=self._rule(), started=_now())
        taken = {each.slot for each in self.active}
        slot = next(index for index in range(self.parallel) if index not in taken)
        launch = self._launch(trial, slot)
        if place and place["parent"]:
            self._go_on_from(place["parent"], name)
        self.store.add(trial)
        self._watch(trial, self._start(trial, launch, slot), slot)
        self.told(self.store.trials)
        return True

    def _ask(self, place: dict[str, Any] | None) -> tuple[int, dict[str, str]]:
        fixed = (place or {}).get("fixed", {})
        if fixed:
            values = {
                each.name: suggestion.typed(each, fixed[each.name])
                for each in self.experiment.parameters
                if each.name in fixed and each.name not in self.fixed
            }
            self.study.enqueue_trial(values)
            fixed = {name: value for name, value in fixed.items() if name not in self.fixed}
        asked = self.study.ask({**self.distributions, **suggestion.widened(self.distributions, fixed)})
        assignments = {name: suggestion.written(value) for name, value in asked.params.items()} | fixed | self.fixed
        return asked.number, {each.name: assignments[each.name] for each in self.experiment.parameters}

    def _rule(self) -> dict[str, Any] | None:
        if self.experiment.early_stopping != "medianstop":
            return None
        settings = self.experiment.stopping_settings
        rule = collector.medianstop(
            [each.history for each in self.store.trials if each.status == "Succeeded"],
            self.experiment.objective,
            self.experiment.maximize,
            int(settings.get("min_trials_required", "3")),
            int(settings.get("start_step", "4")),
        )
        return None if rule is None else vars(rule)

    def _launch(self, trial: Trial, slot: int) -> trial_processes.Launch:
        try:
            return trial_processes.launch(
                self.experiment,
                trial.name,
                trial.assignments,
                self.folder / "trials" / trial.name,
                self.mounts,
                self.experiment.early_stopping != "" and trial.rule is not None,
                self.more,
                (slot, self.parallel),
            )
        except ValueError as error:
            raise InputError(str(error)) from error

    def _start(self, trial: Trial, launch: trial_processes.Launch, slot: int) -> Processes:
        launch.metrics_file.unlink(missing_ok=True)
        return Processes.start(launch, (slot, self.parallel))

    def _watch(self, trial: Trial, processes: Processes, slot: int) -> None:
        stopper = None
        if trial.rule is not None:
            rule = collector.StopRule(**trial.rule)
            style = self.experiment.metrics_format
            stopper = EarlyStopper(rule, self.experiment.maximize, self.experiment.filters, style)
        deadline = self.deadline or processes.launch.deadline
        self.active.append(Active(trial, processes, slot, stopper, time.monotonic(), deadline=deadline))
        self.store.running(trial, processes.ids())

    def _go_on_from(self, parent: str, name: str) -> None:
        """Gives a trial of a later rung a copy of its parent's run, where train.py would go on from it."""
        source, target = self.store.run_of(parent, self.mounts), self.store.run_of(name, self.mounts)
        if source is None or target is None or not (source / "checkpoints").is_dir() or target.exists():
            return
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".lock*"))

    # --- watching

    def _look(self, each: Active) -> None:
        ended = each.processes.ended()
        if each.stopper is not None and not each.stopped and not each.broken:
            self._follow(each)
        if ended is not None and (each.terminated is None or not each.processes.alive()):
            self._end(each, ended)
            return
        seconds = time.monotonic() - each.began
        if each.deadline is not None and seconds > each.deadline and each.terminated is None:
            each.overdue, each.terminated = True, time.monotonic()
            each.processes.terminate()
        if each.terminated is not None and time.monotonic() - each.terminated > each.processes.launch.grace:
            each.processes.kill()

    def _follow(self, each: Active) -> None:
        """Reads new lines, and stops the trial when its rule says so."""
        path = each.processes.launch.metrics_file
        try:
            if path.stat().st_size <= each.offset:
                return
            with path.open("rb") as file:
                file.seek(each.offset)
                data = file.read()
        except OSError:
            return
        whole = data.rfind(b"\n") + 1
        each.offset += whole
        assert each.stopper is not None
        for line in data[:whole].decode(errors="replace").split("\n")[:-1]:
            try:
                if each.stopper.stops(line):
                    each.stopped, each.terminated = True, time.monotonic()
                    each.processes.stop_early()
                    return
            except Unreadable as error:
                each.broken = str(error)
                each.terminated = time.monotonic()
                each.processes.terminate()
                return

    def _end_rest(self) -> None:
        """The Experiment is completed: what still runs is ended, as Killed."""
        for each in self.active:
            if each.terminated is None:
                each.terminated, self.leaving = time.monotonic(), True
                each.processes.terminate()

    def _end(self, each: Active, code: int) -> None:
        self.active.remove(each)
        each.processes.kill()  # what its shell left behind
        entries, unreadable = self._entries(each)
        status, reason = self._status(each, code, entries, unreadable)
        metrics: dict[str, dict[str, str]] = {}
        if status in ("Succeeded", "EarlyStopped"):
            metrics = collector.observation(entries, self.experiment.metrics)
        text = ""
        if metrics:
            text = collector.chosen(
                metrics[self.experiment.objective], self.experiment.strategies[self.experiment.objective]
            )
        value = parse_number(text)
        if metrics and value is None:
            reason = (
                f"{self.experiment.objective} is {text!r}, which is no number: on a cluster every later call of the "
                "algorithm's service fails (kubeflow/katib#2723)"
            )
        history = [
            found
            for entry in sorted(entries, key=lambda entry: collector.go_time(entry.time) or (0.0, 0))
            if entry.name == self.experiment.objective and (found := parse_number(entry.value)) is not None
        ]
        trial = each.trial.but(
            status=status,
            reason=reason,
            value=value,
            metrics=metrics,
            history=history,
            curve=[(entry.time, entry.value) for entry in entries if entry.name == self.experiment.objective],
            ended=_now(),
            exit_code=code,
            processes=[],
        )
        self.store.end(trial, self.study)
        self.told(self.store.trials)

    def _entries(self, each: Active) -> tuple[list[Entry], str]:
        try:
            text = each.processes.launch.metrics_file.read_bytes().decode(errors="replace")  # \r is no line break
        except OSError:
            return [], "there is no metrics file"
        try:
            found = collector.parse(
                text, self.experiment.metrics, self.experiment.metrics_format, self.experiment.filters
            )
            return found, ""
        except Unreadable as error:
            return [], str(error)

    def _status(self, each: Active, code: int, entries: list[Entry], unreadable: str) -> tuple[str, str]:
        """What Katib would make of it, and why."""
        objective = self.experiment.objective
        latest = collector.observation(entries, [objective])[objective]["latest"]
        if each.overdue:
            return "Failed", f"DeadlineExceeded: it ran longer than {each.deadline:g} s"
        if each.stopped:
            return (
                "EarlyStopped",
                f"{objective} was worse than {format_number(each.trial.rule['value'], 6)}" if each.trial.rule else "",
            )
        if self.leaving and each.terminated is not None:
            return "Killed", "the Experiment was completed"
        if each.broken or (unreadable and code == 0):
            return "Failed", f"the metrics collector fails: {each.broken or unreadable}"
        succeeded = code == 0
        if trial_processes.meets(self.experiment, True, succeeded):
            if latest == collector.UNAVAILABLE:
                return "MetricsUnavailable", f"{objective} was never reported as Katib reads it"
            return "Succeeded", ""
        return "Failed", f"exit status {code}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
