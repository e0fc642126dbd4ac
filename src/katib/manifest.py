"""Writes a complete Experiment as YAML, from Hydra overrides and a search space."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import ContractError, DivergenceError, ExplanationError, InputError, is_hydra_error
from katib.experiment import Parameter, trial_parameter
from katib.resources import DEFAULTS, Resources
from katib.rules_jobs import RUNTIME
from katib.scheduling import QUEUE_LABEL, Scheduling
from katib.search_space import USAGE, probe_points, split_overrides

IMAGE = "isotrain:0.1.0"
DB_MANAGER = "katib-db-manager.kubeflow:6789"  # where Katib's own installation has it
METRICS_FILE = "/var/log/katib/metrics.jsonl"
CONTAINERS = {"Job": "training", "PyTorchJob": "pytorch", "TrainJob": "node"}
# Pod label with the uid of the object that owns a trial's pods; the pods of a PyTorchJob have none.
UID_LABELS = {"Job": "batch.kubernetes.io/controller-uid"}
# Settings that an algorithm requires, and seeds that make its search reproducible.
DEFAULT_SETTINGS: Mapping[str, Mapping[str, str]] = {
    **{name: {"random_state": "0"} for name in ("random", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes")},
    "hyperband": {"eta": "2", "r_l": "4", "resource_name": "trainer.max_epochs"},
    # Weights are handed on through /runs: a folder of the suggestion's volume would belong to root.
    "pbt": {"suggestion_trial_dir": "", "n_population": "8", "truncation_threshold": "0.25"},
}
# Exit codes of failures that another pod would repeat, and of pods that were told to end or lost a process.
REAL_FAILURES = [error.exit_code for error in (InputError, DivergenceError, ContractError, ExplanationError)]
LOSSES = [138, 143]
STRATEGIES = {"train_loss": "latest", "train_examples_per_second": "max", "peak_memory_mib": "max"}


@dataclass(frozen=True)
class ExperimentRequest:
    """What an Experiment is to search, and how.

    Attributes:
        name: name of the Experiment.
        overrides: overrides of every trial.
        parameters: the search space.
        objective: the metric to optimize.
        metrics: "min" or "max" for every metric.
        algorithm, settings: Katib's algorithm, and settings beside the default ones.
        goal: value of the objective at which the search ends.
        max_trials, parallel, max_failed: counts of trials.
        stop_early: whether medianstop stops trials that are worse than the average.
        collector: StdOut, File (JSON) or Push.
        kind: Job, PyTorchJob or TrainJob.
        processes: processes of a PyTorchJob or TrainJob.
        resources: CPUs, memory and GPUs of each process; others than `katib.resources.DEFAULTS`.
        scheduling: queue and priority class of the trials.
        retries: plain failures of a trial that are forgiven (exit codes 1, 7 and 8).
        image: image with train.py.
        command: the command that generates the file; it is in the file's first lines.
        title: the file's first line.
    """

    name: str
    overrides: Sequence[str]
    parameters: Sequence[Parameter]
    objective: str
    metrics: Mapping[str, str]
    algorithm: str = "random"
    settings: Mapping[str, str] = field(default_factory=dict)
    goal: float | None = None
    max_trials: int = 12
    parallel: int = 3
    max_failed: int = 3
    stop_early: bool = False
    collector: str = "StdOut"
    kind: str = "Job"
    processes: int = 2
    resources: Resources = field(default_factory=Resources)
    scheduling: Scheduling = field(default_factory=Scheduling)
    retries: int = 0
    image: str = IMAGE
    command: str = ""
    title: str = ""

    @property
    def all_settings(self) -> dict[str, str]:
        """Default settings of the algorithm, and those of the request."""
        return {**DEFAULT_SETTINGS.get(self.algorithm, {}), **self.settings}

    @property
    def all_resources(self) -> dict[str, Any]:
        """Requests and limits of each process, defaults included."""
        return self.resources.apply(DEFAULTS)


def build_request(
    overrides: Sequence[str], name: str | None, objective: str | None, algorithm: str, **fields: Any
) -> ExperimentRequest:
    """Build a request from a command line whose configuration composes.

    Args:
        overrides: overrides and distributions.
        name: name of the Experiment; None takes the task's and the algorithm's.
        objective: a metric of the task; None takes the one that selects checkpoints.
        algorithm: Katib's algorithm.
        fields: other fields of `ExperimentRequest`.

    Raises:
        InputError: there is nothing to search, or the configuration does not compose.
    """
    from config.compose import compose
    from config.messages import explain_error
    from runs.metric_lines import TRAINING_METRICS

    fixed, parameters = split_overrides(overrides)
    if algorithm == "hyperband":
        settings = {**DEFAULT_SETTINGS["hyperband"], **fields["settings"]}
        resource = settings["resource_name"]
        if resource not in [parameter.name for parameter in parameters]:
            parameters.append(Parameter(resource, "int", "1", settings["r_l"], "", (), "uniform", ()))
    if not parameters:
        raise InputError(f"there is nothing to search; give a key a distribution: {USAGE}")
    point = [f"{key}={value}" for key, value in probe_points(parameters, algorithm)[0].items()]
    try:
        config = compose([*fixed, *point])
    except Exception as error:
        if not is_hydra_error(error):
            raise
        raise InputError(explain_error(error)) from error
    task_name = str(config.task.name)
    task_metrics = {str(key): str(metric.mode) for key, metric in config.task.metrics.items()}
    objective = objective or str(config.monitor)
    if objective not in task_metrics:
        raise InputError(f"--objective {objective}: {task_name} has no such metric; use {', '.join(task_metrics)}")
    if objective != config.monitor:
        fixed.append(f"monitor={objective}")
    metrics = {**task_metrics, **dict.fromkeys(TRAINING_METRICS, "max"), "train_loss": "min"}
    name = name or f"{getattr(tasks.load_module(task_name), 'EXPERIMENT', 'search')}-{algorithm}"
    return ExperimentRequest(name, fixed, parameters, objective, metrics, algorithm, **fields)


def check_processes(kind: str, processes: int | None) -> int:
    """Return the number of processes of each trial.

    Args:
        kind: Job, PyTorchJob or TrainJob.
        processes: the number on the command line; None if there is none.

    Raises:
        InputError: the kind does not take the number.
    """
    if processes is None:
        return 1 if kind == "Job" else 2
    least = {"PyTorchJob": 2, "TrainJob": 1}.get(kind)
    if least is None:
        raise InputError(f"--processes {processes}: a Job has one process; add --kind PyTorchJob or --kind TrainJob")
    if processes < least:
        advice = "; one process is --kind Job" if kind == "PyTorchJob" else ""
        raise InputError(
            f"--processes {processes}: a {kind} has at least {least} {'process' if least == 1 else 'processes'}{advice}"
        )
    return processes


def format_manifest(request: ExperimentRequest, file: str) -> str:
    """Format the Experiment as YAML with comments, by the template experiment.yaml.jinja.

    Args:
        request: what to search.
        file: path of the file, which its first lines mention.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
    )
    environment.filters |= {"quoted": json.dumps, "trial_parameter": trial_parameter, "amount": _amount}
    names = ", ".join(parameter.name for parameter in request.parameters)
    template = Path(__file__).with_name("experiment.yaml.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        request=request,
        title=request.title or f"{request.name}: {request.algorithm} over {names}",
        path=shlex.quote(file),
        generator_lines=_fold([shlex.quote(word) for word in shlex.split(request.command)], "  "),
        metric_names=[request.objective, *(name for name in request.metrics if name != request.objective)],
        strategies=STRATEGIES,
        container=CONTAINERS[request.kind],
        uid_label=UID_LABELS.get(request.kind, ""),
        runtime=RUNTIME,
        queue_label=QUEUE_LABEL,
        metrics_file=METRICS_FILE,
        real_failures=REAL_FAILURES,
        losses=LOSSES,
        command_lines=_fold(" ".join(_trial_words(request)).split(" ")),
    )


