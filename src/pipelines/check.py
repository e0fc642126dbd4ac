"""What a cluster would refuse in a compiled pipeline, or accept in vain.

KFP's own loaders find a third of it (unknown fields, wrong types); the rest is references, which nobody looks at before a
run: https://github.com/kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto and kubernetes_executor_config.proto.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import compilation
from pipelines.definition import CACHED

SCHEMA = "2.1.0"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?")
_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_OPERAND = r"(?:(?:int|double|string)\()?(?:inputs\.parameter_values\['[^']+'\]|'[^']*'|-?\d+(?:\.\d+)?|true|false)\)?"
_TERM = rf"!?\(*\s*{_OPERAND}\s*(?:==|!=|<=|>=|<|>)\s*{_OPERAND}\s*\)*"
_CONDITION = re.compile(rf"{_TERM}(?:\s*(?:&&|\|\|)\s*{_TERM})*")
_KINDS = {
    "STRING": (str,), "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,),
    "LIST": (list,), "STRUCT": (dict,),
}  # fmt: skip
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        file: in which.
        place: of it, by keys from the top.
        message: what is wrong.
    """

    file: str
    place: str
    message: str


def check_pipeline(file: str, pinned: bool = False) -> list[Finding]:
    """Checks a file.

    Args:
        file: a compiled pipeline.
        pinned: whether the image must be named by its digest.

    Raises:
        InputError: it is no compiled pipeline.
    """
    documents = compilation.read_documents(file)
    found = [*of_spec(documents[0], pinned)]
    if not found or all("image" in message for _, message in found):  # else it would fall over what is told already
        found += _platform(documents[0], documents[1:])
    return [Finding(file, place, message) for place, message in found]


def of_spec(spec: Json, pinned: bool = False) -> Iterator[tuple[str, str]]:
    """What is wrong with a specification: places and messages; the first kind that is found hides those after it."""
    for look in (_parsed, _head, _references, _conditions, _executors):
        found = list(look(spec))
        if found:
            yield from found
            return
    yield from _images(spec, pinned)


def _parsed(spec: Json) -> Iterator[tuple[str, str]]:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    deployment = spec.get("deploymentSpec") or {}
    for place, value, message in (
        ("", spec, pipeline_spec_pb2.PipelineSpec()),
        ("deploymentSpec", deployment, pipeline_spec_pb2.PipelineDeploymentConfig()),  # untyped in the first
    ):
        try:
            json_format.ParseDict(dict(value), message)
        except json_format.ParseError as error:
            yield place or "pipeline", " ".join(str(error).split())


def _head(spec: Json) -> Iterator[tuple[str, str]]:
    name = str((spec.get("pipelineInfo") or {}).get("name", ""))
    if not _NAME.fullmatch(name):
        yield "pipelineInfo.name", f"{name!r}: small letters, digits and hyphens only, 128 at most"
    if spec.get("schemaVersion") != SCHEMA:
        yield "schemaVersion", f"{spec.get('schemaVersion')!r}: must be {SCHEMA}"
    if "dag" not in (spec.get("root") or {}):
        yield "root", "there is no graph"


def _used(spec: Json) -> set[str]:
    return {str((task.get("componentRef") or {}).get("name")) for _, _, task in _tasks(spec)}


def _dags(spec: Json) -> Iterator[tuple[str, Json]]:
    """Every component with a graph, the root first."""
    yield "root", spec["root"]
    for name, component in (spec.get("components") or {}).items():
        if "dag" in component:
            yield f"components.{name}", component


def _tasks(spec: Json) -> Iterator[tuple[str, Json, Json]]:
    """Every task: its place, the component that it is in, itself."""
    for place, component in _dags(spec):
        for name, task in (component["dag"].get("tasks") or {}).items():
            yield f"{place}.dag.tasks.{name}", component, task


def _defined(component: Json, side: str, kind: str) -> Json:
    found = (component.get(f"{side}Definitions") or {}).get(kind)
    return found or {}


