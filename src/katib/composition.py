"""The trial's command line through Hydra, over the search space: what train.py would refuse, found before it is scheduled."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config import files, source_code
from config.errors import InputError
from config.tasks import CONF_VARIABLE
from katib import points, shell_command
from katib.documents import YamlPath, written
from katib.experiment import Experiment, substitute, trial_of
from katib.findings import Finding
from katib.rules_webhook import SPEC, TRIAL
from runs import metric_lines
from runs.metric_lines import TRAINING_METRICS

TITLES = {
    "K400": "the command line was not composed",
    "K401": "the command line composes at every point of the search space",
    "K402": "the trainer reports every metric",
    "K403": "the trainer keeps the best weights by the objective",
    "K404": "every trial has a folder of its own",
    "K405": "the trainer writes the file that the collector reads",
    "K406": "a diverged trial does not end hyperband",
    "K407": "the trainer pushes its metrics if the collector is Push",
}
NAME = "the-trials-name"


def findings(experiment: Experiment) -> Iterator[Finding]:
    """Composes the trial's command at each of `points.of`, and looks at what it would do."""
    document = experiment.document
    primary = experiment.primary
    place: YamlPath = (*primary[0], "command") if primary else TRIAL

    def found(code: str, level: Any, where: YamlPath, message: str, mend: str) -> Finding:
        return Finding(code, level, document.file, document.line(where), written(where), message, mend)

    if experiment.get(*TRIAL, "configMap") is not None:
        said = "the template is in a ConfigMap: its command was not looked at"
        yield found("K400", "note", (*TRIAL, "configMap"), said, "")
        return
    tried = _lines(experiment)
    if not tried:
        return
    try:
        calls = [(names, shell_command.overrides(line)) for names, line in tried]
    except ValueError as error:
        yield found("K401", "error", place, f"the shell cannot read the command: {error}", "close the quotes")
        return
    if all(overrides is None for _, overrides in calls):
        if experiment.line:
            said = "the command does not call train.py: it was not composed"
            yield found("K400", "note", place, said, "")
        return
    results = [(names, _composed(overrides or [])) for names, overrides in calls]
    messages: dict[str, list[Sequence[str]]] = {}
    for names, result in results:
        if result["message"]:
            messages.setdefault(result["message"], []).append(names)
    for message, at in messages.items():
        where = _blamed(experiment, at, len(results), place)
        mend = "correct the command" if where == place else "change the feasible space, or the parameter's name"
        yield found("K401", "error", where, message, mend)
    good = next((result for _, result in results if not result["message"]), None)
    if good is None:
        return
    overrides = next(given for (_, given), (_, result) in zip(calls, results, strict=True) if result is good) or []
    yield from (found(*each) for each in _meanings(experiment, good, overrides, place))


def _blamed(experiment: Experiment, at: Sequence[Sequence[str]], tried: int, place: YamlPath) -> YamlPath:
    """The parameter whose values alone bring it about, else the command."""
    names = {each.name: each.place for each in experiment.parameters}
    alone = {names_[0] for names_ in at if len(names_) == 1}
    if len(at) < tried and len(alone) == 1:
        return (*names[alone.pop()], "feasibleSpace")
    return place


def _meanings(
    experiment: Experiment, result: Mapping[str, Any], overrides: Sequence[str], place: YamlPath
) -> Iterator[tuple[str, str, YamlPath, str, str]]:
    reported = [*result["metrics"], *TRAINING_METRICS]
    for index, metric in enumerate(experiment.metrics):
        where: YamlPath = (SPEC, "objective", "objectiveMetricName")
        where = (SPEC, "objective", "additionalMetricNames", index - 1) if index else where
        if metric and metric not in reported:
            yield "K402", "error", where, f"train.py never reports {metric} here", f"it reports {', '.join(reported)}"
        elif metric and experiment.collector == "StdOut" and not _caught(experiment, metric):
            mend = "remove the filter: Katib's own reads train.py's lines"
            yield "K402", "error", where, f"the filter does not catch {metric} in train.py's lines", mend
    objective, mode = experiment.objective, result["metrics"].get(experiment.objective)
    if mode and mode != ("max" if experiment.maximize else "min"):
        message = f"{objective} is better when it is {'higher' if mode == 'max' else 'lower'}"
        mend = f"use {'maximize' if mode == 'max' else 'minimize'}"
        yield "K402", "error", (SPEC, "objective", "type"), message, mend
    if result["monitor"] != objective and objective in result["metrics"]:
        message = (
            f"the trainer keeps the weights that are best by {result['monitor']}, and the search goes by {objective}"
        )
        yield "K403", "warning", place, message, f"add monitor={objective} to the command"
    given = dict(each.lstrip("+").split("=", 1) for each in overrides if "=" in each)
    folder = given.get("hydra.run.dir")
    if folder is None:
        message = "the run's folder is on the pod's own disk and goes with it"
        mend = "add hydra.run.dir=/runs/${trialParameters.trialName}, on a volume"
        yield "K404", "warning", place, message, mend
    elif NAME not in folder:
        message = f"all trials write to {folder}: the second would take the first's result for its own"
        yield (
            "K404",
            "error",
            place,
            message,
            "end it with ${trialParameters.trialName}, which refers to ${trialSpec.Name}",
        )
    if experiment.collector == "File":
        path = experiment.metrics_path
        if result["metrics_file"] != path:
            message = f"the collector reads {path}, and train.py writes {result['metrics_file'] or 'to its run folder'}"
            yield "K405", "error", place, message, f"add metrics_file={path} to the command"
        elif experiment.metrics_format != "JSON":
            where = (SPEC, "metricsCollectorSpec", "source", "fileSystemPath", "format")
            yield "K405", "error", where, "train.py's metrics file is JSON", "use format: JSON"
    if experiment.algorithm == "hyperband" and result["on_divergence"] == "fail":
        message = "a trial whose loss diverges fails, and hyperband waits for it for ever"
        yield "K406", "error", place, message, "add trainer.on_divergence=report_worst to the command"
    if experiment.collector == "Push" and not result["push"]:
        message = "nobody pushes the metrics: every trial would end as MetricsUnavailable"
        yield "K407", "error", place, message, "add push_metrics=katib-db-manager.kubeflow:6789 to the command"
    if experiment.collector != "Push" and result["push"]:
        message = f"metrics come twice: pushed, and through the {experiment.collector} collector"
        yield "K407", "error", place, message, "remove push_metrics, or use the Push collector"


