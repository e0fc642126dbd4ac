"""The cache of Kubeflow Pipelines: which steps of a run of a compiled pipeline are executed, and which come from the cache.

The key of a step, as in kubeflow/pipelines, backend/src/v2/driver/cache.go and cacheutils/cache.go: values of the input
parameters, names of the input artifacts, outputs, image and command as compiled, and claims. The name of an artifact is its id in
the metadata store, new for each execution; a step from the cache hands on the artifacts of the execution that it comes from.
Environment variables, secrets and settings of the pod are not in the key.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == '([^']*)'")
Json = dict[str, Any]


class Cache:
    """Executions of steps by the key of the cache.

    Attributes:
        executions: Outputs of an execution, by the pipeline's name and the key.
        disabled: As CACHE_DISABLED of the API server.
    """

    def __init__(self) -> None:
        self.executions: dict[tuple[str, str], Json] = {}
        self.disabled = False
        self._artifacts = 0

    def run(
        self,
        documents: list[Json],
        parameters: Mapping[str, Any],
        execute: Callable[[str, Json], Mapping[str, Any]],
    ) -> dict[str, str]:
        """Run a pipeline.

        Args:
            documents: The compiled pipeline: specification, and settings of the platform.
            parameters: Values of its parameters.
            execute: Returns the output parameters of an execution, from the name of a step and its input parameters.

        Returns:
            States of the steps by name, in the order of their execution: SUCCEEDED, CACHED or SKIPPED.
        """
        spec = documents[0]
        defaults = {
            name: item["defaultValue"]
            for name, item in spec["root"]["inputDefinitions"]["parameters"].items()
            if "defaultValue" in item
        }
        states: dict[str, str] = {}
        self._run_dag(documents, spec["root"], {**defaults, **parameters}, {}, execute, states)
        return states

    def _run_dag(
        self,
        documents: list[Json],
        dag: Json,
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, str],
        execute: Callable[[str, Json], Mapping[str, Any]],
        states: dict[str, str],
    ) -> None:
        spec = documents[0]
        outputs: dict[str, Json] = {}  # of the tasks of this graph
        for name, task in _sorted_tasks(dag["dag"]["tasks"]):
            component = spec["components"][task["componentRef"]["name"]]
            values, inputs = _resolve(task, component, parameters, artifacts, outputs)
            condition = _CONDITION.fullmatch(task.get("triggerPolicy", {}).get("condition", ""))
            if condition and values[condition[1]] != condition[2]:
                states[task["taskInfo"]["name"]] = "SKIPPED"
            elif "dag" in component:
                self._run_dag(documents, component, values, inputs, execute, states)
            else:
                key = (spec["pipelineInfo"]["name"], _key(documents, component, values, inputs))
                cached = not self.disabled and task.get("cachingOptions", {}).get("enableCache", False)
                step = task["taskInfo"]["name"]
                states[step] = "CACHED" if cached and key in self.executions else "SUCCEEDED"
                if states[step] == "SUCCEEDED":
                    execution = {"parameters": dict(execute(step, values)), "artifacts": {}}
                    for artifact in component.get("outputDefinitions", {}).get("artifacts", {}):
                        self._artifacts += 1
                        execution["artifacts"][artifact] = str(self._artifacts)
                    self.executions[key] = execution
                outputs[name] = self.executions[key]


def _sorted_tasks(tasks: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """The tasks of a graph, each after those that it waits for."""
    waiting = dict(tasks)
    while waiting:
        name = next(name for name, task in waiting.items() if not set(task.get("dependentTasks", [])) & set(waiting))
        yield name, waiting.pop(name)


def _resolve(
    task: Json,
    component: Json,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, str],
    outputs: Mapping[str, Json],
) -> tuple[Json, dict[str, str]]:
    """The input parameters of a task, and the names of its input artifacts."""
    values: Json = {
        name: item["defaultValue"]
        for name, item in component.get("inputDefinitions", {}).get("parameters", {}).items()
        if "defaultValue" in item
    }
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "componentInputParameter" in source:
            values[name] = parameters[source["componentInputParameter"]]
        elif "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            values[name] = outputs[output["producerTask"]]["parameters"][output["outputParameterKey"]]
        elif "runtimeValue" in source:
            values[name] = source["runtimeValue"]["constant"]
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = _PLACEHOLDER.sub(lambda match: str(values[match[1]]), value)
    names = {}
    for name, source in task.get("inputs", {}).get("artifacts", {}).items():
        if "componentInputArtifact" in source:
            names[name] = artifacts[source["componentInputArtifact"]]
        else:
            output = source["taskOutputArtifact"]
            names[name] = outputs[output["producerTask"]]["artifacts"][output["outputArtifactKey"]]
    return values, names


def _key(documents: list[Json], component: Json, values: Json, artifacts: dict[str, str]) -> str:
    """The SHA-256 of what KFP's driver takes for the key of a step."""
    label = component["executorLabel"]
    container = documents[0]["deploymentSpec"]["executors"][label]["container"]
    platforms = [document["platforms"]["kubernetes"]["deploymentSpec"]["executors"] for document in documents[1:]]
    mounts = [mount for executors in platforms for mount in executors.get(label, {}).get("pvcMount", [])]
    content = {
        "inputParameterValues": values,
        "inputArtifactNames": artifacts,
        "outputs": component.get("outputDefinitions", {}),
        "image": container["image"],
        "command": [*container.get("command", []), *container.get("args", [])],
        "claims": sorted({mount["constant"] for mount in mounts}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
