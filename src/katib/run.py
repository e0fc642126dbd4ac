"""`python -m katib run`: check, search, table, report."""

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

from config import files
from config.errors import InputError, SignalInterrupt
from config.masking import MASK, mask_shell
from config.numbers import format_count, format_number
from config.output_paths import refuse_url
from katib import asha, findings, report, table
from katib.check import check_search
from katib.documents import read
from katib.experiment import Experiment, trial_command
from katib.experiment_from_job import build_experiment
from katib.optimization_job import is_optimization_job
from katib.search import Search
from katib.shell_command import WRAPPED, takes_overrides, train_overrides
from katib.trials import Trial
from katib.warm_start import WarmStart

FAILED_EXIT_CODE = 6
# Set for the search, not the model.
SEARCH_KEYS = ("hydra.run.dir", "metrics_file", "push_metrics", "population_dir", "population_parent")
CLUSTER_CODES = ("K224",)  # errors that matter on a cluster alone: what its Trainer drops has no meaning here
WARM_LOG = "fork_server.log"
IMPORT_DELAY = 2.0  # seconds until the first trials run, while which the report's libraries are imported


def run(args: argparse.Namespace) -> int:
    """Run the search of a file.

    Args:
        args: the command line.

    Returns:
        0 if the Experiment Succeeded, 6 if it Failed.
    """
    experiment = load_checked(args.file, args.no_check, accepted=CLUSTER_CODES)
    if is_optimization_job(experiment.value):
        experiment = as_experiment(experiment)
    if args.algorithm:
        experiment = asha.with_asha(experiment)
    for name in ("max_trials", "parallel", "deadline"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0, got {value}")
    folder = Path(args.folder or Path("searches") / experiment.name)
    refuse_url(folder, "--folder ")
    options = {name: getattr(args, name) for name in ("overrides", "max_trials", "parallel", "deadline", "wait")}
    condition, _ = run_search(experiment, folder, mounts=_parse_mounts(args.mount), warm=args.warm, **options)
    return 0 if condition == "Succeeded" else FAILED_EXIT_CODE


def run_search(
    experiment: Experiment,
    folder: Path,
    files_beside: Mapping[str, str] = MappingProxyType({}),
    resumption: str = "the same command",
    warm: bool = False,
    **options: Any,
) -> tuple[str, Trial | None]:
    """Run a search on this machine; print its table and its best trial, and write its report.

    Args:
        experiment: a checked Experiment.
        folder: folder of the search; an existing search is resumed.
        files_beside: texts of files to write into the folder, by name, once it is known to be this search's.
        resumption: what resumes the search, for the message of an interrupted one.
        warm: fork trials from a process that has imported what a training imports.
        options: arguments of `Search`.

    Returns:
        The condition of the Experiment, Succeeded or Failed, and the best trial, if there is one.
    """
    live_table = table.LiveTable(experiment, options.get("max_trials") or experiment.count("maxTrialCount"))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_interrupt)
    warm_start = WarmStart(folder.absolute() / WARM_LOG, live_table.show_message) if warm else None
    search = Search(experiment, folder.absolute(), on_change=live_table.show, warm_start=warm_start, **options)
    try:
        for name, text in files_beside.items():
            files.write_text(folder / name, text)
        live_table.skip_ended(search.store.trials)
        for path, local_folder in search.mounts.items():
            print(f"isotrain: {path} is {local_folder} on this machine", file=sys.stderr)
        condition, reason = _run_interruptibly(search, folder, resumption)
        trials = search.store.trials
        print("\n".join(table.trial_lines(trials, experiment)))
        best = search.store.best()
        if best is not None and best.value is not None:
            print(f"\nbest: {experiment.objective}={format_number(best.value, 6)} {best.name}")
            print_command(train_command(experiment, best, search.overrides))
        _write_report(search, f"{condition}: {reason}", folder)
    finally:
        if warm_start is not None:
            warm_start.close()
        search.store.close()
    print(f"isotrain: the Experiment {condition} ({reason}); report: {folder / 'report.html'}", file=sys.stderr)
    return condition, best


def _parse_mounts(mounts: Sequence[str]) -> dict[str, Path]:
    folders = {}
    for mount in mounts:
        path, _, folder = mount.partition("=")
        if not folder:
            raise InputError(f"--mount {mount}: write PATH=DIR")
        folders[path.rstrip("/")] = Path(folder).absolute()
    return folders


