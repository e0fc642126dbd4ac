"""A sweep of Hydra as an Experiment (`train.py -m hydra/sweeper=katib`): made as by `new`, then `run` or `submit`."""

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from config import files, interrupts, process
from config.check import check_settings
from config.errors import ExecutionError, InputError
from config.numbers import format_number, parse_duration
from config.ranges import Keys
from katib import new
from katib.cluster import Cluster
from katib.cluster_commands import find_best, submit_checked
from katib.documents import read
from katib.experiment import Experiment
from katib.manifest import ExperimentRequest
from katib.run import print_command, run_search, train_command
from katib.sweep_overrides import translate
from katib.trials import Trial

SWEEPER = "hydra_plugins.isotrain_katib.sweeper.KatibSweeper"
EXPERIMENT_FILE, SWEEP_FILE, RESULT_FILE = "experiment.yaml", "multirun.yaml", "optimization_results.yaml"
# Keys of hydra.sweeper that are options of `new`, in the order in which the file records them.
_NEW_OPTIONS = (
    *("name", "algorithm", "settings", "objective", "goal", "max_trials", "parallel", "max_failed", "stop_early"),
    *("collector", "kind", "processes", "cpu", "memory", "gpus", "queue", "priority_class"),
    *("retries", "image", "title"),
)
# Keys of hydra.sweeper without meaning in the other place.
_OF_CLUSTER = ("wait", "timeout", "wait_for_start", "namespace", "context")
_OF_MACHINE = ("deadline", "mounts")
# Overrides of Hydra's own keys that a trial does not get, and those that have no meaning here.
_OF_THE_SWEEP = ("hydra/sweeper", "hydra.sweeper", "hydra.mode", "hydra.sweep.dir")
_REFUSED = {
    "hydra.run.dir": "trials have folders of their own in hydra.sweep.dir: name that one",
    "hydra.sweep.subdir": "the folder of a trial has the trial's name: leave it out",
    "hydra/launcher": "trials are processes or pods without a launcher: set hydra.sweeper.parallel and hydra.sweeper.where",
    "hydra.launcher": "trials are processes or pods without a launcher: set hydra.sweeper.parallel and hydra.sweeper.where",
}
# Options of the commands in messages that have another name here; the others are keys of hydra.sweeper.
_NAMES = {"folder": "hydra.sweep.dir", "setting": "hydra.sweeper.settings", "mount": "hydra.sweeper.mounts"}


def sweep(config: Any, arguments: Sequence[str], config_loader: Any) -> list[str]:
    """Make an Experiment of a sweep, check it, and run or submit it.

    Args:
        config: what Hydra composed of the command line, its own node included.
        arguments: overrides of the command line, some with several values.
        config_loader: Hydra's.

    Returns:
        The best overrides; empty if there are none yet.

    Raises:
        InputError: a setting or an override is refused, or the Experiment has errors.
        ExecutionError: the Experiment failed.
    """
    from omegaconf import OmegaConf

    settings: dict[str, Any] = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    settings.pop("_target_")
    _check_settings(settings, config.hydra.overrides.hydra)
    overrides = [f"{key}={'null' if value is None else value}" for key, value in (settings["params"] or {}).items()]
    overrides = [*translate([*overrides, *arguments], config_loader), *_hydra_overrides(config)]
    folder = Path(str(config.hydra.sweep.dir))
    with _own_names():
        text, experiment = _make_experiment(settings, overrides, folder)
        texts = {EXPERIMENT_FILE: text, SWEEP_FILE: OmegaConf.to_yaml(config)}
        if settings["where"] == "local":
            is_named = "${" not in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"])
            failure, best = _run(experiment, settings, folder, texts, is_named)
        else:
            failure, best = _submit(experiment, settings, folder, texts)
    if best is not None:
        _write_results(experiment, best, folder)
    if failure:
        raise ExecutionError(failure)
    return [f"{name}={value}" for name, value in best.assignments.items()] if best else []


def _check_settings(settings: Mapping[str, Any], words: Sequence[str]) -> None:
    """Check types and ranges of hydra.sweeper, and settings that do not go together.

    Args:
        settings: hydra.sweeper.
        words: overrides of Hydra's own keys on the command line. A file may have settings of both places.
    """
    if findings := check_settings("hydra.sweeper", settings, Keys(SWEEPER)):
        raise InputError("; ".join(findings))
    is_local = settings["where"] == "local"
    for name in _OF_CLUSTER if is_local else _OF_MACHINE:
        if word := next((word for word in words if _is_of(word, f"hydra.sweeper.{name}")), None):
            text = "this machine; set where=cluster" if is_local else "a cluster; set where=local"
            raise InputError(f"{word}: has no meaning for a search on {text}, or leave it out")
    waits = [name for name in ("timeout", "wait_for_start") if settings[name] is not None]
    if not is_local and waits and not settings["wait"]:
        raise InputError(
            f"hydra.sweeper.{waits[0]}: limits waiting, but wait=false does not wait; leave one of them out"
        )
    if process.world_size() > 1:
        raise InputError("hydra/sweeper=katib starts the processes of trials itself: start it without torchrun")


