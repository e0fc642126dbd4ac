"""`python -m katib run`: check, search, show, report."""

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from config import terminal
from config.errors import InputError, SignalInterrupt
from config.numbers import format_number
from katib import findings as said
from katib import report, shell_command, table
from katib.check import check_experiment
from katib.documents import read
from katib.experiment import Experiment, substitute, trial_of
from katib.search import Search
from katib.trials import Trial

COMPLETED_FAILED = 6
# Seconds after which the first trials have begun: what the report needs is imported while they run.
AHEAD = 2.0


def run(asked: argparse.Namespace) -> int:
    """Runs the search of a file.

    Args:
        asked: the command line.

    Returns:
        0 if the Experiment Succeeded, 6 if it Failed.
    """
    experiment = checked(asked.file, asked.no_check)
    for name in ("max_trials", "parallel", "deadline"):
        if getattr(asked, name) is not None and getattr(asked, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0")
    folder = Path(asked.folder or Path("searches") / experiment.name)
    mounts = {}
    for mount in asked.mount:
        path, equals, place = mount.partition("=")
        if not equals or not place:
            raise InputError(f"--mount {mount}: write PATH=DIR")
        mounts[path.rstrip("/")] = Path(place).absolute()
    live = table.LiveTable(
        experiment.objective, experiment.maximize, asked.max_trials or experiment.count("maxTrialCount")
    )
    search = Search(
        experiment,
        folder.absolute(),
        more=asked.overrides,
        mounts=mounts,
        max_trials=asked.max_trials,
        parallel=asked.parallel,
        deadline=asked.deadline,
        told=live.show,
    )
    live.already(search.store.trials)
    for path, place in search.mounts.items():
        print(f"isotrain: {path} is {place} here", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    ahead = threading.Timer(AHEAD, report.import_ahead)
    ahead.daemon = True
    ahead.start()
    try:
        condition, reason = search.run()
    except SignalInterrupt as error:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one does not wait for checkpoints
            signal.signal(number, signal.SIG_DFL)
        running = len(search.active)
        search.interrupt()
        _imported(ahead)
        _report(search, "", folder)
        message = f"interrupted; {running} trial(s) go on when the same command is given again"
        raise SignalInterrupt(error.exit_code - 128, message) from error
    _imported(ahead)
    trials = search.store.trials
    print("\n".join(table.trial_lines(trials, experiment.objective, experiment.maximize, terminal.terminal_width())))
    best = search.store.best()
    if best is not None and best.value is not None:
        print(f"\nbest: {experiment.objective}={format_number(best.value, 6)} {best.name}")
        print(train_command(experiment, best, asked.overrides))
    _report(search, f"{condition}: {reason}", folder)
    print(f"isotrain: the Experiment {condition} ({reason}); {folder / 'report.html'}", file=sys.stderr)
    return 0 if condition == "Succeeded" else COMPLETED_FAILED


def checked(
    file: str, anyway: bool, change: Callable[[Experiment], Experiment] = lambda experiment: experiment
) -> Experiment:
    """The one Experiment of a file, once `check` has said what it finds.

    Args:
        file: its path; `-` reads standard input.
        anyway: takes one that is refused, too.
        change: what is made of it before it is checked.

    Raises:
        InputError: there is none, there are several, or it is refused.
    """
    found = [
        Experiment(each)
        for each in read(file)
        if isinstance(each.value, dict) and each.value.get("kind") == "Experiment"
    ]
    if len(found) != 1:
        raise InputError(f"{file} has {len(found) or 'no'} Experiments, and this takes one")
    experiment = change(found[0])
    findings = [each for each in check_experiment(experiment) if each.level != "note"]
    if findings:
        print(said.text(findings), file=sys.stderr)
    if any(each.level == "error" for each in findings) and not anyway:
        raise InputError(f"{file} is refused: mend it, or add --no-check")
    return experiment


def train_command(experiment: Experiment, trial: Trial, more: Sequence[str]) -> str:
    """What trains with a trial's values: its overrides without those that are the search's own.

    Of a command that is not train.py's, the assignments.
    """
    workload = substitute(experiment, trial.name, trial.assignments, "default")
    overrides = shell_command.overrides(shell_command.script(trial_of(experiment, workload).line))
    if overrides is None:
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in trial.assignments.items())
    own = ("hydra.run.dir", "metrics_file", "push_metrics", "population_dir")
    last = {each.partition("=")[0]: each for each in [*overrides, *more]}  # of one key the last counts
    return shlex.join(["python", "train.py", *(each for key, each in last.items() if key not in own)])


def _report(search: Search, verdict: str, folder: Path) -> None:
    best = search.store.best()
    report.write(
        folder / "report.html",
        name=search.experiment.name,
        objective=search.experiment.objective,
        maximize=search.experiment.maximize,
        algorithm=search.experiment.algorithm,
        parameters=search.experiment.parameters,
        trials=search.store.trials,
        verdict=verdict or "Unfinished: the same command goes on",
        command=train_command(search.experiment, best, search.more) if best else "",
    )


def _imported(ahead: threading.Timer) -> None:
    """Lets imports that have begun come to their end: half of matplotlib is worse than none."""
    ahead.cancel()
    ahead.join()


def _interrupted(number: int, _: FrameType | None) -> None:
    raise SignalInterrupt(number)
