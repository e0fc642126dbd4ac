"""A search's trials on disk: Optuna's storage, and trials.jsonl for everybody else."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from config import files
from config.errors import InputError
from katib import shell_command
from katib.documents import Document
from katib.experiment import Experiment, substitute, trial_of

ENDED = ("Succeeded", "Failed", "EarlyStopped", "MetricsUnavailable", "Killed")
FAILED = ("Failed", "MetricsUnavailable")
STORAGE, ROWS, SPEC_FILE = "optuna.db", "trials.jsonl", "experiment.json"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        name: of the trial.
        number: Optuna's.
        status: Running, or one of `ENDED`, as Katib calls them.
        assignments: value of each parameter, as text.
        value: the objective by its strategy; None without one.
        metrics: min, max and latest of each metric, as texts.
        history: the objective's values, by time.
        curve: (time, value) of the objective, as reported.
        reason: why it ended as it did, if not well.
        started, ended: times in UTC.
        exit_code: of its shell.
        rule: the early-stopping rule it began with.
        place: of hyperband: bracket, rung, parent.
        processes: ids of running ones, and when they were created.
    """

    name: str
    number: int
    status: str
    assignments: dict[str, str]
    value: float | None = None
    metrics: dict[str, dict[str, str]] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)
    curve: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    rule: dict[str, Any] | None = None
    place: dict[str, Any] = field(default_factory=dict)
    processes: list[tuple[int, float]] = field(default_factory=list)

    def but(self, **changes: Any) -> "Trial":
        """The trial with other values."""
        return dataclasses.replace(self, **changes)

    def row(self) -> dict[str, Any]:
        """Its line of trials.jsonl."""
        row = dataclasses.asdict(self)
        row.pop("processes")
        return row