def _hydra_overrides(config: Any) -> list[str]:
    """Return overrides of Hydra's own keys that are for the trials."""
    hydra = config.hydra
    if hydra.job.config_name != "train":
        raise InputError(
            f"--config-name {hydra.job.config_name}: trials are started without options: make it a choice of experiment/"
        )
    words = list(hydra.overrides.hydra)
    launcher = hydra.runtime.choices["hydra/launcher"]
    for word in [*words, *([f"hydra/launcher={launcher}"] if launcher != "basic" else [])]:
        if reason := next((reason for key, reason in _REFUSED.items() if _is_of(word, key)), None):
            raise InputError(f"{word}: {reason}")
    rest = [word for word in words if not any(_is_of(word, key) for key in _OF_THE_SWEEP)]
    # A file that makes every run a sweep (hydra.mode) would do so in a trial, too.
    return rest if "hydra.mode=MULTIRUN" in words else [*rest, "hydra.mode=RUN"]


def _is_of(word: str, key: str) -> bool:
    """Return whether an override sets a key or one below it."""
    name = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return name == key or name.startswith(f"{key}.")


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Name settings as Hydra does where a message of a command names an option: `--max-trials 0` is hydra.sweeper.max_trials=0."""

    def rename(match: re.Match[str]) -> str:
        name = _NAMES.get(match[1], f"hydra.sweeper.{match[1].replace('-', '_')}")
        return f"{name}={match[2]}" if match[2] else name

    try:
        yield
    except InputError as error:
        text = str(error).replace("wait (--wait), or ", "wait until it ends, or ")
        raise type(error)(re.sub(r"--([a-z][a-z-]+)(?: ([A-Z\d]\S*|\S+(?=:)))?", rename, text)) from error


def _make_experiment(settings: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> tuple[str, Experiment]:
    """Make and check the Experiment, as `python -m katib new` with the same settings; return its text, too."""
    options = {name: settings[name] for name in _NEW_OPTIONS if name != "settings"}
    for name in ("cpu", "memory"):
        options[name] = None if options[name] is None else str(options[name])
    options["setting"] = [f"{name}={value}" for name, value in (settings["settings"] or {}).items()]
    defaults = {field.name: field.default for field in fields(ExperimentRequest)}
    words = list(overrides)
    for name, value in options.items():
        if value is not None and value is not False and value != [] and value != defaults.get(name):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [word for text in _texts(value) for word in (option, text)]
    file = str(folder / EXPERIMENT_FILE)
    return new.make(argparse.Namespace(overrides=list(overrides), output=file, to="Experiment", **options), words)


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else str(value)]


def _run(
    experiment: Experiment, settings: Mapping[str, Any], folder: Path, texts: Mapping[str, str], is_named: bool
) -> tuple[str, Trial | None]:
    """Run the Experiment on this machine; return a message if it failed, and the best trial."""
    resumption = "the same command"
    if not is_named:
        resumption += f" with hydra.sweep.dir={folder}"
        print(f"isotrain: the search is in {folder}; {resumption} resumes it", file=sys.stderr)
    mounts = {
        str(path).rstrip("/"): Path(str(target)).absolute() for path, target in (settings["mounts"] or {}).items()
    }
    _restore_signals()
    condition, best = run_search(experiment, folder, texts, resumption, mounts=mounts, deadline=settings["deadline"])
    failed = f"the search {experiment.name} failed; {folder / 'trials.jsonl'} has the reasons"
    return "" if condition == "Succeeded" else failed, best


def _submit(
    experiment: Experiment, settings: Mapping[str, Any], folder: Path, texts: Mapping[str, str]
) -> tuple[str, Trial | None]:
    """Submit the Experiment to a cluster, and watch it; return a message if it failed, and the best trial."""
    path = folder / EXPERIMENT_FILE
    if path.exists() and [document.value for document in read(str(path))] != [experiment.value]:
        raise InputError(f"{path} is of another search; choose another --folder")
    options = {name: settings[name] for name in ("context", "namespace", "timeout", "wait_for_start")}
    if options["wait_for_start"] is not None:
        try:
            options["wait_for_start"] = parse_duration(str(options["wait_for_start"]))
        except ValueError as error:
            raise InputError(f"--wait-for-start: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    print(f"isotrain: the Experiment is in {path}", file=sys.stderr)
    _restore_signals()
    if submit_checked(argparse.Namespace(dry_run=False, watch=settings["wait"], **options), experiment):
        return f"the Experiment {experiment.name} failed", None
    if not settings["wait"]:
        return "", None
    _, best, reason = find_best(Cluster(settings["context"], settings["namespace"]), experiment.name)
    if best is None:
        return f"the Experiment {experiment.name} has no best trial{reason}", None
    number = format_number(best.value, 6) if best.value is not None else "not a number"
    print(f"\nbest: {experiment.objective}={number} {best.name}")
    print_command(train_command(experiment, best, []))
    return "", best


def _restore_signals() -> None:
    """End train.py's handling of signals; one that came meanwhile ends the command."""
    interrupts.current().end_deferral()
    interrupts.current().restore()


def _write_results(experiment: Experiment, best: Trial, folder: Path) -> None:
    """Write the best values as Optuna's sweeper does."""
    from omegaconf import OmegaConf

    kinds = {parameter.name: parameter.type for parameter in experiment.parameters}
    values = {name: _value(text, kinds.get(name, "categorical")) for name, text in best.assignments.items()}
    results = {"name": "katib", "best_params": values, "best_value": best.value}
    files.write_text(folder / RESULT_FILE, OmegaConf.to_yaml(OmegaConf.create(results)))


def _value(text: str, kind: str) -> Any:
    """Return the value of a parameter as a number, if it is one."""
    if kind == "categorical":
        return text
    return int(float(text)) if kind == "int" or re.fullmatch(r"[+-]?\d+", text) else float(text)
