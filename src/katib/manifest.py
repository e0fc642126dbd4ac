"""Writes a complete Experiment as YAML, from Hydra overrides and a search space."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config import tasks
from config.errors import InputError
from katib.experiment import Parameter
from katib.search_space import USAGE, probe_points, split_overrides

IMAGE = "isotrain:0.1.0"
DB_MANAGER = "katib-db-manager.kubeflow:6789"  # where Katib's own installation has it
METRICS_FILE = "/var/log/katib/metrics.jsonl"
CONTAINERS = {"Job": "training", "PyTorchJob": "pytorch", "TrainJob": "node"}
# Settings that an algorithm requires, and seeds that make its search reproducible.
DEFAULT_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "random": {"random_state": "0"},
    "tpe": {"random_state": "0"},
    "multivariate-tpe": {"random_state": "0"},
    "bayesianoptimization": {"random_state": "0"},
    "cmaes": {"random_state": "0"},
    "hyperband": {"eta": "2", "r_l": "4", "resource_name": "trainer.max_epochs"},
    "pbt": {"suggestion_trial_dir": "/population", "n_population": "8", "truncation_threshold": "0.25"},
}
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
        gpus: GPUs of each process.
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
    gpus: int = 0
    image: str = IMAGE
    command: str = ""
    title: str = ""

    @property
    def all_settings(self) -> dict[str, str]:
        """Default settings of the algorithm, and those of the request."""
        return {**DEFAULT_SETTINGS.get(self.algorithm, {}), **self.settings}


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
    point = [f"{key}={value}" for key, value in probe_points(parameters)[0].items()]
    try:
        config = compose([*fixed, *point])
    except Exception as error:
        if not type(error).__module__.startswith(("hydra.", "omegaconf.", "antlr4.")):
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


def format_manifest(request: ExperimentRequest, file: str) -> str:
    """Format the Experiment as YAML with comments.

    Args:
        request: what to search.
        file: path of the file, which its first lines mention.
    """
    return "\n".join([*_head(request, file), *_spec(request), *_trial_template(request), ""])


def recorded_arguments(text: str) -> list[str]:
    """Return the arguments of `python -m katib new` in a file's first lines; empty if they are missing."""
    match = re.search(r"^# Made by:\n((?:#   .*\n)+)", text, re.MULTILINE)
    if not match:
        return []
    command = "".join(line.removeprefix("#").strip().removesuffix("\\") + " " for line in match[1].splitlines())
    return shlex.split(command)[4:]


def _head(request: ExperimentRequest, file: str) -> list[str]:
    names = ", ".join(parameter.name for parameter in request.parameters)
    path = shlex.quote(file)
    return [
        f"# {request.title or f'{request.name}: {request.algorithm} over {names}'}",
        f"#   python -m katib check {path}    find errors without a cluster",
        f"#   python -m katib run {path}      run it on this machine",
        f"#   python -m katib submit {path}   run it on the cluster of your kubectl context; or kubectl apply -f {path}",
        *(_made_by(request.command) if request.command else []),
        "apiVersion: kubeflow.org/v1beta1",
        "kind: Experiment",
        "metadata:",
        f"  name: {request.name}",
        "  labels:",
        "    app.kubernetes.io/part-of: isotrain",
        f"    isotrain/experiment: {request.name}  # kubectl apply -k overlays/gpu -l isotrain/experiment={request.name}",
        f"    isotrain/trial: {request.kind}  # overlays patch each kind of trial separately",
    ]


def _made_by(command: str) -> list[str]:
    """Return the command in lines that a shell accepts."""
    *lines, last_line = _fold([shlex.quote(word) for word in shlex.split(command)], "  ")
    return ["# Made by:", *(f"#   {line} \\" for line in lines), f"#   {last_line}"]


