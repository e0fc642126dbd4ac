"""A complete Experiment from a Hydra composition and a search space."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config import tasks
from config.errors import InputError
from katib.experiment import Parameter

IMAGE = "isotrain:0.1.0"
DB_MANAGER = "katib-db-manager.kubeflow:6789"  # where Katib's own installation has it
METRICS_FILE = "/var/log/katib/metrics.jsonl"
CONTAINERS = {"Job": "training", "PyTorchJob": "pytorch", "TrainJob": "node"}
# Settings without which an algorithm does not start, or with which its searches repeat.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "random": {"random_state": "0"},
    "tpe": {"random_state": "0"},
    "multivariate-tpe": {"random_state": "0"},
    "bayesianoptimization": {"random_state": "0"},
    "cmaes": {"random_state": "0"},
    "hyperband": {"eta": "2", "r_l": "4", "resource_name": "trainer.max_epochs"},
    "pbt": {"suggestion_trial_dir": "/population", "n_population": "8", "truncation_threshold": "0.25"},
}


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        name: of the Experiment.
        overrides: of every trial.
        parameters: to search.
        objective: the metric to search by; `metrics` are all, with "min" or "max" for each.
        algorithm, settings: Katib's.
        max_trials, parallel, max_failed: counts.
        stop_early: whether medianstop stops trials that are worse than the average.
        collector: StdOut, File (JSON) or Push.
        kind: Job, PyTorchJob or TrainJob.
        processes: of a PyTorchJob or TrainJob.
        gpus: of each process.
        image: that has train.py.
        command: what made the file; in its first lines.
        title: the first line.
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


def text(request: Request, file: str) -> str:
    """The Experiment as YAML with comments.

    Args:
        request: what was asked for.
        file: where it will be; the first lines name it.
    """
    return "\n".join([*_head(request, file), *_spec(request), *_template(request), ""])


def _head(request: Request, file: str) -> list[str]:
    title = request.title or f"{request.name}: {request.algorithm} over {', '.join(p.name for p in request.parameters)}"
    shown = shlex.quote(file)
    return [
        f"# {title}",
        f"#   python -m katib check {shown}    what a cluster would refuse or accept in vain",
        f"#   python -m katib run {shown}      here, without a cluster",
        f"#   python -m katib submit {shown}   to the cluster of your kubectl context; or kubectl apply -f {shown}",
        *(_made_by(request.command) if request.command else []),
        "apiVersion: kubeflow.org/v1beta1",
        "kind: Experiment",
        "metadata:",
        f"  name: {request.name}",
        "  labels:",
        "    app.kubernetes.io/part-of: isotrain",
        f"    isotrain/experiment: {request.name}  # kubectl apply -k overlays/gpu -l isotrain/experiment={request.name}",
        f"    isotrain/trial: {request.kind}  # overlays patch each kind of trial in its own way",
    ]


def _made_by(command: str) -> list[str]:
    """The command, folded as a shell takes it."""
    lines = [""]
    for word in _words(command):
        if lines[-1] and len(lines[-1]) + len(word) > 100:
            lines.append("  " + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return ["# Made by:", *(f"#   {each} \\" for each in lines[:-1]), f"#   {lines[-1]}"]


def _words(command: str) -> list[str]:
    return [shlex.quote(word) for word in shlex.split(command)]


def made_by(text: str) -> list[str]:
    """The arguments of `python -m katib new` that a file was made with; empty if it does not say."""
    found = re.search(r"^# Made by:\n((?:#   .*\n)+)", text, re.MULTILINE)
    if not found:
        return []
    command = "".join(each.removeprefix("#").strip().removesuffix("\\") + " " for each in found[1].splitlines())
    return shlex.split(command)[4:]


def _spec(request: Request) -> list[str]:
    direction = "maximize" if request.metrics[request.objective] == "max" else "minimize"
    others = [name for name in request.metrics if name != request.objective]
    lines = [
        "spec:",
        "  objective:",
        f"    type: {direction}",
        *(
            [f"    goal: {request.goal:g}  # the search ends when a trial reaches it"]
            if request.goal is not None
            else []
        ),
        f"    objectiveMetricName: {request.objective}",
        "    additionalMetricNames:",
        *(f"      - {name}" for name in others),
        "    metricStrategies:  # what a trial's curve becomes; by default Katib takes the objective's, of a loss the worst",
    ]
    for name in (request.objective, *others):
        lines.append(f"      - {{name: {name}, value: {_strategy(name, request.metrics[name])}}}")
    lines += ["  algorithm:", f"    algorithmName: {request.algorithm}"]
    settings = {**SETTINGS.get(request.algorithm, {}), **request.settings}
    if settings:
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
        lines.append("  resumePolicy: FromVolume  # makes the volume that the population's weights are on")
    lines += [
        f"  parallelTrialCount: {request.parallel}",
        f"  maxTrialCount: {request.max_trials}",
        f"  maxFailedTrialCount: {request.max_failed}",
        "  parameters:",
    ]
    for each in request.parameters:
        lines += [
            f"    - name: {each.name}",
            f"      parameterType: {each.type}",
            f"      feasibleSpace: {_space(each)}",
        ]
    lines += ["  metricsCollectorSpec:", "    collector:", f"      kind: {request.collector}"]
    if request.collector == "File":
        lines += ["    source:", f"      fileSystemPath: {{path: {METRICS_FILE}, kind: File, format: JSON}}"]
    return lines


def _strategy(name: str, mode: str) -> str:
    return {"train_loss": "latest", "train_examples_per_second": "max", "peak_memory_mib": "max"}.get(name, mode)


def _space(parameter: Parameter) -> str:
    if parameter.choices:
        return "{list: [" + ", ".join(json.dumps(choice) for choice in parameter.choices) + "]}"
    step = f', step: "{parameter.step}"' if parameter.step else ""
    distribution = f", distribution: {parameter.distribution}" if parameter.distribution != "uniform" else ""
    return f'{{min: "{parameter.low}", max: "{parameter.high}"{step}{distribution}}}'


def _template(request: Request) -> list[str]:
    lines = [
        "  trialTemplate:",
        f"    primaryContainerName: {CONTAINERS[request.kind]}",
        "    trialParameters:",
        '      - {name: trialName, reference: "${trialSpec.Name}"}',
    ]
    lines += [f"      - {{name: {_placeholder(p.name)}, reference: {p.name}}}" for p in request.parameters]
    lines.append("    trialSpec:")
    return lines + ["      " + line for line in _KINDS[request.kind](request)]


def _placeholder(name: str) -> str:
    """A trial parameter's name: the key without dots, `optim.lr` as optimLr."""
    words: list[str] = re.findall(r"[A-Za-z0-9]+", name)
    first, *rest = words
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def line(request: Request) -> str:
    """The trial's shell line: train.py with the fixed overrides, the parameters and the run's folder."""
    words = list(request.overrides)
    for each in request.parameters:
        words.append(f"{each.name}=${{trialParameters.{_placeholder(each.name)}}}")
    if request.algorithm == "hyperband":  # waits for ever for a trial that failed
        words.append("trainer.on_divergence=report_worst")
    if request.algorithm == "pbt":
        folder = {**SETTINGS["pbt"], **request.settings}["suggestion_trial_dir"]
        words.append(f"population_dir={folder}")
    if request.collector == "File":
        words.append(f"metrics_file={METRICS_FILE}")
    if request.collector == "Push":
        words.append(f"push_metrics={DB_MANAGER}")
    words.append("hydra.run.dir=/runs/${trialParameters.trialName}")
    program = "torchrun train.py" if request.kind == "TrainJob" else "python train.py"
    return " ".join([program, *(_quoted(word) for word in words)])


