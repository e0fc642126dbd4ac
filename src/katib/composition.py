"""Composes the trial's Hydra command line over the search space, to find before a run what train.py would refuse."""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config import checked_json, source_code
from config.errors import InputError, is_hydra_error
from config.masking import hide_environment
from config.search_path import CONF_VARIABLE
from katib import collector as metrics_collector
from katib import shell_command
from katib.documents import YamlPath
from katib.experiment import OBJECTIVE, SOURCE, TRIAL, Experiment, Parameter, parse_number, substitute, trial_view
from katib.findings import Level
from katib.processes import pod_count, processes_per_pod
from katib.rules_runtime import metric_path
from katib.search_space import probe_commands
from katib.shell_command import Argument
from katib.shell_parser import ShellSyntaxError, UnclosedQuoteError
from katib.shell_values import changed_values
from runs import metric_lines
from runs.metric_lines import TRAINING_METRICS

logger = logging.getLogger(__name__)

TITLES = {
    "K400": "the command line was composed",
    "K401": "the command line composes at every point of the search space",
    "K402": "the trainer reports every metric",
    "K403": "the trainer keeps the best weights by the objective",
    "K404": "every trial has its own folder",
    "K405": "the trainer writes the file that the collector reads",
    "K406": "a diverged trial does not stall hyperband",
    "K407": "the trainer pushes its metrics if the collector is Push",
    "K408": "the processes of a trial can share every batch",
}
TRIAL_NAME = "the-trials-name"
_Problem = tuple[str, Level, YamlPath, str, str]  # code, level, path, message, fix


def command_problems(experiment: Experiment) -> Iterator[_Problem]:
    """Compose the trial's command at each of `probe_points`, and return the problems of K4xx."""
    if experiment.get(*TRIAL, "configMap") is not None:
        yield "K400", "note", (*TRIAL, "configMap"), "the command was not checked: the template is in a ConfigMap", ""
        return
    commands = [(point, words) for point, words in probe_commands(experiment, TRIAL_NAME) if words]
    if not commands:
        return
    path: YamlPath = (*experiment.primary[0], "command") if experiment.primary else TRIAL
    changed = changed_values(experiment)
    calls, problem = [], ""
    for point, words in commands:
        if any(point.get(name) in values for name, values in changed.items()):
            continue  # reported by K206
        try:
            calls.append((point, _train_call(experiment, point, words)))
        except UnclosedQuoteError as error:
            problem = str(error)
        except ShellSyntaxError as error:
            problem = problem if experiment.collector in shell_command.WRAPPED else str(error)  # else reported by K206
    if problem and not calls:
        message = f"the shell cannot parse the command: {problem}"
        yield "K401", "error", path, message, "close the quotes" if "quot" in problem else "correct the command"
        return
    if message := _foreign_call([call for _, call in calls]):
        yield "K400", "note", path, f"the command was not checked: {message}", ""
        return
    results = []
    for point, call in calls:
        words = [word.text for word in call or [] if word.is_known]
        results.append((point, [word.text for word in call or []], _compose_cached(words)))
    if unknown := [word.text for word in next((call for _, call in calls if call), []) if not word.is_known]:
        message = f"{', '.join(unknown)} was not checked: its value is known only where the command runs"
        yield "K400", "note", path, message, ""
    for message in dict.fromkeys(result["message"] for _, _, result in results):
        if not message:
            continue
        points = [point for point, _, result in results if result["message"] == message]
        other_points = [point for point, _, result in results if result["message"] != message]
        location, fix = path, "correct the command"
        if parameter := _cause(experiment.parameters, points, other_points):
            location, fix = parameter.space_path, "change the feasible space, or the parameter's name"
        yield "K401", "error", location, message, fix
    yield from _batch_problems(experiment, results, path)
    for _, overrides, result in results:
        if not result["message"]:
            yield from _trainer_problems(experiment, result, overrides, path)
            return


def _batch_problems(
    experiment: Experiment,
    results: Sequence[tuple[Mapping[str, str], Sequence[str], Mapping[str, Any]]],
    path: YamlPath,
) -> Iterator[_Problem]:
    """Return batch sizes that the processes of a trial cannot share; every trial with one would end with exit code 2."""
    per_pod = processes_per_pod(experiment)
    processes = pod_count(experiment) * (per_pod or 1)
    if processes == 1:
        return
    sizes = {size: (point, call) for point, call, result in results if (size := result.get("batch_size"))}
    odd_sizes = {size for size in sizes if size % processes}
    searched = None
    for size, (point, call) in sizes.items():
        values = dict(word.lstrip("+").split("=", 1) for word in call if "=" in word)
        rows = [
            row for row in experiment.parameters if point.get(row.name) == values.get("data.batch_size") == str(size)
        ]
        searched = searched or next(iter(rows), None)
    # Only the ends and the middle of a range were composed.
    steps = searched is not None and searched.type == "int" and searched.low != searched.high
    if steps and searched is not None and not odd_sizes:
        keeps_step = experiment.algorithm not in ("bayesianoptimization", "hyperband")
        step = int(parse_number(searched.step) or 1) if keeps_step else 1
        odd_sizes = {int(float(searched.low)) + step} if step % processes else set()
    if odd_sizes:
        sizes_text = ", ".join(map(str, sorted(odd_sizes)))
        message = f"the {processes} processes of a trial cannot share a batch of {sizes_text}"
        location = searched.space_path if searched is not None else path
        fix = f"use multiples of {processes} for data.batch_size, which is the total of all processes"
        yield "K408", "error", location, message, fix