def _fold(words: Sequence[str], indent: str = "") -> list[str]:
    """Join words to lines of about 100 characters; lines after the first are indented."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 100:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _spec(request: ExperimentRequest) -> list[str]:
    direction = "maximize" if request.metrics[request.objective] == "max" else "minimize"
    additional = [name for name in request.metrics if name != request.objective]
    lines = ["spec:", "  objective:", f"    type: {direction}"]
    if request.goal is not None:
        lines.append(f"    goal: {request.goal:g}  # the search ends when a trial reaches it")
    lines += [
        f"    objectiveMetricName: {request.objective}",
        "    additionalMetricNames:",
        *(f"      - {name}" for name in additional),
        "    metricStrategies:  # one value of each metric per trial; Katib's default for all is the objective's min or max",
    ]
    for name in (request.objective, *additional):
        lines.append(f"      - {{name: {name}, value: {STRATEGIES.get(name, request.metrics[name])}}}")
    lines += ["  algorithm:", f"    algorithmName: {request.algorithm}"]
    if settings := request.all_settings:
        lines.append("    algorithmSettings:")
        lines += [f"      - {{name: {name}, value: {json.dumps(value)}}}" for name, value in settings.items()]
    if request.stop_early:
        lines += [
            "  earlyStopping:",
            "    algorithmName: medianstop",
            "    algorithmSettings:",
            '      - {name: min_trials_required, value: "3"}  # trials that must have succeeded before it stops any',
            '      - {name: start_step, value: "2"}           # validations of a trial before it may be stopped',
        ]
    if request.algorithm == "pbt":
        lines.append("  resumePolicy: FromVolume  # creates the volume for the population's weights")
    lines += [
        f"  parallelTrialCount: {request.parallel}",
        f"  maxTrialCount: {request.max_trials}",
        f"  maxFailedTrialCount: {request.max_failed}",
        "  parameters:",
    ]
    for parameter in request.parameters:
        lines += [
            f"    - name: {parameter.name}",
            f"      parameterType: {parameter.type}",
            f"      feasibleSpace: {_feasible_space(parameter)}",
        ]
    lines += ["  metricsCollectorSpec:", "    collector:", f"      kind: {request.collector}"]
    if request.collector == "File":
        lines += ["    source:", f"      fileSystemPath: {{path: {METRICS_FILE}, kind: File, format: JSON}}"]
    return lines


def _feasible_space(parameter: Parameter) -> str:
    if parameter.choices:
        return "{list: [" + ", ".join(json.dumps(choice) for choice in parameter.choices) + "]}"
    step = f', step: "{parameter.step}"' if parameter.step else ""
    distribution = f", distribution: {parameter.distribution}" if parameter.distribution != "uniform" else ""
    return f'{{min: "{parameter.low}", max: "{parameter.high}"{step}{distribution}}}'


def _trial_template(request: ExperimentRequest) -> list[str]:
    lines = [
        "  trialTemplate:",
        f"    primaryContainerName: {CONTAINERS[request.kind]}",
        "    trialParameters:",
        '      - {name: trialName, reference: "${trialSpec.Name}"}',
    ]
    lines += [f"      - {{name: {_trial_parameter(row.name)}, reference: {row.name}}}" for row in request.parameters]
    return [*lines, "    trialSpec:", *_indent(_WORKLOADS[request.kind](request), 6)]


def _trial_parameter(name: str) -> str:
    """Return a trial parameter's name: the key without dots, `optim.lr` as optimLr."""
    words: list[str] = re.findall(r"[A-Za-z0-9]+", name)
    first, *rest = words
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _trial_words(request: ExperimentRequest) -> list[str]:
    """Return the trial's shell line in words: train.py with overrides, parameters and the run folder."""
    overrides = list(request.overrides)
    for parameter in request.parameters:
        overrides.append(f"{parameter.name}=${{trialParameters.{_trial_parameter(parameter.name)}}}")
    if request.algorithm == "hyperband":  # which waits forever for a failed trial
        overrides.append("trainer.on_divergence=report_worst")
    if request.algorithm == "pbt":
        overrides.append(f"population_dir={request.all_settings['suggestion_trial_dir']}")
    if request.collector == "File":
        overrides.append(f"metrics_file={METRICS_FILE}")
    if request.collector == "Push":
        overrides.append(f"push_metrics={DB_MANAGER}")
    overrides.append("hydra.run.dir=/runs/${trialParameters.trialName}")
    program = "torchrun" if request.kind == "TrainJob" else "python"
    return [program, "train.py", *(_quote(override) for override in overrides)]


def _quote(override: str) -> str:
    """Quote an override for a shell; placeholders need no quotes, because Katib replaces them before."""
    plain = re.sub(r"\$\{trialParameters\.\w+\}", "x", override)
    return override if shlex.quote(plain) == plain else "'" + override.replace("'", "'\"'\"'") + "'"


def _command(request: ExperimentRequest) -> list[str]:
    """Return the container's command, its shell line folded between words."""
    words = " ".join(_trial_words(request)).split(" ")
    return ["command:", "  - sh", "  - -c", "  - >-", *_indent(_fold(words), 4)]


