"""An Experiment as Katib v0.19 reads it, with its webhook's defaults; tolerant, so that `check` can read invalid ones."""

import functools
import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from katib import shell_command
from katib.documents import Document, YamlPath
from runs.metric_lines import KATIB_FILTER

SPEC = "spec"
OBJECTIVE: YamlPath = (SPEC, "objective")
TRIAL: YamlPath = (SPEC, "trialTemplate")
TEMPLATE: YamlPath = (*TRIAL, "trialSpec")
COLLECTOR: YamlPath = (SPEC, "metricsCollectorSpec")
SOURCE: YamlPath = (*COLLECTOR, "source")
# References to the trial itself (trial_template constants of Katib).
META = re.compile(r"\$\{trialSpec\.(.+?)\}")
META_KEYS = ("Name", "Namespace", "Kind", "APIVersion", "Annotations", "Labels")
META_INDEXED = re.compile(r"(.+)\[(.+)\]")
PLACEHOLDER = "${{trialParameters.{name}}}"
ANY_PLACEHOLDER = re.compile(r"\$\{trialParameters\..+?\}")
# Defaults of the collectors: the metrics file, and the directory of event files.
METRICS_LOG = "/var/log/katib/metrics.log"
EVENTS = "/var/log/katib/tfevent/"
KUBEFLOW_JOBS = ("TFJob", "PyTorchJob", "MPIJob", "XGBoostJob", "TrainJob")
_JOB_CONDITION = 'status.conditions.#(type=="{}")#|#(status=="True")#'