def _run_interruptibly(search: Search, folder: Path, resumption: str) -> tuple[str, str]:
    """Run a search until it is completed; on SIGINT and SIGTERM end its trials, and write the report.

    Raises:
        SignalInterrupt: a signal ended the search.
    """
    importer = threading.Timer(IMPORT_DELAY, report.import_ahead)
    importer.daemon = True
    importer.start()
    try:
        return search.run()
    except SignalInterrupt as error:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second signal does not wait for checkpoints
            signal.signal(number, signal.SIG_DFL)
        signal_number, running = error.exit_code - 128, len(search.active)
        search.interrupt()
    finally:
        importer.cancel()
        importer.join()  # an import in progress ends first
    _write_report(search, f"Unfinished: {resumption} resumes it", folder)
    raise SignalInterrupt(signal_number, f"interrupted; {resumption} resumes {running} trial(s)")


def load_checked(
    file: str,
    no_check: bool,
    change: Callable[[Experiment], Experiment] = lambda experiment: experiment,
    accepted: Sequence[str] = (),
) -> Experiment:
    """Load the Experiment or the OptimizationJob of a file, and print the findings of `check`.

    Args:
        file: path of the file; `-` reads standard input.
        no_check: accept an Experiment with errors.
        change: function applied to the Experiment before the check.
        accepted: codes of errors that are printed and do not count.

    Raises:
        InputError: the file does not have exactly one, or it has errors.
    """
    search = change(load_search(file))
    problems = [finding for finding in check_search(search) if finding.level != "note"]
    if problems:
        print(findings.format_text(problems), file=sys.stderr)
    errors = sum(finding.level == "error" and finding.code not in accepted for finding in problems)
    if errors and not no_check:
        raise InputError(f"{file} has {format_count(errors, 'error')}: fix the file, or add --no-check")
    return search


def load_search(file: str) -> Experiment:
    """Load the Experiment or the OptimizationJob of a file, without checking it.

    Raises:
        InputError: the file does not have exactly one.
    """
    documents = [document for document in read(file) if isinstance(document.value, dict)]
    searches = [row for row in documents if row.value.get("kind") == "Experiment" or is_optimization_job(row.value)]
    if len(searches) != 1:
        raise InputError(f"{file} must have exactly one Experiment, got {len(searches)}")
    return Experiment(searches[0])


def as_experiment(job: Experiment) -> Experiment:
    """Return the Experiment that searches as an OptimizationJob does.

    Raises:
        InputError: Katib's algorithm cannot search so.
    """
    experiment, differences = build_experiment(job)
    for level, path, message, fix in differences:
        if level == "error":
            raise InputError(f"{job.document.file}:{job.document.line(path)}: {message}; {fix}")
    return experiment


def train_command(experiment: Experiment, trial: Trial, overrides: Sequence[str]) -> str:
    """Return the command that trains with a trial's values, without the overrides that only a search needs.

    Args:
        experiment: the trial's Experiment.
        trial: the trial.
        overrides: overrides that were added to the trials' command line.

    Returns:
        The train.py command; only the assignments if the trial's command does not call our train.py.
    """
    words = trial_command(experiment, trial.name, trial.assignments)
    trial_overrides = train_overrides(words, experiment.collector in WRAPPED)
    if not takes_overrides(trial_overrides):
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in trial.assignments.items())
    by_key = {override.partition("=")[0]: override for override in [*trial_overrides, *overrides]}  # the last counts
    return shlex.join(["python", "train.py", *(word for key, word in by_key.items() if key not in SEARCH_KEYS)])


def print_command(command: str) -> None:
    """Print a command of `train_command`, with its secrets masked."""
    print(masked := mask_shell(command))
    if MASK in masked:
        print(f"isotrain: secrets are not printed: replace {MASK}", file=sys.stderr)


def _write_report(search: Search, verdict: str, folder: Path) -> None:
    experiment, best = search.experiment, search.store.best()
    command = mask_shell(train_command(experiment, best, search.overrides)) if best else ""
    report.write(folder / "report.html", experiment, search.store.trials, verdict, command)


def _raise_interrupt(number: int, _: FrameType | None) -> None:
    raise SignalInterrupt(number, "interrupted")