def _quoted(word: str) -> str:
    """For the shell; placeholders stand outside the quotes' question, as Katib replaces them before any shell."""
    plain = re.sub(r"\$\{trialParameters\.\w+\}", "x", word)
    return word if shlex.quote(plain) == plain else "'" + word.replace("'", "'\"'\"'") + "'"


def _command(request: Request) -> list[str]:
    """The line, folded at its words."""
    lines, current = ["command:", "  - sh", "  - -c", "  - >-"], ""
    for word in line(request).split(" "):
        if current and len(current) + len(word) > 100:
            lines.append("    " + current)
            current = word
        else:
            current = f"{current} {word}" if current else word
    return [*lines, "    " + current]


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
_STOP = [
    "lifecycle:",
    "  preStop:  # a pod's SIGTERM reaches the shell, not Python: pass it on, and wait for the checkpoint",
    "    exec: {command: [python, -m, katib, stop]}",
]
_POD_SECURITY = (
    "securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, "
    "seccompProfile: {type: RuntimeDefault}}"
)
_SECURITY = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"


def _resources(request: Request) -> list[str]:
    gpus = f', nvidia.com/gpu: "{request.gpus}"' if request.gpus else ""
    return [
        "resources:",
        f'  requests: {{cpu: "2", memory: 4Gi{gpus}}}',
        f'  limits: {{cpu: "4", memory: 8Gi{gpus}}}',
    ]