@dataclass(frozen=True)
class Parameter:
    """One dimension of the search space; values are strings, as in the file.

    Attributes:
        name: name of the parameter.
        type: double, int, discrete or categorical.
        low, high, step: of a double or an int; "" if absent.
        choices: of a discrete or categorical parameter.
        distribution: `uniform` by default.
        path: path in the document.
    """

    name: str
    type: str
    low: str
    high: str
    step: str
    choices: tuple[str, ...]
    distribution: str
    path: YamlPath

    @property
    def space_path(self) -> YamlPath:
        """Path of the feasible space."""
        return (*self.path, "feasibleSpace")

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Minimum and maximum; None unless both are finite numbers."""
        low, high = parse_number(self.low), parse_number(self.high)
        return (low, high) if low is not None and high is not None else None

    def grid(self) -> list[str]:
        """Return the values of Katib's grid as it writes them; empty without bounds or step.

        Doubles have the digits of `numpy.arange` (convert_to_combinations in search_space.py of Katib's services).
        """
        if self.choices:
            return list(self.choices)
        bounds, step = self.numbers, parse_number(self.step) if self.step else (1.0 if self.type == "int" else None)
        if bounds is None or step is None or step <= 0 or not (bounds[1] - bounds[0]) / step < 100_000:
            return []
        low, high = bounds
        if self.type == "int":
            return [str(value) for value in range(int(low), int(high) + 1, max(1, int(step)))]
        delta, count = low + step - low, math.ceil((high + step - low) / step)
        values = [low, low + step, *(low + index * delta for index in range(2, count))][: max(0, count)]
        return [repr(value) for value in (values[:-1] if values and values[-1] > high else values)]


class Experiment:
    """A document with `kind: Experiment`, read field by field; a missing or misshapen field reads as empty."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.value: dict[str, Any] = document.value if isinstance(document.value, dict) else {}

    def get(self, *path: str | int, default: Any = None) -> Any:
        """Return the value at a path, or `default`."""
        value: Any = self.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return default
        return default if value is None else value

    def mapping(self, *path: str | int) -> dict[str, Any]:
        """Return the mapping at a path; empty if there is none."""
        value = self.get(*path)
        return value if isinstance(value, dict) else {}

    def items(self, *path: str | int) -> list[Any]:
        """Return the list at a path; empty if there is none."""
        value = self.get(*path)
        return value if isinstance(value, list) else []

    def text(self, *path: str | int, default: str = "") -> str:
        """Return the value at a path as a string."""
        return str(self.get(*path, default=default))

    @property
    def name(self) -> str:
        return self.text("metadata", "name")

    # --- objective

    @property
    def objective(self) -> str:
        return self.text(*OBJECTIVE, "objectiveMetricName")

    @property
    def maximize(self) -> bool:
        return bool(self.get(*OBJECTIVE, "type") == "maximize")

    @property
    def goal(self) -> float | None:
        return parse_number(self.get(*OBJECTIVE, "goal"))

    @property
    def metrics(self) -> list[str]:
        """The objective, then the additional metrics."""
        return [self.objective, *(str(name) for name in self.items(*OBJECTIVE, "additionalMetricNames"))]

    @property
    def explicit_strategies(self) -> dict[str, str]:
        """Strategies that the file states, by metric."""
        rows = [row for row in self.items(*OBJECTIVE, "metricStrategies") if isinstance(row, dict)]
        return {str(row.get("name")): str(row.get("value")) for row in rows}

    @property
    def strategies(self) -> dict[str, str]:
        """How each metric's values become one: min, max or latest; the default follows the objective's type."""
        explicit = self.explicit_strategies
        default = {"minimize": "min", "maximize": "max"}.get(self.get(*OBJECTIVE, "type"), "latest")
        return {name: explicit.get(name, default) for name in self.metrics}

    # --- algorithm and counts

    @property
    def algorithm(self) -> str:
        return self.text(SPEC, "algorithm", "algorithmName")

    @property
    def settings(self) -> dict[str, str]:
        return _settings(self.items(SPEC, "algorithm", "algorithmSettings"))

    @property
    def early_stopping(self) -> str:
        return self.text(SPEC, "earlyStopping", "algorithmName")

    @property
    def stopping_settings(self) -> dict[str, str]:
        return _settings(self.items(SPEC, "earlyStopping", "algorithmSettings"))

    def count(self, name: str, default: int | None = None) -> int | None:
        """Return parallelTrialCount, maxTrialCount or maxFailedTrialCount."""
        value = self.get(SPEC, name)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    @property
    def parallel(self) -> int:
        return self.count("parallelTrialCount", 3) or 3

    @functools.cached_property
    def parameters(self) -> list[Parameter]:
        parameters = []
        for index, value in enumerate(self.items(SPEC, "parameters")):
            path: YamlPath = (SPEC, "parameters", index)
            space = self.mapping(*path, "feasibleSpace")
            if isinstance(value, dict):
                name, kind = _to_text(value.get("name")), _to_text(value.get("parameterType"))
                low, high, step = (_to_text(space.get(key)) for key in ("min", "max", "step"))
                choices = tuple(_to_text(choice) for choice in self.items(*path, "feasibleSpace", "list"))
                distribution = _to_text(space.get("distribution")) or "uniform"
                parameters.append(Parameter(name, kind, low, high, step, choices, distribution, path))
        return parameters

    # --- the trial

    @property
    def kind(self) -> str:
        return self.text(*TEMPLATE, "kind")

    @property
    def trial_parameters(self) -> list[tuple[str, str, YamlPath]]:
        """Name, reference and path of each trial parameter."""
        path = (*TRIAL, "trialParameters")
        return [
            (_to_text(value.get("name")), _to_text(value.get("reference")), (*path, index))
            for index, value in enumerate(self.items(*path))
            if isinstance(value, dict)
        ]

    def containers(self) -> Iterator[tuple[YamlPath, dict[str, Any]]]:
        """Return path and value of every container of the workload; a TrainJob's trainer counts as its `node`."""
        if self.kind == "TrainJob" and isinstance(self.get(*TEMPLATE, "spec", "trainer"), dict):
            yield (*TEMPLATE, "spec", "trainer"), {"name": "node", **self.mapping(*TEMPLATE, "spec", "trainer")}
            return
        for path, containers in iter_lists(self.mapping(*TEMPLATE), TEMPLATE, "containers"):
            for index, container in enumerate(containers):
                if isinstance(container, dict):
                    yield (*path, index), container

    @property
    def primary_name(self) -> Any:
        """Name of the primary container, as in the file."""
        return self.get(*TRIAL, "primaryContainerName")

    @property
    def primary(self) -> tuple[YamlPath, dict[str, Any]] | None:
        """The container whose metrics count: the first of that name; a PyTorchJob's Master, never its Workers."""
        rows = (row for row in self.containers() if row[1].get("name") == self.primary_name and "Worker" not in row[0])
        return next(rows, None)

    @property
    def replicas(self) -> list[tuple[YamlPath, dict[str, Any]]]:
        """The containers that train: the primary one, then those of its name in other pods, as a PyTorchJob's Workers."""
        primary = self.primary
        if primary is None:
            return []
        rows = [row for row in self.containers() if row[1].get("name") == self.primary_name]
        return [primary, *(row for row in rows if row[0][:-2] != primary[0][:-2])]

    @property
    def pod(self) -> dict[str, Any]:
        """Spec of the primary container's pod; empty for a TrainJob, whose pod comes from the runtime."""
        return self.mapping(*self.primary[0][:-2]) if self.primary and self.kind != "TrainJob" else {}

    @property
    def command(self) -> list[str]:
        """Command and arguments of the primary container; empty if the image decides."""
        return container_words(self.primary[1] if self.primary else {})

    @property
    def train_overrides(self) -> list[str]:
        """Arguments of train.py in the command; empty without a call, or if the shell would refuse the command."""
        return shell_command.train_overrides(self.command, self.collector in shell_command.WRAPPED)

    @property
    def calls_train(self) -> bool:
        """Whether the trials call our train.py."""
        return shell_command.takes_overrides(self.train_overrides)

    # --- the collector

    @property
    def collector(self) -> str:
        return self.text(*COLLECTOR, "collector", "kind", default="StdOut")

    @property
    def metrics_path(self) -> str:
        """The file or directory that the collector reads."""
        if self.collector in ("File", "TensorFlowEvent", "Custom"):
            default = {"File": METRICS_LOG, "TensorFlowEvent": EVENTS}.get(self.collector, "")
            return str(self.get(*SOURCE, "fileSystemPath", "path") or default)
        return METRICS_LOG if self.collector == "StdOut" else ""

    @property
    def metrics_folder(self) -> str:
        """The folder in the primary container where Katib mounts its volume; "" if it mounts none."""
        path = posixpath.normpath(self.metrics_path) if self.metrics_path else ""
        is_folder = self.collector == "TensorFlowEvent" or (
            self.collector == "Custom" and self.get(*SOURCE, "fileSystemPath", "kind") == "Directory"
        )
        return path if is_folder else posixpath.dirname(path)

    @property
    def metrics_format(self) -> str:
        return self.text(*SOURCE, "fileSystemPath", "format") or "TEXT" if self.collector == "File" else "TEXT"

    @property
    def filters(self) -> list[str]:
        """Regular expressions that match name and value in a line of text."""
        filters = self.items(*SOURCE, "filter", "metricsFormat")
        return [str(expression) for expression in filters] or [KATIB_FILTER]


def container_words(container: Mapping[str, Any]) -> list[str]:
    """Return the command and arguments of a container; empty if the image decides."""
    parts = [container.get(key) for key in ("command", "args")]
    return [_to_text(word) for part in parts if isinstance(part, list) for word in part]


def trial_parameter(name: str) -> str:
    """Return a trial parameter's name: the parameter's without dots, `optim.lr` as optimLr."""
    first, *rest = re.findall(r"[A-Za-z0-9]+", name) or ["parameter"]
    return str(first) + "".join(word[:1].upper() + word[1:] for word in rest)


def default_condition(kind: str, key: str) -> str:
    """Return the default successCondition or failureCondition (the key) of a workload; "" if Katib has none."""
    success = "Complete" if kind in ("Job", "TrainJob") else "Succeeded"
    state = success if key == "successCondition" else "Failed"
    return _JOB_CONDITION.format(state) if kind in ("Job", *KUBEFLOW_JOBS) else ""


def substitute(experiment: Experiment, trial: str, assignments: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """Return a trial's workload: placeholders replaced as text in the template's JSON, as Katib does it.

    Args:
        experiment: a checked Experiment.
        trial: name of the trial.
        assignments: value of each parameter.
        namespace: namespace of the Experiment.

    Raises:
        ValueError: a value breaks the JSON, or a reference cannot be resolved.
    """
    template = experiment.mapping(*TEMPLATE)
    text = json.dumps(template, ensure_ascii=False)
    for name, reference, _ in experiment.trial_parameters:
        is_trial = META.search(reference)
        value = resolve_meta(template, reference, trial, namespace) if is_trial else assignments.get(reference)
        if value is None:
            raise ValueError(f"the trial parameter {name} refers to {reference}, which has no value")
        text = text.replace(PLACEHOLDER.format(name=name), value)
    try:
        workload = json.loads(text)
    except ValueError as error:
        raise ValueError("a value has a quotation mark or a backslash, which breaks the template's JSON") from error
    metadata = workload["metadata"] if isinstance(workload.get("metadata"), dict) else {}
    return {**workload, "metadata": {**metadata, "name": trial, "namespace": namespace}}


def trial_view(experiment: Experiment, workload: Mapping[str, Any]) -> Experiment:
    """Return a trial's workload as an Experiment, to read its `command`, `primary` and `pod`."""
    value = {SPEC: {"trialTemplate": {"primaryContainerName": experiment.primary_name, "trialSpec": workload}}}
    return Experiment(Document(experiment.document.file, value, {}))


def trial_command(
    experiment: Experiment, trial: str, assignments: Mapping[str, str], namespace: str = "default"
) -> list[str]:
    """Return the command and arguments of a trial's primary container.

    Raises:
        ValueError: see `substitute`.
    """
    return trial_view(experiment, substitute(experiment, trial, assignments, namespace)).command


def resolve_meta(template: Mapping[str, Any], reference: str, trial: str, namespace: str) -> str | None:
    """Return the value of `${trialSpec.Name}` and the like; None if it cannot be resolved."""
    match = META.search(reference)
    key = match[1] if match else ""
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
    """Return whether the webhook takes a reference for one to the trial itself."""
    match = META.search(reference)
    indexed = META_INDEXED.search(match[1]) if match else None
    return bool((match and match[1] in META_KEYS) or (indexed and indexed[1] in META_KEYS))


def parse_number(value: Any) -> float | None:
    """Return a finite number, from a number or a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def iter_strings(value: Any, path: YamlPath) -> Iterator[tuple[YamlPath, str]]:
    """Return every string in a mapping or list, keys included, with its path."""
    for child_path, child in _iter_values(value, path):
        for text in (child_path[-1], child):
            if isinstance(text, str):
                yield child_path, text


def iter_lists(value: Any, path: YamlPath, key: str) -> Iterator[tuple[YamlPath, list[Any]]]:
    """Return every list of a key, at any depth, with its path."""
    for child_path, child in _iter_values(value, path):
        if child_path[-1] == key and isinstance(child, list):
            yield child_path, child


def _iter_values(value: Any, path: YamlPath) -> Iterator[tuple[YamlPath, Any]]:
    """Return every value inside a mapping or list, at any depth, with its path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in pairs:
        name = str(key) if isinstance(value, dict) else key
        yield (*path, name), child
        if isinstance(child, dict | list):
            yield from _iter_values(child, (*path, name))


def _settings(rows: list[Any]) -> dict[str, str]:
    return {_to_text(row.get("name")): _to_text(row.get("value")) for row in rows if isinstance(row, dict)}


def _to_text(value: Any) -> str:
    """Return a value as the string that Kubernetes would pass on."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
