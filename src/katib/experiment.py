"""An Experiment as Katib v0.19 sees it, its webhook's defaults filled in; forgiving, so that a check can look at all of it."""

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from katib.documents import Document, YamlPath
from runs.metric_lines import KATIB_FILTER

# trial_template consts of Katib: what a reference to the trial itself looks like.
META = re.compile(r"\$\{trialSpec\.(.+?)\}")
META_KEYS = ("Name", "Namespace", "Kind", "APIVersion", "Annotations", "Labels")
META_INDEXED = re.compile(r"(.+)\[(.+)\]")
PLACEHOLDER = "${{trialParameters.{name}}}"
ANY_PLACEHOLDER = re.compile(r"\$\{trialParameters\..+?\}")
# The default collector's file, and its directory of event files.
METRICS_LOG = "/var/log/katib/metrics.log"
EVENTS = "/var/log/katib/tfevent/"
KUBEFLOW_JOBS = ("TFJob", "PyTorchJob", "MPIJob", "XGBoostJob", "TrainJob")
_JOB_CONDITION = 'status.conditions.#(type=="{}")#|#(status=="True")#'


@dataclass(frozen=True)
class Parameter:
    """One dimension of the search space; values are texts, as in the file.

    Attributes:
        name: of the parameter.
        type: double, int, discrete or categorical.
        low, high, step: of a double or an int; "" where absent.
        choices: of a discrete or categorical one.
        distribution: uniform unless the file says otherwise.
        place: in the document.
    """

    name: str
    type: str
    low: str
    high: str
    step: str
    choices: tuple[str, ...]
    distribution: str
    place: YamlPath

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Both bounds, if they are finite numbers."""
        low, high = parse_number(self.low), parse_number(self.high)
        return (low, high) if low is not None and high is not None else None

    def steps(self) -> list[str]:
        """The values on the grid from low by step to high, as Katib writes them; empty without bounds or step."""
        bounds, step = self.numbers, parse_number(self.step) if self.step else (1.0 if self.type == "int" else None)
        if self.choices:
            return list(self.choices)
        if bounds is None or step is None or step <= 0:
            return []
        ratio = (bounds[1] - bounds[0]) / step + 1e-9
        if not ratio < 100_000:
            return []
        count = math.floor(ratio) + 1
        if self.type == "int":
            return [str(int(bounds[0]) + int(step) * i) for i in range(count)]
        return [repr(bounds[0] + step * i) for i in range(count)]


class Experiment:
    """A document with `kind: Experiment`, read field by field; a missing or misshapen field reads as empty."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.value: dict[str, Any] = document.value if isinstance(document.value, dict) else {}

    def get(self, *place: str | int, default: Any = None) -> Any:
        """What is at a place, or `default`."""
        value: Any = self.value
        for part in place:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return default
        return default if value is None else value

    def mapping(self, *place: str | int) -> dict[str, Any]:
        """The mapping at a place; empty if there is none."""
        value = self.get(*place)
        return value if isinstance(value, dict) else {}

    def items(self, *place: str | int) -> list[Any]:
        """The list at a place; empty if there is none."""
        value = self.get(*place)
        return value if isinstance(value, list) else []

    @property
    def name(self) -> str:
        return str(self.get("metadata", "name", default=""))

    # --- objective

    @property
    def objective(self) -> str:
        return str(self.get("spec", "objective", "objectiveMetricName", default=""))

    @property
    def maximize(self) -> bool:
        return bool(self.get("spec", "objective", "type") == "maximize")

    @property
    def goal(self) -> float | None:
        return parse_number(self.get("spec", "objective", "goal"))

    @property
    def metrics(self) -> list[str]:
        """The objective, then the additional metrics."""
        return [self.objective, *(str(name) for name in self.items("spec", "objective", "additionalMetricNames"))]

    @property
    def strategies(self) -> dict[str, str]:
        """How each metric of a trial becomes one value: min, max or latest; by default what the objective asks for."""
        given = [each for each in self.items("spec", "objective", "metricStrategies") if isinstance(each, dict)]
        explicit = {str(each.get("name")): str(each.get("value")) for each in given}
        default = {"minimize": "min", "maximize": "max"}.get(self.get("spec", "objective", "type"), "latest")
        return {name: explicit.get(name, default) for name in self.metrics}

    # --- algorithm and counts

    @property
    def algorithm(self) -> str:
        return str(self.get("spec", "algorithm", "algorithmName", default=""))

    @property
    def settings(self) -> dict[str, str]:
        return _settings(self.items("spec", "algorithm", "algorithmSettings"))

    @property
    def early_stopping(self) -> str:
        return str(self.get("spec", "earlyStopping", "algorithmName", default=""))

    @property
    def stopping_settings(self) -> dict[str, str]:
        return _settings(self.items("spec", "earlyStopping", "algorithmSettings"))

    def count(self, name: str, default: int | None = None) -> int | None:
        """parallelTrialCount, maxTrialCount or maxFailedTrialCount."""
        value = self.get("spec", name)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    @property
    def parallel(self) -> int:
        return self.count("parallelTrialCount", 3) or 3

    @functools.cached_property
    def parameters(self) -> list[Parameter]:
        found = []
        for index, each in enumerate(self.items("spec", "parameters")):
            place: YamlPath = ("spec", "parameters", index)
            space = self.mapping(*place, "feasibleSpace")
            if isinstance(each, dict):
                found.append(
                    Parameter(
                        name=_text(each.get("name")),
                        type=_text(each.get("parameterType")),
                        low=_text(space.get("min")),
                        high=_text(space.get("max")),
                        step=_text(space.get("step")),
                        choices=tuple(_text(choice) for choice in self.items(*place, "feasibleSpace", "list")),
                        distribution=_text(space.get("distribution")) or "uniform",
                        place=place,
                    )
                )
        return found

    # --- the trial

    @property
    def kind(self) -> str:
        return str(self.get(*TEMPLATE, "kind", default=""))

    @property
    def trial_parameters(self) -> list[tuple[str, str, YamlPath]]:
        """Name, reference and place of each."""
        place = ("spec", "trialTemplate", "trialParameters")
        return [
            (_text(each.get("name")), _text(each.get("reference")), (*place, index))
            for index, each in enumerate(self.items(*place))
            if isinstance(each, dict)
        ]

    def containers(self) -> Iterator[tuple[YamlPath, dict[str, Any]]]:
        """Every container of the workload (a TrainJob's trainer counts as its `node`)."""
        spec = self.mapping(*TEMPLATE)
        if self.kind == "TrainJob" and isinstance(self.get(*TEMPLATE, "spec", "trainer"), dict):
            yield (*TEMPLATE, "spec", "trainer"), {"name": "node", **self.mapping(*TEMPLATE, "spec", "trainer")}
            return
        for place, containers in _lists(spec, TEMPLATE, "containers"):
            for index, container in enumerate(containers):
                if isinstance(container, dict):
                    yield (*place, index), container

    @property
    def primary(self) -> tuple[YamlPath, dict[str, Any]] | None:
        """The container whose metrics count: the first of that name, a PyTorchJob's Master before its Workers."""
        wanted = self.get("spec", "trialTemplate", "primaryContainerName")
        named = [each for each in self.containers() if each[1].get("name") == wanted]
        return next((each for each in named if "Worker" not in each[0]), None)

    @property
    def pod(self) -> dict[str, Any]:
        """The pod's spec around the primary container; empty for a TrainJob, whose pod is the runtime's."""
        primary = self.primary
        if primary is None or self.kind == "TrainJob":
            return {}
        return self.mapping(*primary[0][:-2])

    @property
    def line(self) -> list[str]:
        """Command and arguments of the primary container; empty if the image decides."""
        container = self.primary[1] if self.primary else {}
        parts = [container.get(key) for key in ("command", "args")]
        return [_text(word) for part in parts if isinstance(part, list) for word in part]

    # --- the collector

    @property
    def collector(self) -> str:
        return str(self.get("spec", "metricsCollectorSpec", "collector", "kind", default="StdOut"))

    @property
    def metrics_path(self) -> str:
        """The file or directory that the collector reads."""
        if self.collector in ("File", "TensorFlowEvent", "Custom"):
            given = self.get("spec", "metricsCollectorSpec", "source", "fileSystemPath", "path")
            default = {"File": METRICS_LOG, "TensorFlowEvent": EVENTS}.get(self.collector, "")
            return str(given or default)
        return METRICS_LOG if self.collector == "StdOut" else ""

    @property
    def metrics_format(self) -> str:
        if self.collector != "File":
            return "TEXT"
        return str(self.get("spec", "metricsCollectorSpec", "source", "fileSystemPath", "format", default="TEXT"))

    @property
    def filters(self) -> list[str]:
        """Regular expressions that find name and value in a line of text."""
        given = self.items("spec", "metricsCollectorSpec", "source", "filter", "metricsFormat")
        return [str(each) for each in given] or [KATIB_FILTER]