class Store:
    """The folder of a search. One process at a time has it."""

    def __init__(self, folder: Path, experiment: Experiment, more: Sequence[str]) -> None:
        """Opens or makes it.

        Raises:
            InputError: another search's folder, or another process runs the search.
        """
        self.folder, self.experiment, self.more = folder, experiment, list(more)
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{folder}: another process runs this search") from error
        self._same()
        self.trials: list[Trial] = self._read()

    def close(self) -> None:
        """Lets another process have the folder."""
        self.lock.release()

    def _same(self) -> None:
        """Refuses the folder of a search over another space, or with another command."""
        spec = dict(self.experiment.mapping("spec"))
        for count in ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"):
            spec.pop(count, None)  # Katib, too, lets these change
        spec["objective"] = {**self.experiment.mapping("spec", "objective"), "goal": None}
        now = {"name": self.experiment.name, "spec": spec, "overrides": self.more}
        path = self.folder / SPEC_FILE
        if path.exists():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is damaged: choose another --folder") from error
            if before != json.loads(json.dumps(now)):
                keys = [key for key in ("name", "overrides") if before.get(key) != now[key]]
                keys += [
                    f"spec.{key}"
                    for key in {**before.get("spec", {}), **spec}
                    if before.get("spec", {}).get(key) != json.loads(json.dumps(spec.get(key)))
                ]
                raise InputError(
                    f"{self.folder} holds another search: {', '.join(keys)} differ; go on with the file that it began "
                    "with, or choose another --folder"
                )
        else:
            foreign = [each.name for each in self.folder.iterdir() if each.name not in (".lock", ROWS, STORAGE)]
            if foreign and not (self.folder / STORAGE).exists():
                raise InputError(
                    f"{self.folder} is no search's folder (it has {sorted(foreign)[0]}): choose another --folder"
                )
            files.write_text(path, json.dumps(now, indent=1))

    def study(self, sampler: Any) -> Any:
        """Optuna's study, in a SQLite file beside trials.jsonl."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder / STORAGE}")
        direction = "maximize" if self.experiment.maximize else "minimize"
        study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=self.experiment.name,
            direction=direction,
            load_if_exists=True,
        )
        ours = {each.number: each for each in self.trials}
        for each in study.get_trials(deepcopy=False):
            if each.state.is_finished():
                continue
            # The search was killed between asking and beginning, or between an end and telling of it.
            if each.number not in ours:
                storage.set_trial_state_values(each._trial_id, optuna.trial.TrialState.FAIL)
            elif ours[each.number].status in ENDED:
                _tell(study, ours[each.number])
        return study

    def add(self, trial: Trial) -> None:
        """A trial that begins."""
        self.trials.append(trial)
        self._write()

    def running(self, trial: Trial, processes: list[tuple[int, float]]) -> None:
        """Notes a trial's processes."""
        self._replace(trial.but(processes=processes))

    def end(self, trial: Trial, study: Any) -> None:
        """A trial that has ended."""
        self._replace(trial)
        _tell(study, trial)

    def best(self) -> Trial | None:
        """The trial with the best value so far."""
        return best_of(self.trials, self.experiment.maximize)

    def run_of(self, name: str, mounts: Mapping[str, Path]) -> Path | None:
        """The local folder of a trial's run; None if its command does not name one."""
        trial = next((each for each in self.trials if each.name == name), None)
        assignments = trial.assignments if trial else {each.name: "0" for each in self.experiment.parameters}
        workload = substitute(self.experiment, name, assignments, "local")
        found = shell_command.overrides(shell_command.script(trial_of(self.experiment, workload).line)) or []
        folders = [each.removeprefix("hydra.run.dir=") for each in found if each.startswith("hydra.run.dir=")]
        if not folders:
            return None
        for path, place in mounts.items():
            if folders[-1] == path or folders[-1].startswith(path + "/"):
                return place / folders[-1][len(path) :].lstrip("/")
        return Path(folders[-1])

    # --- the file

    def _replace(self, trial: Trial) -> None:
        self.trials = [trial if each.name == trial.name else each for each in self.trials]
        self._write()

    def _write(self) -> None:
        rows = [{**each.row(), "processes": each.processes} for each in self.trials]
        files.write_text(self.folder / ROWS, "".join(json.dumps(row) + "\n" for row in rows))

    def _read(self) -> list[Trial]:
        return read(self.folder)


def read(folder: Path) -> list[Trial]:
    """The trials of a search's folder.

    Raises:
        InputError: trials.jsonl is damaged.
    """
    path = folder / ROWS
    if not path.exists():
        return []
    found = []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            row["processes"] = [tuple(each) for each in row.get("processes", [])]
            row["curve"] = [tuple(each) for each in row.get("curve", [])]
            found.append(Trial(**row))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {index}: not a trial: {error}") from error
    return found


def best_of(trials: Sequence[Trial], maximize: bool) -> Trial | None:
    """The trial with the best value, EarlyStopped ones included, as Katib has it; None if there are no values."""
    valued = [each for each in trials if each.value is not None]
    sign = -1 if maximize else 1
    return min(valued, key=lambda each: sign * (each.value or 0.0), default=None)


def experiment_of(folder: Path) -> Experiment | None:
    """The Experiment of a search's folder, without its counts; None if it is no such folder."""
    try:
        found = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
        value = {"metadata": {"name": found["name"]}, "spec": found["spec"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Experiment(Document(str(folder), value, {}))


def _tell(study: Any, trial: Trial) -> None:
    import optuna

    states = optuna.trial.TrialState
    # Optuna learns from trials that were stopped early, too: their value is the best they reached.
    state = states.COMPLETE if trial.value is not None else states.FAIL
    with contextlib.suppress(ValueError):  # told before the search was killed
        storage_id = study.get_trials(deepcopy=False)[trial.number]._trial_id
        study._storage.set_trial_user_attr(storage_id, "name", trial.name)
        study._storage.set_trial_user_attr(storage_id, "status", trial.status)
        study.tell(trial.number, trial.value, state=state)