def _train_call(experiment: Experiment, point: Mapping[str, str], words: Sequence[str]) -> list[Argument] | None:
    """Return the arguments of train.py at a point of the search space; None if the command does not call it."""
    view = trial_view(experiment, substitute(experiment, TRIAL_NAME, point, "default"))
    variables = shell_command.environment(view.primary[1]) if view.primary else {}
    expanded = [shell_command.expand(word, variables) for word in words]
    return shell_command.train_call(expanded, variables, experiment.collector in shell_command.WRAPPED)


def _foreign_call(calls: Sequence[list[Argument] | None]) -> str:
    """Return why the calls are not those of our train.py; "" if one is."""
    train_calls = [call for call in calls if call is not None]
    if not train_calls:
        return "it does not call train.py"
    if any(shell_command.takes_overrides([word.text for word in call]) for call in train_calls):
        return ""
    options = next((word.text for call in train_calls for word in call if word.text.startswith("-")), "")
    return f"its train.py takes options ({options})" if options else "it calls train.py without overrides"


def _cause(
    parameters: Sequence[Parameter], points: Sequence[Mapping[str, str]], other_points: Sequence[Mapping[str, str]]
) -> Parameter | None:
    """Return the only parameter whose values separate some points from the others; None if there is none."""
    causes = [
        parameter
        for parameter in parameters
        if {point.get(parameter.name) for point in points}.isdisjoint(row.get(parameter.name) for row in other_points)
    ]
    return causes[0] if len(causes) == 1 and other_points else None


def _trainer_problems(
    experiment: Experiment, result: Mapping[str, Any], overrides: Sequence[str], path: YamlPath
) -> Iterator[_Problem]:
    """Differences between what the Experiment expects and what the composed train.py would do."""
    objective, collector = experiment.objective, experiment.collector
    reported = [*result["metrics"], *TRAINING_METRICS]
    for index, metric in enumerate(experiment.metrics):
        if metric and metric not in reported:
            message = f"train.py does not report {metric} with this command"
            yield "K402", "error", metric_path(index), message, f"use {', '.join(reported)}"
        elif metric and collector == "StdOut":
            for level, message in _reading_problems(experiment, metric, result):
                yield "K402", level, metric_path(index), message, "remove the filter; Katib's default matches"
    mode = result["metrics"].get(objective)
    if mode and mode != ("max" if experiment.maximize else "min"):
        message = f"{objective} is better when it is {'higher' if mode == 'max' else 'lower'}"
        fix = f"use {'maximize' if mode == 'max' else 'minimize'}"
        yield "K402", "error", (*OBJECTIVE, "type"), message, fix
    if result["monitor"] != objective and objective in result["metrics"]:
        message = f"the trainer keeps the weights with the best {result['monitor']}, but the objective is {objective}"
        yield "K403", "warning", path, message, f"add monitor={objective} to the command"
    values = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    folder = values.get("hydra.run.dir")
    if folder is None:
        message = "the run folder is on the pod's own disk and is lost with the pod"
        fix = "add hydra.run.dir=/runs/${trialParameters.trialName}, on a volume"
        yield "K404", "warning", path, message, fix
    elif TRIAL_NAME not in folder:
        message = f"all trials write to {folder}, so later trials would return the first one's result"
        fix = "end hydra.run.dir with ${trialParameters.trialName}, which refers to ${trialSpec.Name}"
        yield "K404", "error", path, message, fix
    if collector == "File":
        metrics_path = experiment.metrics_path
        if result["metrics_file"] != metrics_path:
            target = result["metrics_file"] or "to its run folder"
            message = f"the collector reads {metrics_path}, but train.py writes {target}"
            yield "K405", "error", path, message, f"add metrics_file={metrics_path} to the command"
        elif experiment.metrics_format != "JSON":
            format_path = (*SOURCE, "fileSystemPath", "format")
            yield "K405", "error", format_path, "train.py writes its metrics file as JSON", "use format: JSON"
    if experiment.algorithm == "hyperband" and result["on_divergence"] == "fail":
        message = "a trial whose loss diverges fails, and hyperband waits for it forever"
        yield "K406", "error", path, message, "add trainer.on_divergence=report_worst to the command"
    if collector == "Push" and not result["push"]:
        message = "the command does not push metrics, so every trial would end as MetricsUnavailable"
        yield "K407", "error", path, message, "add push_metrics=katib-db-manager.kubeflow:6789 to the command"
    if collector != "Push" and result["push"]:
        message = f"metrics are reported twice: pushed, and by the {collector} collector"
        yield "K407", "error", path, message, "remove push_metrics, or use the Push collector"


