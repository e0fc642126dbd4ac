"""Rules for Experiments that work badly: their findings are warnings."""

import itertools
import re
from collections.abc import Iterator, Sequence

from config.masking import mask_command, mask_secrets
from katib import shell_command, shell_values
from katib.documents import YamlPath
from katib.experiment import OBJECTIVE, SPEC, TEMPLATE, Experiment
from katib.findings import Problem, Rule
from katib.shell_parser import iter_commands, parse_tolerantly


def _strategies(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.objective:
        return
    explicit = experiment.explicit_strategies
    for metric, default in experiment.strategies.items():
        if metric not in explicit:
            loss = ", which is the worst value of a loss" if default == "max" and "loss" in metric else ""
            message = f"{metric} has no strategy, so Katib takes its {default}{loss}"
            yield (*OBJECTIVE, "metricStrategies"), message, f"add {{name: {metric}, value: min|max|latest}}"


def _tpe(experiment: Experiment) -> Iterator[Problem]:
    if experiment.parallel > 1:
        message = f"Katib's tpe suggests the same point {experiment.parallel} times in each round (kubeflow/katib#1329)"
        yield (SPEC, "algorithm", "algorithmName"), message, "use multivariate-tpe, or parallelTrialCount: 1"


def _distributions(experiment: Experiment) -> Iterator[Problem]:
    algorithm = experiment.algorithm
    for parameter in experiment.parameters:
        distribution, path = parameter.distribution, parameter.space_path
        if algorithm in ("cmaes", "sobol", "hyperband", "pbt"):
            if parameter.type == "double" and distribution != "uniform":
                message = f"{algorithm} ignores {distribution} and searches uniformly (Katib 0.19)"
                yield (*path, "distribution"), message, "search the exponent, or use random or multivariate-tpe"
        elif algorithm in ("random", "tpe") and distribution in ("normal", "logNormal"):
            message = f"values of {distribution} can be outside min and max"
            yield (*path, "distribution"), message, "use uniform or logUniform if the bounds must hold"
        elif algorithm == "bayesianoptimization" and parameter.step:
            yield (*path, "step"), "bayesianoptimization ignores step", "use parameterType: int, or a list"


def _counts(experiment: Experiment) -> Iterator[Problem]:
    if experiment.count("maxTrialCount") is None and experiment.algorithm != "grid":
        message = "without maxTrialCount the search ends only when it reaches its goal"
        yield (SPEC,), message, "add maxTrialCount"
    if experiment.count("maxFailedTrialCount") is None:
        yield (SPEC,), "without maxFailedTrialCount the search never ends on failed trials", "add maxFailedTrialCount"


def _retries(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "Job" and experiment.get(*TEMPLATE, "spec", "backoffLimit") is None:
        message = "a failing trial runs seven times, because backoffLimit is 6 by default"
        yield (*TEMPLATE, "spec"), message, "add backoffLimit: 0"


def _istio(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "TrainJob" or experiment.primary is None:
        return
    path = (*experiment.primary[0][:-3], "metadata")
    for group in ("labels", "annotations"):
        if experiment.text(*path, group, "sidecar.istio.io/inject").lower() == "false":
            return
    message = "where Istio adds its proxy to pods, the proxy never ends and a trial's metrics are never reported"
    yield path, message, 'add the label sidecar.istio.io/inject: "false" to the pod'


def _image_command(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.primary or experiment.collector not in shell_command.WRAPPED:
        return
    path, container = experiment.primary
    if not container.get("command"):
        message = "without a command Katib reads it from the image's registry, which fails if that needs a login"
        yield path, message, 'write command: ["sh", "-c", "<one line>"]'


def _buffering(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.early_stopping or experiment.primary is None or not experiment.command:
        return
    path, container = experiment.primary
    line = shell_command.script(experiment.command)
    variables = {row.get("name") for row in container.get("env") or [] if isinstance(row, dict)}
    python = re.search(r"(^|[\s/])python[\d.]*\s+(?!-\S*u)", line)
    if python and not _is_own(experiment.command) and "PYTHONUNBUFFERED" not in variables:
        message = "Python buffers its output, so early stopping sees the metrics only when the trial has ended"
        yield path, message, "call python -u, or set PYTHONUNBUFFERED=1"


def _is_own(words: Sequence[str]) -> bool:
    """Return whether a command calls our train.py, which flushes its output."""
    return shell_command.takes_overrides(shell_command.train_overrides(words))


def _brace_expansion(experiment: Experiment) -> Iterator[Problem]:
    words = experiment.command
    if experiment.primary is None or experiment.collector not in shell_command.WRAPPED:
        return
    path = (*experiment.primary[0], "command")
    bash_only = (
        value
        for name, values in shell_values.changed_values(experiment, bash=True).items()
        for value in values
        if value not in shell_values.changed_values(experiment)[name]
    )
    literal = (text for text in _bare_texts(words) if words[:1] in (["bash"], ["sh"]))
    braces = (match[0] for text in literal if (match := re.search(r"\{[^}\s]*,[^}\s]*\}", text)))
    if (text := next(itertools.chain(braces, bash_only), None)) is not None:
        message = f"bash expands {text} to other words, and sh is bash in some images"
        yield path, message, "put it in single quotes"


def _bare_texts(words: Sequence[str]) -> Iterator[str]:
    """Return the text of each word of a command, without what is quoted or a variable."""
    for _, command in iter_commands(parse_tolerantly(shell_command.script(words), shell_command.is_bash(words))):
        for word in command.words:
            yield "".join(part.text for part in word.parts if part.kind == "text" and not part.quoted)


def _hyperband(experiment: Experiment) -> Iterator[Problem]:
    """Search that never starts hyperband's second rung (kubeflow/katib#1168).

    Katib 0.19's controller asks for as many points as trials may start, and accepts no other number; the service
    returns its next rung, which is smaller. With one free slot the numbers match.
    """
    maximum, parallel = experiment.count("maxTrialCount"), experiment.parallel
    if maximum is None or maximum > parallel + 1:
        message = f"Katib 0.19 cannot start hyperband's second rung: the search stalls after {parallel} trials"
        fix = f"on a cluster use maxTrialCount: {parallel + 1}; `python -m katib run` runs all rungs"
        yield (SPEC, "maxTrialCount"), message, fix


def _pods(experiment: Experiment) -> Iterator[Problem]:
    """Pods without the primary container: Katib 0.19's webhook adds the trial's name to it in every pod of a trial."""
    primary = experiment.primary_name
    message = "Katib 0.19 refuses every pod of a trial that has no container with the primary container's name"
    if experiment.kind == "TrainJob":
        path: YamlPath = (*TEMPLATE, "spec", "initializer")
        if experiment.get(*path) is not None:
            yield path, message, "remove the initializer, and fetch the data in the trainer"
        return
    pods: dict[YamlPath, list[str]] = {}
    for path, container in experiment.containers():
        pods.setdefault(path[:-2], []).append(str(container.get("name")))
    if any(primary in names for names in pods.values()):
        for path, names in pods.items():
            if primary not in names:
                yield path, message, f"name its container {primary}"


def _secrets(experiment: Experiment) -> Iterator[Problem]:
    """Secrets in commands and variables: an Experiment is not secret, and Katib copies it into trials, jobs and pods."""
    message = "{} contains a secret, which all who may read Experiments, trials or pods see"
    fix = "keep it in a Kubernetes secret: a variable with valueFrom.secretKeyRef, and ${{oc.env:{}}} in the command"
    for path, container in experiment.containers():
        for key in ("command", "args"):
            words = container.get(key)
            if isinstance(words, list) and not words == mask_secrets(words) == mask_command([*map(str, words)]):
                yield (*path, key), message.format("the command"), fix.format("NAME")
        for index, variable in enumerate(rows if isinstance(rows := container.get("env"), list) else []):
            if isinstance(variable, dict) and mask_secrets(variable) != variable:
                name = str(variable.get("name"))
                yield (*path, "env", index), message.format(name), fix.format(name)


RULES = (
    Rule("K301", "warning", "every metric has a strategy", _strategies),
    Rule("K302", "warning", "tpe does not repeat points", _tpe, "tpe"),
    Rule("K303", "warning", "the algorithm uses distributions and steps", _distributions),
    Rule("K304", "warning", "the search ends", _counts),
    Rule("K305", "warning", "a failing trial is not repeated", _retries),
    Rule("K306", "warning", "Istio adds no proxy to trials", _istio),
    Rule("K307", "warning", "the command is in the file", _image_command),
    Rule("K308", "warning", "output is not buffered", _buffering),
    Rule("K309", "warning", "the command has no brace expansion", _brace_expansion),
    Rule("K310", "warning", "hyperband does not stall after its first rung", _hyperband, "hyperband"),
    Rule("K311", "warning", "every pod of a trial has the primary container", _pods),
    Rule("K315", "warning", "secrets are in Kubernetes secrets", _secrets),
)