def _container(request: Request) -> list[str]:
    body = [
        f"name: {CONTAINERS[request.kind]}",
        f"image: {request.image}",
        *_command(request),
        *_ENV,
        *_resources(request),
        *_MOUNTS,
        *_STOP,
        _SECURITY,
    ]
    return ["containers:", "  - " + body[0], *("    " + each for each in body[1:])]


def _pod(request: Request) -> list[str]:
    return [
        "metadata:",
        '  labels: {sidecar.istio.io/inject: "false"}  # else a trial ends only when Istio\'s proxy does',
        "spec:",
        *(["  restartPolicy: Never"] if request.kind == "Job" else []),
        "  terminationGracePeriodSeconds: 120  # to write a checkpoint",
        "  " + _POD_SECURITY,
        *("  " + each for each in (*_container(request), *_VOLUMES)),
    ]


def _job(request: Request) -> list[str]:
    head = ["apiVersion: batch/v1", "kind: Job", "spec:", "  backoffLimit: 0  # a trial that fails, fails once"]
    return [*head, "  template:", *("    " + each for each in _pod(request))]


def _pytorchjob(request: Request) -> list[str]:
    lines = ["apiVersion: kubeflow.org/v1", "kind: PyTorchJob", "spec:", "  pytorchReplicaSpecs:"]
    for role, count in (("Master", 1), ("Worker", request.processes - 1)):
        lines += [f"    {role}:", f"      replicas: {count}", "      restartPolicy: Never", "      template:"]
        lines += ["        " + each for each in _pod(request)]
    return lines


def _trainjob(request: Request) -> list[str]:
    resources = [each.replace("resources:", "resourcesPerNode:") for each in _resources(request)]
    trainer = [
        f"numNodes: {request.processes}",
        f"image: {request.image}",
        *_command(request),
        *_ENV,
        *resources,
    ]
    pod = [
        "terminationGracePeriodSeconds: 120  # to write a checkpoint",
        _POD_SECURITY,
        "containers:",
        "  - name: node",
        *("    " + each for each in _MOUNTS),
        *_VOLUMES,
    ]
    return [
        "apiVersion: trainer.kubeflow.org/v1alpha1",
        "kind: TrainJob",
        "spec:",
        "  runtimeRef: {name: torch-distributed}  # its torchrun variables are what `torchrun train.py` reads",
        "  trainer:",
        *("    " + each for each in trainer),
        "  podTemplateOverrides:",
        "    - targetJobs: [{name: node}]",
        "      metadata:",
        '        labels: {sidecar.istio.io/inject: "false"}  # else a trial ends only when Istio\'s proxy does',
        "      spec:",
        *("        " + each for each in pod),
    ]


_KINDS: Mapping[str, Any] = {"Job": _job, "PyTorchJob": _pytorchjob, "TrainJob": _trainjob}


def request(arguments: Sequence[str], name: str | None, objective: str | None, **more: Any) -> Request:
    """A request from a command line, once its configuration composes.

    Args:
        arguments: overrides and distributions.
        name: of the Experiment; None makes one of the task and the algorithm.
        objective: a metric of the task; None takes the one that chooses checkpoints.
        more: other fields of `Request`.

    Raises:
        InputError: nothing to search, or a configuration that does not compose.
    """
    from config.compose import compose
    from config.messages import explain_error
    from katib import points, search_space
    from runs.metric_lines import TRAINING_METRICS

    fixed, parameters = search_space.split(arguments)
    if more["algorithm"] == "hyperband":
        settings = {**SETTINGS["hyperband"], **more["settings"]}
        resource = settings["resource_name"]
        if resource not in [each.name for each in parameters]:
            parameters.append(Parameter(resource, "int", "1", settings["r_l"], "", (), "uniform", ()))
    if not parameters:
        raise InputError(f"there is nothing to search: {search_space.USAGE}")
    middle = [f"{key}={value}" for key, value in points.of(parameters)[0].items()]
    try:
        config = compose([*fixed, *middle])
    except Exception as error:
        if not type(error).__module__.startswith(("hydra.", "omegaconf.", "antlr4.")):
            raise
        raise InputError(explain_error(error)) from error
    declared = {str(key): str(value.mode) for key, value in config.task.metrics.items()}
    objective = objective or str(config.monitor)
    if objective not in declared:
        raise InputError(f"--objective {objective}: {config.task.name} reports {', '.join(declared)}")
    if objective != config.monitor:
        fixed.append(f"monitor={objective}")
    metrics = {**declared, **dict.fromkeys(TRAINING_METRICS, "max"), "train_loss": "min"}
    name = name or f"{getattr(tasks.load_module(str(config.task.name)), 'EXPERIMENT', 'search')}-{more['algorithm']}"
    return Request(name, fixed, parameters, objective, metrics, **more)
