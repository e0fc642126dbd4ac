"""The trials of a local search on disk: Optuna's storage, and trials.jsonl for all other programs.

A row is appended to trials.jsonl, and synced, when a trial starts, when its processes are known and when it ends; the last
row of a trial counts. When a search opens or closes its folder, one row of each trial is left.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from config import files, parsing
from config.errors import InputError, InUseError, ResourceError, first_line
from config.masking import mask_secrets
from config.syncing import make_folder
from config.system_errors import to_expected_error
from katib.documents import Document
from katib.experiment import Experiment, trial_command
from katib.shell_command import train_overrides
from runs.fields import is_number

ENDED = ("Succeeded", "Failed", "EarlyStopped", "MetricsUnavailable", "Killed")
FAILED = ("Failed", "MetricsUnavailable")
STORAGE, ROWS, SPEC_FILE = "optuna.db", "trials.jsonl", "experiment.json"
LOCK, OWNER = ".lock", ".lock.json"
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "status", "reason", "started", "ended"), str),
    **dict.fromkeys(("assignments", "metrics", "position"), dict),
    **dict.fromkeys(("history", "curve"), list),
    **{"number": int, "value": int | float | None, "exit_code": int | None, "rule": dict | None},
}
COUNTS = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        name: name of the trial.
        number: Optuna's number of the trial.
        status: Running, or one of `ENDED`, as Katib names them.
        assignments: value of each parameter, as text.
        value: the objective by its strategy; None without a value.
        metrics: min, max and latest of each metric, as text.
        history: the objective's values, by time.
        curve: (time, value) of the objective, as reported.
        reason: why it ended without success.
        started, ended: times in UTC.
        exit_code: exit code of its shell.
        rule: the early-stopping rule that it started with.
        position: of hyperband and asha: bracket, rung, parent (the key `place` in trials.jsonl).
        processes: process ids and creation times, while it runs.
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
    position: dict[str, Any] = field(default_factory=dict)
    processes: list[tuple[int, float]] = field(default_factory=list)

    def to_row(self) -> dict[str, Any]:
        """Return its row of trials.jsonl, without processes."""
        row = {"place" if key == "position" else key: value for key, value in dataclasses.asdict(self).items()}
        row.pop("processes")
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Trial":
        """Return the trial of a row of trials.jsonl.

        Raises:
            TypeError: the row has an unknown field, lacks one, or has a value of another type.
        """
        fields = dict(row)
        fields["position"] = fields.pop("place", {})
        for key in ("curve", "processes"):
            fields[key] = [tuple(pair) for pair in fields.get(key, [])]
        trial = cls(**fields)
        for name, types in _TYPES.items():
            if not isinstance(value := getattr(trial, name), types) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}")
        if trial.status not in ("Running", *ENDED):
            raise TypeError(f"status is {trial.status!r}")
        texts: list[Any] = [*trial.assignments.values(), *(text for pair in trial.curve for text in pair)]
        texts += [text for strategies in trial.metrics.values() for text in dict(strategies).values()]
        numbers: list[Any] = list(trial.history)
        for values, kind, is_kind in (
            (texts, "text", lambda value: isinstance(value, str)),
            (numbers, "number", is_number),
        ):
            if invalid := [value for value in values if not is_kind(value)]:
                raise TypeError(f"{invalid[0]!r} is no {kind}")
        if [len(pair) for pair in (*trial.curve, *trial.processes)] != [2] * (len(trial.curve) + len(trial.processes)):
            raise ValueError("curve and processes must have pairs")
        return trial


class Store:
    """The folder of a search, which only one process at a time can open."""

    def __init__(self, folder: Path, experiment: Experiment, overrides: Sequence[str], wait: bool = False) -> None:
        """Open or create the folder.

        Args:
            folder: the search's folder.
            experiment: the Experiment that it belongs to.
            overrides: overrides added to the trials' command line.
            wait: wait while another process has the folder.

        Raises:
            InUseError: another process has the folder.
            InputError: the folder belongs to another search.
        """
        self.folder, self.experiment, self.overrides = folder, experiment, list(overrides)
        self.superseded = False  # whether trials.jsonl has rows that do not count any more
        _check_folder(folder)
        make_folder(folder)
        self.lock = FileLock(folder / LOCK)
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            if not wait:
                message = f"search folder {folder} is in use by {_owner(folder)}"
                raise InUseError(f"{message}; wait (--wait), or choose another --folder") from error
            print(f"isotrain: waiting for {_owner(folder)}, which uses {folder}", file=sys.stderr, flush=True)
            self.lock.acquire(poll_interval=0.5)
        files.write_json(folder / OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
        try:
            self._check_same_search()
            self.trials: list[Trial] = read_trials(folder)
            if (folder / ROWS).exists():
                self._compact()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave one row of each trial in trials.jsonl, and release the folder."""
        if self.superseded:
            with contextlib.suppress(OSError):  # all rows are on the disk already
                self._compact()
        (self.folder / OWNER).unlink(missing_ok=True)
        self.lock.release()

    def _check_same_search(self) -> None:
        """Refuse the folder of a search with another space or another command."""
        spec = {key: value for key, value in self.experiment.mapping("spec").items() if key not in COUNTS}
        spec["objective"] = {**self.experiment.mapping("spec", "objective"), "goal": None}
        # Counts and goal may change, as in Katib.
        # Secrets are neither stored nor compared.
        content = mask_secrets({"name": self.experiment.name, "spec": spec, "overrides": self.overrides})
        current = json.loads(json.dumps(content))
        path = self.folder / SPEC_FILE
        stored = files.read_json(path)
        previous = mask_secrets(stored)
        if not path.exists() or (stored != previous == current):  # with secrets: written before December 2026
            files.write_text(path, json.dumps(content, indent=1))
            return
        if previous != current:
            keys = [key for key in ("name", "overrides") if previous.get(key) != current[key]]
            old, new = previous.get("spec", {}), current["spec"]
            keys += [f"spec.{key}" for key in {**old, **new} if old.get(key) != new.get(key)]
            raise InputError(
                f"{self.folder} belongs to another search: {', '.join(keys)} differ; use the file that the search was "
                "started with, or choose another --folder"
            )

    def study(self, sampler: Any) -> Any:
        """Open or create Optuna's study, and bring it up to date with the trials."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = self.folder / STORAGE
        if path.exists():
            parsing.check_regular(path)
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            study = optuna.create_study(
                storage=storage,
                sampler=sampler,
                study_name=self.experiment.name,
                direction="maximize" if self.experiment.maximize else "minimize",
                load_if_exists=True,
            )
            rows = study.get_trials(deepcopy=False)
        except Exception as error:
            if isinstance(to_expected_error(error), ResourceError):
                raise
            raise InputError(
                f"Optuna cannot use {path}: {first_line(error)}; restore it, or search in another --folder"
            ) from error
        trials = {trial.number: trial for trial in self.trials}
        ended = {row.number: row.state.is_finished() for row in rows}
        for trial in self.trials:
            # A row is appended after Optuna has given the point, and before Optuna is told the result.
            if trial.number not in ended or (ended[trial.number] and trial.status not in ENDED):
                problem = "has ended" if trial.number in ended else "is missing"
                raise InputError(
                    f"{path}: trial {trial.number}, which is {trial.status} in {ROWS} ({trial.name}), {problem}; restore both "
                    "files, or search in another --folder"
                )
        for row in rows:
            if row.state.is_finished():
                continue
            # The search was killed between asking for a point and starting its trial, or before telling its result.
            if row.number not in trials:
                storage.set_trial_state_values(row._trial_id, optuna.trial.TrialState.FAIL)
            elif trials[row.number].status in ENDED:
                _tell(study, trials[row.number])
        return study

    def add(self, trial: Trial) -> None:
        """Add a trial that starts."""
        self.trials.append(trial)
        self._append(trial)

    def set_processes(self, trial: Trial, processes: list[tuple[int, float]]) -> None:
        """Store the processes of a running trial."""
        self._replace(dataclasses.replace(trial, processes=processes))

    def end(self, trial: Trial, study: Any) -> None:
        """Store a trial that has ended, and tell Optuna."""
        self._replace(trial)
        _tell(study, trial)

    def best(self) -> Trial | None:
        """Return the trial with the best value so far."""
        return best_trial(self.trials, self.experiment.maximize)

    def run_folder(self, name: str, mounts: Mapping[str, Path]) -> Path | None:
        """Return the local folder of a trial's run; None if its command does not set hydra.run.dir.

        Args:
            name: name of the trial.
            mounts: local folders of mount paths.
        """
        trial = next((trial for trial in self.trials if trial.name == name), None)
        assignments = trial.assignments if trial else {row.name: "0" for row in self.experiment.parameters}
        overrides = train_overrides(trial_command(self.experiment, name, assignments, "local"))
        folders = [word.removeprefix("hydra.run.dir=") for word in overrides if word.startswith("hydra.run.dir=")]
        if not folders:
            return None
        for path, local_folder in mounts.items():
            if folders[-1] == path or folders[-1].startswith(path + "/"):
                return local_folder / folders[-1][len(path) :].lstrip("/")
        return Path(folders[-1])

    def _replace(self, trial: Trial) -> None:
        self.trials = [trial if row.name == trial.name else row for row in self.trials]
        self.superseded = True
        self._append(trial)

    def _append(self, trial: Trial) -> None:
        files.append_lines(self.folder / ROWS, [_to_line(trial)])

    def _compact(self) -> None:
        """Leave one row of each trial, unless there is no other."""
        text = "".join(f"{_to_line(trial)}\n" for trial in self.trials)
        if (self.folder / ROWS).read_bytes() != text.encode():
            files.write_text(self.folder / ROWS, text)
        self.superseded = False


def _check_folder(folder: Path) -> None:
    """Check that a folder is new, empty, or of a search.

    Raises:
        InputError: it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another --folder")
    if not folder.exists() or {"name", "spec"} <= files.read_json(folder / SPEC_FILE).keys():
        return
    # Another process may have started the same search just now.
    foreign = sorted(file.name for file in folder.iterdir() if not file.name.startswith((LOCK, f".{LOCK}")))
    if foreign and not (folder / SPEC_FILE).exists():
        message = f"{folder} is not the folder of a search (it contains {foreign[0]})"
        raise InputError(f"{message}; choose another --folder")
    if foreign:
        raise InputError(f"{folder / SPEC_FILE} is damaged, or not of a search; choose another --folder")


