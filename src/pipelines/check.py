"""Static check of a compiled pipeline, for errors that a cluster would report late, or never.

KFP's own loaders find a third of them (unknown fields, wrong types). The rest are references, which nothing checks before a run:
https://github.com/kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto and kubernetes_executor_config.proto.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.compilation import read_documents, spec_parameters
from pipelines.definition import CACHED

SCHEMA = "2.1.0"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?")
_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_OPERAND = r"(?:(?:int|double|string)\()?(?:inputs\.parameter_values\['[^']+'\]|'[^']*'|-?\d+(?:\.\d+)?|true|false)\)?"
_TERM = rf"!?\(*\s*{_OPERAND}\s*(?:==|!=|<=|>=|<|>)\s*{_OPERAND}\s*\)*"
_CONDITION = re.compile(rf"{_TERM}(?:\s*(?:&&|\|\|)\s*{_TERM})*")
_TYPES = {
    "STRING": (str,), "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,),
    "LIST": (list,), "STRUCT": (dict,),
}  # fmt: skip
Json = Mapping[str, Any]
Findings = Iterator[tuple[str, str]]  # location and message


@dataclass(frozen=True)
class Finding:
    """An error in a compiled pipeline.

    Attributes:
        file: The file.
        location: Keys from the top of the document.
        message: What is wrong.
    """

    file: str
    location: str
    message: str


def check_pipeline(file: str, pinned: bool = False) -> list[Finding]:
    """Check a compiled pipeline.

    Args:
        file: The file.
        pinned: Whether the image must be named by its digest.

    Raises:
        InputError: The file is not a compiled pipeline.
    """
    documents = read_documents(file)
    findings = [*_check_spec(documents[0], pinned)]
    if all("image" in message for _, message in findings):  # the check relies on a valid specification
        findings += _check_platform(documents[0], documents[1:])
    return [Finding(file, location, message) for location, message in findings]


def _check_spec(spec: Json, pinned: bool) -> Findings:
    """Findings of the first check that has any: the checks rely on those before them."""
    for check in (_check_syntax, _check_header, _check_references, _check_conditions, _check_executors):
        if findings := list(check(spec)):
            yield from findings
            return
    yield from _check_images(spec, pinned)


def _check_syntax(spec: Json) -> Findings:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    deployment = spec.get("deploymentSpec") or {}
    for location, value, message in (
        ("pipeline", spec, pipeline_spec_pb2.PipelineSpec()),
        ("deploymentSpec", deployment, pipeline_spec_pb2.PipelineDeploymentConfig()),  # an untyped field of the former
    ):
        try:
            json_format.ParseDict(dict(value), message)
        except json_format.ParseError as error:
            yield location, " ".join(str(error).split())


def _check_header(spec: Json) -> Findings:
    name = str((spec.get("pipelineInfo") or {}).get("name", ""))
    if not _NAME.fullmatch(name):
        yield "pipelineInfo.name", f"{name!r} must be at most 128 lower-case letters, digits and hyphens"
    if spec.get("schemaVersion") != SCHEMA:
        yield "schemaVersion", f"{spec.get('schemaVersion')!r} must be {SCHEMA}"
    if "dag" not in (spec.get("root") or {}):
        yield "root", "has no graph"


def _iter_dags(spec: Json) -> Iterator[tuple[str, Json]]:
    """Locations and components with a graph, the root first."""
    yield "root", spec["root"]
    for name, component in (spec.get("components") or {}).items():
        if "dag" in component:
            yield f"components.{name}", component


def _iter_tasks(spec: Json) -> Iterator[tuple[str, Json, Json]]:
    """Locations of tasks, the component that contains each, and the task."""
    for location, component in _iter_dags(spec):
        for name, task in (component["dag"].get("tasks") or {}).items():
            yield f"{location}.dag.tasks.{name}", component, task


def _definitions(component: Json, side: str, kind: str) -> Json:
    definitions: Json = (component.get(f"{side}Definitions") or {}).get(kind) or {}
    return definitions


def _component_name(task: Json) -> str:
    return str((task.get("componentRef") or {}).get("name"))


def _check_references(spec: Json) -> Findings:
    components = spec.get("components") or {}
    for location, parent, task in _iter_tasks(spec):
        name = _component_name(task)
        if name not in components:
            yield f"{location}.componentRef", f"there is no component {name}"
            continue
        for dependency in task.get("dependentTasks") or []:
            if dependency not in parent["dag"]["tasks"]:
                yield f"{location}.dependentTasks", f"there is no task {dependency} in this graph"
        for kind in ("parameters", "artifacts"):
            definitions = _definitions(components[name], "input", kind)
            inputs = (task.get("inputs") or {}).get(kind) or {}
            for key, definition in definitions.items():
                optional = definition.get("isOptional") or "defaultValue" in definition
                if key not in inputs and not optional and not _is_iterated(task, key):
                    yield f"{location}.inputs.{kind}", f"{key} is required"
            for key, source in inputs.items():
                internal = key.startswith("pipelinechannel--") or key == "base_image"
                if key not in definitions and not internal:
                    yield f"{location}.inputs.{kind}", f"{name} has no input {key}"
                for message in _check_source(source, definitions.get(key), kind, parent, task, components):
                    yield f"{location}.inputs.{kind}.{key}", message
    for location, component in _iter_dags(spec):
        tasks = component["dag"].get("tasks") or {}
        if cycle := _find_cycle({name: list(task.get("dependentTasks") or []) for name, task in tasks.items()}):
            yield f"{location}.dag.tasks", f"these wait for one another: {' → '.join(cycle)}"
        yield from _check_dag_outputs(location, component, components)


def _check_dag_outputs(location: str, component: Json, components: Json) -> Findings:
    tasks = component["dag"].get("tasks") or {}
    for kind in ("parameters", "artifacts"):
        for key, value in ((component["dag"].get("outputs") or {}).get(kind) or {}).items():
            for selector in _iter_selectors(value):
                producer = str(selector.get("producerSubtask"))
                output = selector.get("outputParameterKey") or selector.get("outputArtifactKey")
                definitions = _definitions(components.get(_component_name(tasks.get(producer, {})), {}), "output", kind)
                if output not in definitions:
                    yield f"{location}.dag.outputs.{kind}.{key}", f"{producer} has no output {output}"


def _is_iterated(task: Json, key: str) -> bool:
    iterator = task.get("parameterIterator") or task.get("artifactIterator") or {}
    return bool(iterator.get("itemInput") == key)


def _iter_selectors(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if "producerSubtask" in value:
            yield value
        for child in value.values():
            yield from _iter_selectors(child)
    elif isinstance(value, list):
        for child in value:
            yield from _iter_selectors(child)


def _check_source(
    source: Json, target: Json | None, kind: str, parent: Json, task: Json, components: Json
) -> Iterator[str]:
    """Check where an input comes from, and its type.

    Args:
        source: The input of the task.
        target: Definition of the input in the component.
        kind: parameters or artifacts.
        parent: The component whose graph contains the task.
        task: The task.
        components: All components.
    """
    suffix = "Parameter" if kind == "parameters" else "Artifact"
    definition: Any = None
    if (name := source.get(f"componentInput{suffix}")) is not None:
        definition = _definitions(parent, "input", kind).get(name)
        if definition is None:
            yield f"the enclosing graph has no input {name}"
    elif (output := source.get(f"taskOutput{suffix}")) is not None:
        producer, key = output.get("producerTask"), output.get(f"output{suffix}Key")
        siblings = parent["dag"]["tasks"]
        if producer not in siblings:
            yield f"there is no task {producer} in this graph"
            return
        definition = _definitions(components.get(_component_name(siblings[producer]), {}), "output", kind).get(key)
        if definition is None:
            yield f"{producer} has no output {key}"
        if producer not in (task.get("dependentTasks") or []):
            yield f"the task reads from {producer} but does not wait for it"
    elif kind == "parameters" and "runtimeValue" in source:
        value = (source["runtimeValue"] or {}).get("constant")
        declared = (target or {}).get("parameterType")
        if declared in _TYPES and not _has_type(value, declared):
            yield f"{value!r} is not a {declared}"
        return
    if definition is not None and target is not None and _type_name(definition) != _type_name(target):
        yield f"the type is {_type_name(definition)} but must be {_type_name(target)}"


def _type_name(definition: Json) -> str:
    """Type of a parameter, or schema of an artifact."""
    return str(definition.get("parameterType") or (definition.get("artifactType") or {}).get("schemaTitle"))


def _has_type(value: Any, declared: str) -> bool:
    if isinstance(value, bool) and declared != "BOOLEAN":
        return False
    if isinstance(value, str) and declared != "STRING":
        return bool(_PLACEHOLDER.search(value))  # replaced at run time
    if declared == "NUMBER_INTEGER" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[declared])


def _find_cycle(dependencies: Mapping[str, list[str]]) -> list[str]:
    """Tasks that wait for one another, with the first one repeated at the end; empty without a cycle."""
    visited: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in visited:
            return []
        for dependency in dependencies.get(name, []):
            if cycle := visit(dependency, [*path, name]):
                return cycle
        visited.add(name)
        return []

    return next((cycle for name in dependencies if (cycle := visit(name, []))), [])


def _check_conditions(spec: Json) -> Findings:
    for location, _, task in _iter_tasks(spec):
        condition = (task.get("triggerPolicy") or {}).get("condition")
        if not condition:
            continue
        location = f"{location}.triggerPolicy.condition"
        if not _CONDITION.fullmatch(condition.strip()) or condition.count("(") != condition.count(")"):
            yield location, f"{condition!r} is not a condition"
        inputs = (task.get("inputs") or {}).get("parameters") or {}
        for name in re.findall(r"parameter_values\['([^']+)'\]", condition):
            if name not in inputs:
                yield location, f"the task has no input {name}"


def _check_executors(spec: Json) -> Findings:
    components = spec.get("components") or {}
    executors = (spec.get("deploymentSpec") or {}).get("executors") or {}
    labels = {name: item["executorLabel"] for name, item in components.items() if "executorLabel" in item}
    for name in sorted(set(components) - {_component_name(task) for _, _, task in _iter_tasks(spec)}):
        yield f"components.{name}", "no task uses this component"
    for name, component in components.items():
        if "dag" not in component and "executorLabel" not in component:
            yield f"components.{name}", "has neither a graph nor an executor"
    for name, label in labels.items():
        if label not in executors:
            yield f"components.{name}.executorLabel", f"there is no executor {label}"
    for label in set(executors) - set(labels.values()):
        yield f"deploymentSpec.executors.{label}", "no component uses this executor"
    for label, executor in executors.items():
        if (container := executor.get("container")) is not None:
            yield from _check_container(f"deploymentSpec.executors.{label}.container", container)
    for location, _, task in _iter_tasks(spec):
        step = re.sub(r"-\d+$", "", _component_name(task).removeprefix("comp-"))
        cached = (task.get("cachingOptions") or {}).get("enableCache")
        if cached and step not in (*CACHED, "exit-handler", "condition"):
            yield f"{location}.cachingOptions", f"{step} must not be cached: it depends on more than its parameters"


def _check_container(location: str, container: Json) -> Findings:
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if any("pip install" in word for word in words):
        yield location, "installs packages at the start: they must be in the image"
    yield from _check_function(location, words)
    resources = container.get("resources") or {}
    accelerator = resources.get("accelerator")
    if accelerator is not None:
        count = accelerator.get("resourceCount") or accelerator.get("count")
        if not count or not (accelerator.get("resourceType") or accelerator.get("type")):
            yield f"{location}.resources.accelerator", "needs a type and a count above 0"
    for name in ("cpu", "memory"):
        request, limit = resources.get(f"{name}Request"), resources.get(f"{name}Limit")
        if request and limit and float(request) > float(limit):
            yield f"{location}.resources", f"{name}: the request is above the limit"


def _check_function(location: str, words: list[str]) -> Findings:
    """Check that the source of a lightweight component is valid Python and defines the function that is called."""
    if "--function_to_execute" not in words:
        return
    function = words[words.index("--function_to_execute") + 1]
    source = next((word for word in words if f"def {function}(" in word), "")
    try:
        names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError as error:
        yield f"{location}.command", f"the source of {function} is not valid Python: {error.msg}"
        return
    if function not in names:
        yield f"{location}.command", f"the source has no function {function}"


def _check_images(spec: Json, pinned: bool) -> Findings:
    defaults = spec_parameters(spec)
    images = sorted({image for _, image in _iter_images(spec, spec["root"], {})})
    if len(images) > 1:
        yield "deploymentSpec.executors", f"the steps have several images: {', '.join(images)}"
        return
    for image in images:
        parameter = re.fullmatch(r"\{(.+)\}", image)
        name = str(defaults.get(parameter[1], {}).get("defaultValue", "")) if parameter else image
        if pinned and not _DIGEST.fullmatch(name):
            location = "root.inputDefinitions.parameters.image" if parameter else "image"
            yield location, f"the image {name!r} is not named by its digest"


def _iter_images(spec: Json, component: Json, bindings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Executors with their images: a name, or `{parameter}` of the pipeline."""

    def resolve(source: Json) -> str:
        if "componentInputParameter" in source:
            name = source["componentInputParameter"]
            return bindings.get(name, f"{{{name}}}")
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return f"<{output['outputParameterKey']} of {output['producerTask']}>"
        return str((source.get("runtimeValue") or {}).get("constant"))

    for task in (component["dag"].get("tasks") or {}).values():
        inputs = (task.get("inputs") or {}).get("parameters") or {}
        values = {key: resolve(source) for key, source in inputs.items()}
        child = spec["components"][task["componentRef"]["name"]]
        if "dag" in child:
            yield from _iter_images(spec, child, values)
            continue
        executor = spec["deploymentSpec"]["executors"][child["executorLabel"]]
        image = str((executor.get("container") or {}).get("image", ""))
        while match := _PLACEHOLDER.fullmatch(image):
            image = values.get(match[1], "")
        yield child["executorLabel"], image


def _check_platform(spec: Json, documents: list[dict[str, Any]]) -> Findings:
    """Check the Kubernetes settings, in the documents after the specification."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2

    labels = (spec.get("deploymentSpec") or {}).get("executors") or {}
    for document in documents:
        if set(document) != {"platforms"} or set(document["platforms"]) != {"kubernetes"}:
            yield "platforms", f"must have kubernetes only, not {', '.join(document) or 'nothing'}"
            continue
        executors = ((document["platforms"]["kubernetes"] or {}).get("deploymentSpec") or {}).get("executors") or {}
        for label, value in executors.items():
            location = f"platforms.kubernetes.deploymentSpec.executors.{label}"
            if label not in labels:
                yield location, "there is no such executor"
            try:
                json_format.ParseDict(value, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
            except json_format.ParseError as error:
                yield location, " ".join(str(error).split())
                continue
            paths = [mount["mountPath"] for mount in value.get("pvcMount", []) + value.get("emptyDirMounts", [])]
            for path in {path for path in paths if paths.count(path) > 1}:
                yield location, f"two volumes are mounted at {path}"