def _reading_problems(experiment: Experiment, metric: str, result: Mapping[str, Any]) -> Iterator[tuple[Level, str]]:
    """Values of a metric that the collector's filters do not read from train.py's line as they are printed.

    A score that is never so small may need no exponent: a warning.
    """
    worst = result["worst"].get(metric)
    for value in (0.25, 12.5, 100.0, *([] if worst is None else [worst]), 1e-05, 1.25e-07):
        line = metric_lines.format_line(metric_lines.MetricLine(datetime.now(UTC), 1, 20, {metric: value}))
        text = line.rpartition("=")[2]
        try:
            entries = metrics_collector.parse_line(line, [metric], "TEXT", experiment.filters)
        except ValueError:
            return  # reported by K209
        level: Level = "warning" if "e-" in text and result["metrics"].get(metric) == "max" else "error"
        if not entries:
            yield level, f"the filter does not match {metric}={text} in train.py's output"
            return
        if any(parse_number(entry.value) != value for entry in entries):
            readings = ", ".join(repr(entry.value) for entry in entries)
            yield level, f"the filter reads {metric}={text} in train.py's output as {readings}"
            return


# --- composing, cached by content


def _compose_cached(overrides: Sequence[str]) -> dict[str, Any]:
    text = json.dumps(list(overrides))
    if (
        "${oc.env:" in text or "hydra.searchpath=" in text
    ):  # the result depends on the environment, or on the user's folder
        return _hide_environment(_compose(overrides), text)
    cache = _cache()
    key = hashlib.sha256(text.encode()).hexdigest()  # overrides can have secrets
    if key not in cache:
        cache[key] = _compose(overrides)
        _added.append(key)
    return cache[key]


def _hide_environment(result: dict[str, Any], source: str) -> dict[str, Any]:
    """Name the variables in place of their values: those of this machine are not the trials'."""
    return {key: hide_environment(value, source) if isinstance(value, str) else value for key, value in result.items()}


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose and check a command line.

    Returns:
        `message` (why it is refused, or ""), and the settings that `_trainer_problems` needs.
    """
    from omegaconf import OmegaConf

    from config import search_path
    from config.check import check_config
    from config.compose import compose_cached
    from config.messages import explain_error

    if flags := [override for override in overrides if override.startswith("-")]:
        return {"message": f"{flags[0]} is not allowed: a trial takes only overrides (key=value)"}
    try:
        folder = search_path.named_folder(overrides)
        if folder is not None and not folder.is_absolute():
            message = f"hydra.searchpath=[{folder}]: trials run in another folder; name it by its absolute path"
            return {"message": message}
        with search_path.adopted(overrides):
            config = compose_cached([override for override in overrides if not override.startswith("hydra.")])
            # Hydra's own node has values that exist only in a run, so its overrides are composed separately.
            _compose_hydra(tuple(override for override in overrides if override.startswith("hydra.")))
            check_config(config)
        return {
            "message": "",
            "batch_size": OmegaConf.select(config, "data.batch_size"),
            "metrics": {str(name): str(metric.mode) for name, metric in config.task.metrics.items()},
            "worst": {str(name): float(metric.worst) for name, metric in config.task.metrics.items()},
            "monitor": str(config.monitor),
            "metrics_file": config.metrics_file,
            "on_divergence": str(config.trainer.on_divergence),
            "push": config.push_metrics is not None,
        }
    except InputError as error:
        return {"message": str(error)}
    except Exception as error:
        if not is_hydra_error(error):
            raise
        return {"message": explain_error(error)}


@functools.cache
def _compose_hydra(overrides: tuple[str, ...]) -> None:
    from config.compose import compose

    compose(overrides, with_hydra=True)


_added: list[str] = []


@functools.cache
def _cache() -> dict[str, dict[str, Any]]:
    try:
        compositions: dict[str, dict[str, Any]] = checked_json.read(_cache_file())
    except ValueError as error:
        logger.warning("%s; command lines are composed again", error)
    except OSError:
        pass
    else:
        return compositions
    return {}


def save_cache() -> None:
    """Write new compositions to the cache, if its folder is writable."""
    if not _added:
        return
    try:
        checked_json.write(_cache_file(), _cache())
    except OSError:
        return
    _added.clear()


@functools.cache
def _cache_file() -> Path:
    """Return the cache file; its name depends on everything that a composition depends on."""
    environment = f"{os.environ.get('HOME')} {os.environ.get(CONF_VARIABLE)}"
    depends = f"{version('hydra-core')} {version('omegaconf')} {environment} {source_code.code_digest()}"
    digest = hashlib.sha256(depends.encode()).hexdigest()
    root = Path(os.environ.get("ISOTRAIN_CACHE") or "~/.cache/isotrain").expanduser()
    return root / "compositions" / f"{digest[:24]}.json"