def _to_line(trial: Trial) -> str:
    return json.dumps({**trial.to_row(), "processes": trial.processes})


def read_trials(folder: Path) -> list[Trial]:
    """Read the trials of a search's folder, in the order in which they started.

    An incomplete last row is ignored: a killed process or a power cut left it, before what it reports was used.

    Raises:
        InputError: trials.jsonl is damaged.
    """
    path = folder / ROWS
    if not path.exists():
        return []
    trials: dict[str, Trial] = {}
    for index, line in enumerate(parsing.read_bytes(path).splitlines(keepends=True), 1):
        try:
            trial = Trial.from_row(parsing.parse_json(line))
            trials[trial.name] = trial
        except (ValueError, TypeError, RecursionError) as error:
            if not line.endswith(b"\n"):
                break
            raise InputError(f"{path}, line {index}: not a trial: {error}; remove the line") from error
    return list(trials.values())


def best_trial(trials: Sequence[Trial], maximize: bool) -> Trial | None:
    """Return the trial with the best value, EarlyStopped ones included as in Katib; None without values."""
    valued = [trial for trial in trials if trial.value is not None]
    sign = -1 if maximize else 1
    return min(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)


def read_experiment(folder: Path) -> Experiment | None:
    """Read the Experiment of a search's folder, without counts; None if it is not the folder of a search."""
    try:
        content = files.read_json(folder / SPEC_FILE)
        value = {"metadata": {"name": content["name"]}, "spec": content["spec"]}
    except KeyError:
        return None
    return Experiment(Document(str(folder), value, {}))


def _owner(folder: Path) -> str:
    owner = files.read_json(folder / OWNER)
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"


def _tell(study: Any, trial: Trial) -> None:
    import optuna

    states = optuna.trial.TrialState
    # Optuna also learns from early-stopped trials: their value is the best that they reached.
    state = states.COMPLETE if trial.value is not None else states.FAIL
    with contextlib.suppress(ValueError):  # told before the search was killed
        storage_id = study.get_trials(deepcopy=False)[trial.number]._trial_id
        study._storage.set_trial_user_attr(storage_id, "name", trial.name)
        study._storage.set_trial_user_attr(storage_id, "status", trial.status)
        study.tell(trial.number, trial.value, state=state)