def _references(spec: Json) -> Iterator[tuple[str, str]]:
    components = spec.get("components") or {}
    for place, inside, task in _tasks(spec):
        siblings = inside["dag"]["tasks"]
        name = (task.get("componentRef") or {}).get("name")
        if name not in components:
            yield f"{place}.componentRef", f"there is no component {name}"
            continue
        depends = list(task.get("dependentTasks") or [])
        for each in depends:
            if each not in siblings:
                yield f"{place}.dependentTasks", f"there is no task {each} beside it"
        for kind in ("parameters", "artifacts"):
            wanted = _defined(components[name], "input", kind)
            given = (task.get("inputs") or {}).get(kind) or {}
            for key, definition in wanted.items():
                optional = definition.get("isOptional") or "defaultValue" in definition
                if key not in given and not optional and not _iterated(task, key):
                    yield f"{place}.inputs.{kind}", f"{key} is required, and not given"
            for key, source in given.items():
                own = key.startswith("pipelinechannel--") or key == "base_image"
                if key not in wanted and not own:
                    yield f"{place}.inputs.{kind}", f"{name} has no input {key}"
                where = f"{place}.inputs.{kind}.{key}"
                yield from _source(where, source, wanted.get(key), kind, inside, siblings, components, depends)
    for place, component in _dags(spec):
        tasks = component["dag"].get("tasks") or {}
        if circle := _circle({name: list(task.get("dependentTasks") or []) for name, task in tasks.items()}):
            yield f"{place}.dag.tasks", f"these wait for one another: {' → '.join(circle)}"
        outputs = component["dag"].get("outputs") or {}
        for kind in ("parameters", "artifacts"):
            for key, value in (outputs.get(kind) or {}).items():
                for found in _selectors(value):
                    child = tasks.get(str(found.get("producerSubtask")))
                    of = components.get((child or {}).get("componentRef", {}).get("name"), {})
                    out = found.get("outputParameterKey") or found.get("outputArtifactKey")
                    if child is None or out not in _defined(of, "output", kind):
                        yield (
                            f"{place}.dag.outputs.{kind}.{key}",
                            f"nothing makes {out} of {found.get('producerSubtask')}",
                        )


def _iterated(task: Json, key: str) -> bool:
    iterator = task.get("parameterIterator") or task.get("artifactIterator") or {}
    return bool(iterator.get("itemInput") == key)