def _caught(experiment: Experiment, metric: str) -> bool:
    line = metric_lines.format_line(metric_lines.MetricLine(datetime.now(UTC), 1, 20, {metric: 0.25}))
    try:
        found = [each for expression in experiment.filters for each in re.findall(expression, line)]
    except re.error:
        return True  # K209 says so
    return any(isinstance(each, tuple) and each[0].strip() == metric for each in found)


def _lines(experiment: Experiment) -> list[tuple[list[str], str]]:
    """The script at each point, and which parameters are not in the middle there."""
    found = []
    every = points.of(experiment.parameters)
    for assignments in every:
        try:
            workload = substitute(experiment, NAME, assignments, "default")
        except ValueError:
            continue
        trial = trial_of(experiment, workload)
        if trial.line:
            names = [name for name, value in assignments.items() if value != every[0][name]]
            found.append((names, shell_command.script(trial.line).rstrip("\n")))
    return found


# --- composing, remembered by content


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """What config says of a command line: `message` if it is refused, else what it would do."""
    store = _store()
    key = json.dumps(list(overrides))
    if key not in store:
        store[key] = _compose(overrides)
        _changed.append(key)
    return store[key]


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    from config.check import check_config
    from config.compose import compose_cached
    from config.messages import explain_error

    if flags := [each for each in overrides if each.startswith("-")]:
        return {"message": f"{flags[0]}: a trial takes overrides (key=value) only"}
    try:
        config = compose_cached([each for each in overrides if not each.startswith("hydra.")])
        # Hydra's own node asks for values that only a run has: its overrides are composed by themselves.
        _hydra_composes(tuple(each for each in overrides if each.startswith("hydra.")))
        check_config(config)
        metrics = {str(name): str(each.mode) for name, each in config.task.metrics.items()}
        return {
            "message": "",
            "metrics": metrics,
            "monitor": str(config.monitor),
            "metrics_file": config.metrics_file,
            "on_divergence": str(config.trainer.on_divergence),
            "push": config.push_metrics is not None,
        }
    except InputError as error:
        return {"message": str(error)}
    except Exception as error:
        if not type(error).__module__.startswith(("hydra.", "omegaconf.", "antlr4.")):
            raise
        return {"message": explain_error(error)}


@functools.cache
def _hydra_composes(overrides: tuple[str, ...]) -> None:
    from config.compose import compose

    compose(overrides, with_hydra=True)


_changed: list[str] = []


@functools.cache
def _store() -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def remember() -> None:
    """Writes what was composed to the cache; where that cannot be written, it is composed again next time."""
    if not _changed:
        return
    file = _file()
    try:
        files.write_text(file, json.dumps(_store()))
    except OSError:
        return
    _changed.clear()


@functools.cache
def _file() -> Path:
    """Named after everything that a composition depends on."""
    depends = f"{version('hydra-core')} {version('omegaconf')} {os.environ.get('HOME')} {os.environ.get(CONF_VARIABLE)}"
    digest = hashlib.sha256(f"{depends} {source_code.code_digest()}".encode()).hexdigest()
    root = Path(os.environ.get("ISOTRAIN_CACHE") or "~/.cache/isotrain").expanduser()
    return root / "compositions" / f"{digest[:24]}.json"
