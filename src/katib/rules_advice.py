"""What works on the cluster, badly."""

import re
from collections.abc import Iterator

from katib import shell_command
from katib.documents import YamlPath
from katib.experiment import TEMPLATE, Experiment
from katib.rule import Problem, Rule
from katib.rules_webhook import SPEC, TRIAL


def _other_pods(experiment: Experiment) -> Iterator[Problem]:
    """Pods without the primary container: Katib 0.19's webhook puts the trial's name into it, in every pod of a trial."""
    wanted = experiment.get(*TRIAL, "primaryContainerName")
    said = "Katib 0.19 refuses every pod of a trial without the primary container"
    if experiment.kind == "TrainJob":
        if experiment.get(*TEMPLATE, "spec", "initializer") is not None:
            place: YamlPath = (*TEMPLATE, "spec", "initializer")
            yield place, f"{said}, and an initializer's has none", "let the trainer fetch its data itself"
        return
    pods: dict[YamlPath, list[str]] = {}
    for place, container in experiment.containers():
        pods.setdefault(place[:-2], []).append(str(container.get("name")))
    if any(wanted in inside for inside in pods.values()):
        for place, inside in pods.items():
            if wanted not in inside:
                yield place, f"{said}, and this one has no {wanted}", f"name its container {wanted}"


def _strategies(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.objective:
        return
    given = experiment.items("spec", "objective", "metricStrategies")
    explicit = {each.get("name") for each in given if isinstance(each, dict)}
    for metric, default in experiment.strategies.items():
        if metric not in explicit:
            place = ("spec", "objective", "metricStrategies")
            loss = " (of a loss, the worst)" if default == "max" and "loss" in metric else ""
            yield (
                place,
                f"{metric} has no strategy: Katib takes its {default}{loss}",
                f"add {{name: {metric}, value: …}}",
            )


def _batches(experiment: Experiment) -> Iterator[Problem]:
    if experiment.algorithm == "tpe" and experiment.parallel > 1:
        message = f"Katib's tpe proposes the same point {experiment.parallel} times in each round (kubeflow/katib#1329)"
        yield (SPEC, "algorithm", "algorithmName"), message, "use multivariate-tpe, or parallelTrialCount: 1"


def _ignored(experiment: Experiment) -> Iterator[Problem]:
    for each in experiment.parameters:
        place = (*each.place, "feasibleSpace", "distribution")
        if experiment.algorithm in ("cmaes", "sobol", "hyperband", "pbt", "bayesianoptimization"):
            really = "log-uniform" if experiment.algorithm == "bayesianoptimization" else "uniform"
            if each.type == "double" and each.distribution not in ("uniform",) and really == "uniform":
                message = f"{experiment.algorithm} ignores {each.distribution} in Katib 0.19 and searches uniformly"
                yield place, message, "search the exponent, or use random or multivariate-tpe"
        elif experiment.algorithm in ("random", "tpe") and each.distribution in ("normal", "logNormal"):
            message = f"{each.distribution} goes beyond min and max"
            yield place, message, "use uniform or logUniform where the bounds must hold"
        if experiment.algorithm == "bayesianoptimization" and each.step:
            yield (*each.place, "feasibleSpace", "step"), "bayesianoptimization ignores steps", "use int or a list"


def _unbounded(experiment: Experiment) -> Iterator[Problem]:
    if experiment.count("maxTrialCount") is None and experiment.algorithm != "grid":
        yield (SPEC,), "without maxTrialCount the search goes on until its goal, or for ever", "add maxTrialCount"
    if experiment.count("maxFailedTrialCount") is None:
        yield (SPEC,), "without maxFailedTrialCount failing trials never end the search", "add maxFailedTrialCount"


def _retries(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "Job" and experiment.get(*TEMPLATE, "spec", "backoffLimit") is None:
        place = (*TEMPLATE, "spec")
        yield place, "a failing trial is tried seven times (backoffLimit is 6 by default)", "add backoffLimit: 0"


def _istio(experiment: Experiment) -> Iterator[Problem]:
    if experiment.kind == "TrainJob" or experiment.primary is None:
        return
    place = (*experiment.primary[0][:-3], "metadata")
    for group in ("labels", "annotations"):
        if str(experiment.get(*place, group, "sidecar.istio.io/inject", default="")).lower() == "false":
            return
    message = "where Istio adds its proxy to pods, a trial's metrics come only when the proxy ends: never"
    yield place, message, 'add the label sidecar.istio.io/inject: "false" to the pod'


def _image(experiment: Experiment) -> Iterator[Problem]:
    if (
        experiment.primary
        and not experiment.primary[1].get("command")
        and experiment.collector in shell_command.WRAPPED
    ):
        message = "without a command Katib asks the image's registry for one, which fails where it needs a login"
        yield experiment.primary[0], message, 'write command: ["sh", "-c", "<one line>"]'


def _buffered(experiment: Experiment) -> Iterator[Problem]:
    if not experiment.early_stopping or experiment.primary is None or not experiment.line:
        return
    line = shell_command.script(experiment.line)
    named = {each.get("name") for each in experiment.primary[1].get("env") or [] if isinstance(each, dict)}
    python = re.search(r"(^|[\s/])python[\d.]*\s+(?!-\S*u)", line)
    if python and "train.py" not in line and "PYTHONUNBUFFERED" not in named:
        message = "Python keeps its output back when it is no terminal: the trial is stopped only when it has ended"
        yield experiment.primary[0], message, "call python -u, or set PYTHONUNBUFFERED=1"


def _braces(experiment: Experiment) -> Iterator[Problem]:
    if experiment.line[:1] == ["bash"] or experiment.line[:1] == ["sh"]:
        bare = shell_command.bare(re.sub(r"\$\{[^}]*\}", "x", shell_command.script(experiment.line)))
        if (found := re.search(r"\{[^}\s]*,[^}\s]*\}", bare)) and experiment.primary:
            message = f"bash makes several words of {found[0]}, and sh is bash in some images"
            yield (*experiment.primary[0], "command"), message, "put it in single quotes"


def _brackets(experiment: Experiment) -> Iterator[Problem]:
    """A search that sticks after hyperband's first rung (kubeflow/katib#1168).

    Katib 0.19's controller asks for as many points as places are free, and takes no other number for an answer; the
    service answers with its next rung, which is smaller. One is always one.
    """
    maximum = experiment.count("maxTrialCount")
    if experiment.algorithm == "hyperband" and (maximum is None or maximum > experiment.parallel + 1):
        message = (
            f"Katib 0.19 takes no second rung from hyperband: the search sticks after {experiment.parallel} trials"
        )
        mend = (
            f"on a cluster use maxTrialCount: {experiment.parallel + 1}; `python -m katib run` goes through all rungs"
        )
        yield (SPEC, "maxTrialCount"), message, mend


RULES = (
    Rule("K301", "warning", "every metric has a strategy", _strategies),
    Rule("K302", "warning", "tpe proposes the same point for a whole batch", _batches),
    Rule("K303", "warning", "distributions and steps that the algorithm ignores", _ignored),
    Rule("K304", "warning", "the search ends", _unbounded),
    Rule("K305", "warning", "a failing trial is not repeated", _retries),
    Rule("K306", "warning", "Istio keeps away from trials", _istio),
    Rule("K307", "warning", "the command is in the file", _image),
    Rule("K308", "warning", "output is not held back", _buffered),
    Rule("K309", "warning", "no brace expansion", _braces),
    Rule("K310", "warning", "hyperband sticks after its first rung", _brackets),
    Rule("K311", "warning", "every pod of a trial has the primary container", _other_pods),
)