_ENV = [
    "env:",
    "  - {name: ISOTRAIN_CACHE, value: /cache}           # prepared data, shared by all trials",
    "  - {name: HF_HOME, value: /cache/huggingface}",
    "  - name: HF_TOKEN                                  # only for private models and data",
    "    valueFrom: {secretKeyRef: {name: isotrain-tokens, key: HF_TOKEN, optional: true}}",
]
_MOUNTS = ["volumeMounts:", "  - {name: runs, mountPath: /runs}", "  - {name: cache, mountPath: /cache}"]
_VOLUMES = [
    "volumes:",
    "  - {name: runs, persistentVolumeClaim: {claimName: isotrain-runs}}",
    "  - {name: cache, persistentVolumeClaim: {claimName: isotrain-cache}}",
]
_PRE_STOP = [
    "lifecycle:",
    "  preStop:  # a pod's SIGTERM reaches only the shell: forward it to Python, and wait for the checkpoint",
    "    exec: {command: [python, -m, katib, stop]}",
]
_POD_SECURITY = (
    "securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, "
    "seccompProfile: {type: RuntimeDefault}}"
)
_SECURITY = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
_NO_ISTIO = 'labels: {sidecar.istio.io/inject: "false"}  # with Istio\'s proxy a trial never ends'
_GRACE_PERIOD = "terminationGracePeriodSeconds: 120  # to write a checkpoint"


def _indent(lines: Sequence[str], width: int) -> list[str]:
    return [" " * width + line for line in lines]


def _resources(request: ExperimentRequest, key: str = "resources") -> list[str]:
    gpus = f', nvidia.com/gpu: "{request.gpus}"' if request.gpus else ""
    return [f"{key}:", f'  requests: {{cpu: "2", memory: 4Gi{gpus}}}', f'  limits: {{cpu: "4", memory: 8Gi{gpus}}}']


def _pod(request: ExperimentRequest) -> list[str]:
    name, *body = [
        f"name: {CONTAINERS[request.kind]}",
        f"image: {request.image}",
        *_command(request),
        *_ENV,
        *_resources(request),
        *_MOUNTS,
        *_PRE_STOP,
        _SECURITY,
    ]
    return [
        "metadata:",
        "  " + _NO_ISTIO,
        "spec:",
        *(["  restartPolicy: Never"] if request.kind == "Job" else []),
        "  " + _GRACE_PERIOD,
        "  " + _POD_SECURITY,
        "  containers:",
        "    - " + name,
        *_indent(body, 6),
        *_indent(_VOLUMES, 2),
    ]


def _job(request: ExperimentRequest) -> list[str]:
    head = ["apiVersion: batch/v1", "kind: Job", "spec:", "  backoffLimit: 0  # a failed trial is not repeated"]
    return [*head, "  template:", *_indent(_pod(request), 4)]


def _pytorchjob(request: ExperimentRequest) -> list[str]:
    lines = ["apiVersion: kubeflow.org/v1", "kind: PyTorchJob", "spec:", "  pytorchReplicaSpecs:"]
    for role, count in (("Master", 1), ("Worker", request.processes - 1)):
        lines += [f"    {role}:", f"      replicas: {count}", "      restartPolicy: Never", "      template:"]
        lines += _indent(_pod(request), 8)
    return lines


def _trainjob(request: ExperimentRequest) -> list[str]:
    trainer = [
        f"numNodes: {request.processes}",
        f"image: {request.image}",
        *_command(request),
        *_ENV,
        *_resources(request, "resourcesPerNode"),
    ]
    pod = [_GRACE_PERIOD, _POD_SECURITY, "containers:", "  - name: node", *_indent(_MOUNTS, 4), *_VOLUMES]
    return [
        "apiVersion: trainer.kubeflow.org/v1alpha1",
        "kind: TrainJob",
        "spec:",
        "  runtimeRef: {name: torch-distributed}  # sets the variables that `torchrun train.py` reads",
        "  trainer:",
        *_indent(trainer, 4),
        "  podTemplateOverrides:",
        "    - targetJobs: [{name: node}]",
        "      metadata:",
        "        " + _NO_ISTIO,
        "      spec:",
        *_indent(pod, 8),
    ]


_WORKLOADS: Mapping[str, Callable[[ExperimentRequest], list[str]]] = {
    "Job": _job,
    "PyTorchJob": _pytorchjob,
    "TrainJob": _trainjob,
}