TEMPLATE: YamlPath = ("spec", "trialTemplate", "trialSpec")


def condition(kind: str, succeeded: bool) -> str:
    """The default successCondition or failureCondition of a kind of workload; "" if Katib has none."""
    if kind in ("Job", "TrainJob"):
        return _JOB_CONDITION.format("Complete" if succeeded else "Failed")
    return _JOB_CONDITION.format("Succeeded" if succeeded else "Failed") if kind in KUBEFLOW_JOBS else ""


def substitute(experiment: Experiment, trial: str, assignments: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """The trial's workload: placeholders replaced as text in the template's JSON, as Katib does it.

    Args:
        experiment: checked.
        trial: the trial's name.
        assignments: value of each parameter.
        namespace: of the experiment.

    Raises:
        ValueError: a value breaks the JSON, or a reference is to nothing.
    """
    template = experiment.mapping(*TEMPLATE)
    text = json.dumps(template, ensure_ascii=False)
    for name, reference, _ in experiment.trial_parameters:
        value = meta(template, reference, trial, namespace) if META.search(reference) else assignments.get(reference)
        if value is None:
            raise ValueError(f"the trial parameter {name} refers to {reference}, which has no value")
        text = text.replace(PLACEHOLDER.format(name=name), value)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError("a value holds a quotation mark or a backslash, which breaks the template's JSON") from error
    metadata = found["metadata"] if isinstance(found.get("metadata"), dict) else {}
    return {**found, "metadata": {**metadata, "name": trial, "namespace": namespace}}


def trial_of(experiment: Experiment, workload: Mapping[str, Any]) -> Experiment:
    """A substituted workload, to be read with the same words: `line`, `primary`, `pod`."""
    name = experiment.get("spec", "trialTemplate", "primaryContainerName")
    value = {"spec": {"trialTemplate": {"primaryContainerName": name, "trialSpec": workload}}}
    return Experiment(Document(experiment.document.file, value, {}))


def meta(template: Mapping[str, Any], reference: str, trial: str, namespace: str) -> str | None:
    """What `${trialSpec.Name}` and the like stand for; None if the reference is to nothing."""
    found = META.search(reference)
    key = found[1] if found else ""
    if indexed := META_INDEXED.search(key):
        group = {"Labels": "labels", "Annotations": "annotations"}.get(indexed[1], "")
        metadata = template.get("metadata")
        values = (metadata.get(group) if isinstance(metadata, dict) else None) or {}
        return str(values[indexed[2]]) if indexed[2] in values else None
    return {
        "Name": trial,
        "Namespace": namespace,
        "Kind": str(template.get("kind", "")),
        "APIVersion": str(template.get("apiVersion", "")),
    }.get(key)


def is_meta(reference: str) -> bool:
    """Whether the webhook takes a reference for one to the trial itself."""
    if not (found := META.search(reference)):
        return False
    indexed = META_INDEXED.search(found[1])
    return found[1] in META_KEYS or bool(indexed and indexed[1] in META_KEYS)


def parse_number(value: Any) -> float | None:
    """A finite number, from a number or a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _settings(given: list[Any]) -> dict[str, str]:
    return {_text(each.get("name")): _text(each.get("value")) for each in given if isinstance(each, dict)}


def _text(value: Any) -> str:
    """A value as the text that Kubernetes would pass on."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def leaves(value: Any, place: YamlPath) -> Iterator[tuple[YamlPath, str]]:
    """Every text in a value, keys included, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, str(key)), str(key)
            yield from leaves(inner, (*place, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*place, index))
    elif isinstance(value, str):
        yield place, value


def _lists(value: Any, place: YamlPath, key: str) -> Iterator[tuple[YamlPath, list[Any]]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key and isinstance(inner, list):
                yield (*place, name), inner
            else:
                yield from _lists(inner, (*place, name), key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _lists(inner, (*place, index), key)