def recorded_arguments(text: str) -> list[str]:
    """Return the arguments of `python -m katib new` in a file's first lines; empty if they are missing."""
    match = re.search(r"^# Made by:\n((?:#   .*\n)+)", text, re.MULTILINE)
    if not match:
        return []
    command = "".join(line.removeprefix("#").strip().removesuffix("\\") + " " for line in match[1].splitlines())
    return shlex.split(command)[4:]


def _fold(words: Sequence[str], indent: str = "") -> list[str]:
    """Join words to lines of about 100 characters; lines after the first are indented."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 100:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _amount(text: str) -> str:
    """Return a quantity as YAML: 500m and 4Gi as they are, numbers in quotes."""
    return text if re.fullmatch(r"\d+(m|[KMGTPE]i)", text) else json.dumps(text)


def _trial_words(request: ExperimentRequest) -> list[str]:
    """Return the trial's shell line in words: train.py with overrides, parameters and the run folder."""
    names = [parameter.name for parameter in request.parameters]
    overrides = [*request.overrides, *(f"{name}=${{trialParameters.{trial_parameter(name)}}}" for name in names)]
    if request.algorithm == "hyperband":  # which waits forever for a failed trial
        overrides.append("trainer.on_divergence=report_worst")
    if request.algorithm == "pbt":
        overrides.append("population_parent=/runs/${oc.env:POPULATION_PARENT,none}")
    if request.collector == "File":
        overrides.append(f"metrics_file={METRICS_FILE}")
    if request.collector == "Push":
        overrides.append(f"push_metrics={DB_MANAGER}")
    overrides.append("hydra.run.dir=/runs/${trialParameters.trialName}")
    return ["python", "train.py", *(_quote(override) for override in overrides)]


def _quote(override: str) -> str:
    """Quote an override for a shell; placeholders need no quotes, because Katib replaces them before."""
    plain = re.sub(r"\$\{trialParameters\.\w+\}", "x", override)
    return override if shlex.quote(plain) == plain else "'" + override.replace("'", "'\"'\"'") + "'"
