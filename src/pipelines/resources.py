"""Resources of single steps of a run: `-p train.cpu=4 -p train.memory=16Gi -p train.gpus=1`."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import InputError
from pipelines.compilation import read_documents

_ASSIGNMENT = re.compile(r"([a-z][a-z0-9-]*)\.(cpu|memory|gpus)=(.*)")
# Amounts as Kubernetes writes them: pattern, what they are, and an example.
AMOUNTS = {
    "cpu": (r"[1-9]\d*m?|\d+\.\d+", "a number of CPUs", "4 or 500m"),
    "memory": (r"[1-9]\d*(\.\d+)?[KMGT]i?", "an amount of memory", "16Gi"),
    "gpus": (r"\d+", "a whole number", "1"),
}
_GPU = "nvidia.com/gpu"


@contextlib.contextmanager
def changed_file(file: str, assignments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a compiled pipeline with the resources of a command line, and the other assignments.

    A request and a limit of a step are one setting here; conf/pipeline.yaml has them apart.

    Args:
        file: the compiled pipeline, which is not changed.
        assignments: values of `-p`.

    Raises:
        InputError: there is no such step, or a value is no amount.
    """
    changes = [match for assignment in assignments if (match := _ASSIGNMENT.fullmatch(assignment))]
    rest = [assignment for assignment in assignments if not _ASSIGNMENT.fullmatch(assignment)]
    if not changes:
        yield file, rest
        return
    documents = read_documents(file)
    executors = (documents[0].get("deploymentSpec") or {}).get("executors") or {}
    for match in changes:
        _change_step(executors, *match.groups())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file).name
        path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        yield str(path), rest


def refuse_resources(assignments: Sequence[str]) -> None:
    """Refuse resources of steps for a run on this machine, where steps take what it has.

    Raises:
        InputError: there are some.
    """
    for assignment in assignments:
        if _ASSIGNMENT.fullmatch(assignment):
            raise InputError(f"-p {assignment}: resources are settings of a cluster; on this machine leave them out")


def _change_step(executors: Mapping[str, Any], step: str, name: str, text: str) -> None:
    """Set a resource of a step; a component that is used several times, such as the gate, has several executors."""
    pattern, _, example = AMOUNTS[name]
    if not re.fullmatch(pattern, text) or (name != "gpus" and not re.search("[1-9]", text)):
        raise InputError(f"-p {step}.{name}={text}: must be an amount such as {example}")
    matches = [executor for key, executor in executors.items() if re.fullmatch(rf"exec-{re.escape(step)}(-\d+)?", key)]
    if not matches:
        steps = sorted({re.sub(r"-\d+$", "", key.removeprefix("exec-")) for key in executors})
        raise InputError(f"-p {step}.{name}={text}: the pipeline has no step {step}; use one of {', '.join(steps)}")
    for executor in matches:
        resources = executor["container"].setdefault("resources", {})
        if name == "gpus":
            kind = (resources.pop("accelerator", None) or {}).get("resourceType", _GPU)
            if text != "0":
                count = {"count": text, "resourceCount": text, "type": kind, "resourceType": kind}
                resources["accelerator"] = count
            continue
        for group in ("Request", "Limit"):
            resources.pop(f"{name}{group}", None)  # a number, which the text replaces since KFP 2.4
            resources[f"resource{name.title()}{group}"] = text