def _selectors(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if "producerSubtask" in value:
            yield value
        for each in value.values():
            yield from _selectors(each)
    elif isinstance(value, list):
        for each in value:
            yield from _selectors(each)


def _source(
    place: str, source: Json, wanted: Json | None, kind: str, inside: Json, siblings: Json, components: Json, depends: list[str],
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Where one input comes from, and whether that is of its type."""
    one = "parameter" if kind == "parameters" else "artifact"
    type_of = (lambda each: each.get("parameterType")) if one == "parameter" else _schema
    found: Any = None
    if (name := source.get(f"componentInput{one.capitalize()}")) is not None:
        found = _defined(inside, "input", kind).get(name)
        if found is None:
            yield place, f"the graph around it has no input {name}"
    elif (output := source.get(f"taskOutput{one.capitalize()}")) is not None:
        producer, key = output.get("producerTask"), output.get(f"output{one.capitalize()}Key")
        if producer not in siblings:
            yield place, f"there is no task {producer} beside it"
            return
        component = components.get(str((siblings[producer].get("componentRef") or {}).get("name")), {})
        found = _defined(component, "output", kind).get(key)
        if found is None:
            yield place, f"{producer} has no output {key}"
        if producer not in depends:
            yield place, f"it reads from {producer}, and does not wait for it"
    elif one == "parameter" and "runtimeValue" in source:
        value = (source["runtimeValue"] or {}).get("constant")
        declared = (wanted or {}).get("parameterType")
        if declared in _KINDS and not _fits(value, declared):
            yield place, f"{value!r} is no {declared}"
        return
    if found is not None and wanted is not None and type_of(found) != type_of(wanted):
        yield place, f"it is {type_of(found)}, and {type_of(wanted)} is wanted"


def _schema(definition: Json) -> str:
    return str((definition.get("artifactType") or {}).get("schemaTitle"))


def _fits(value: Any, declared: str) -> bool:
    if isinstance(value, bool) and declared != "BOOLEAN":
        return False
    if isinstance(value, str) and declared != "STRING":
        return bool(_PLACEHOLDER.search(value))  # filled in when it runs
    if declared == "NUMBER_INTEGER" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[declared])


def _circle(waits: Mapping[str, list[str]]) -> list[str]:
    """Tasks that wait for one another, the first again at the end; empty if there are none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for each in waits.get(name, []):
            if circle := walk(each, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in waits if (circle := walk(name, []))), [])


def _conditions(spec: Json) -> Iterator[tuple[str, str]]:
    for place, _, task in _tasks(spec):
        condition = (task.get("triggerPolicy") or {}).get("condition")
        if not condition:
            continue
        where = f"{place}.triggerPolicy.condition"
        if not _CONDITION.fullmatch(condition.strip()) or condition.count("(") != condition.count(")"):
            yield where, f"{condition!r} is no condition"
        given = (task.get("inputs") or {}).get("parameters") or {}
        for name in re.findall(r"parameter_values\['([^']+)'\]", condition):
            if name not in given:
                yield where, f"the task has no input {name}"


def _executors(spec: Json) -> Iterator[tuple[str, str]]:
    for name in sorted(set(spec.get("components") or {}) - _used(spec)):
        yield f"components.{name}", "no task is of this component"
    executors = (spec.get("deploymentSpec") or {}).get("executors") or {}
    components = spec.get("components") or {}
    labels = {name: each["executorLabel"] for name, each in components.items() if "executorLabel" in each}
    for name, component in components.items():
        if "dag" not in component and "executorLabel" not in component:
            yield f"components.{name}", "it has neither a graph nor an executor"
    for name, label in labels.items():
        if label not in executors:
            yield f"components.{name}.executorLabel", f"there is no executor {label}"
    for label in set(executors) - set(labels.values()):
        yield f"deploymentSpec.executors.{label}", "no component has this executor"
    for label, executor in executors.items():
        container = executor.get("container")
        if container is None:
            continue
        place = f"deploymentSpec.executors.{label}.container"
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        if any("pip install" in word for word in words):
            yield place, "it installs packages when it starts: the image has what it needs"
        yield from _function(place, words)
        resources = container.get("resources") or {}
        accelerator = resources.get("accelerator")
        if accelerator is not None:
            count = accelerator.get("resourceCount") or accelerator.get("count")
            if not count or not (accelerator.get("resourceType") or accelerator.get("type")):
                yield f"{place}.resources.accelerator", "it needs a type and a count above 0"
        for what in ("cpu", "memory"):
            low, high = resources.get(f"{what}Request"), resources.get(f"{what}Limit")
            if low and high and float(low) > float(high):
                yield f"{place}.resources", f"{what}: it asks for more than its limit"
    for place, _, task in _tasks(spec):
        step = re.sub(r"-\d+$", "", str(task["componentRef"]["name"]).removeprefix("comp-"))
        if (
            (task.get("cachingOptions") or {}).get("enableCache")
            and step not in CACHED
            and step not in ("exit-handler", "condition")
        ):
            yield f"{place}.cachingOptions", f"{step} looks at what is no parameter: it must not be cached"


def _function(place: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """Whether the source of a lightweight component is Python, and has the function that is called."""
    if "--function_to_execute" not in words:
        return
    wanted = words[words.index("--function_to_execute") + 1]
    source = next((word for word in words if f"def {wanted}(" in word), "")
    try:
        names = [each.name for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
    except SyntaxError as error:
        yield f"{place}.command", f"the source of {wanted} is no Python: {error.msg}"
        return
    if wanted not in names:
        yield f"{place}.command", f"its source has no function {wanted}"


def _images(spec: Json, pinned: bool) -> Iterator[tuple[str, str]]:
    found = dict(_image_of(spec, spec["root"], {}))
    defaults = compilation.spec_parameters(spec)
    images = sorted(set(found.values()))
    if len(images) > 1:
        yield "deploymentSpec.executors", f"steps have several images: {', '.join(images)}"
        return
    for image in images:
        parameter = re.fullmatch(r"\{(.+)\}", image)
        name = str(defaults.get(parameter[1], {}).get("defaultValue", "")) if parameter else image
        if pinned and not _DIGEST.fullmatch(name):
            yield (
                "root.inputDefinitions.parameters.image" if parameter else "image",
                f"{name!r} is not named by a digest",
            )


def _image_of(spec: Json, component: Json, bound: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The image of each executor: a name, or `{parameter}` of the pipeline."""

    def value(source: Json) -> str:
        if "componentInputParameter" in source:
            name = source["componentInputParameter"]
            return bound.get(name, f"{{{name}}}")
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return f"<{output['outputParameterKey']} of {output['producerTask']}>"
        return str((source.get("runtimeValue") or {}).get("constant"))

    for task in (component["dag"].get("tasks") or {}).values():
        given = {key: value(each) for key, each in ((task.get("inputs") or {}).get("parameters") or {}).items()}
        child = spec["components"][task["componentRef"]["name"]]
        if "dag" in child:
            yield from _image_of(spec, child, given)
            continue
        executor = spec["deploymentSpec"]["executors"][child["executorLabel"]]
        image = str((executor.get("container") or {}).get("image", ""))
        while found := _PLACEHOLDER.fullmatch(image):
            image = given.get(found[1], "")
        yield child["executorLabel"], image


def _platform(spec: Json, documents: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What is asked of Kubernetes: a second document."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2

    known = (spec.get("deploymentSpec") or {}).get("executors") or {}
    for document in documents:
        if set(document) != {"platforms"} or set(document["platforms"]) != {"kubernetes"}:
            yield "platforms", f"it has {', '.join(document) or 'nothing'}, and kubernetes is all that is known"
            continue
        executors = ((document["platforms"]["kubernetes"] or {}).get("deploymentSpec") or {}).get("executors") or {}
        for label, value in executors.items():
            place = f"platforms.kubernetes.deploymentSpec.executors.{label}"
            if label not in known:
                yield place, "there is no such executor"
            try:
                json_format.ParseDict(value, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
            except json_format.ParseError as error:
                yield place, " ".join(str(error).split())
                continue
            paths = [each["mountPath"] for each in value.get("pvcMount", []) + value.get("emptyDirMounts", [])]
            for path in {each for each in paths if paths.count(each) > 1}:
                yield place, f"two volumes are mounted at {path}"
