"""Further steps of the user's own: `steps` in conf/pipeline.yaml, a command each, with inputs of other steps and an output folder."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import files
from config.errors import InputError
from config.numbers import format_count
from pipelines import artifacts
from pipelines.commands import run_program, set_environment
from pipelines.graph import DEPENDENCIES
from pipelines.parameter_secrets import refuse_secrets
from pipelines.record import record_step, run_folder
from pipelines.retries import repeat
from reports.markdown import code, escape

Artifact = Any
# Placeholders in a command for results of the pipeline's steps: the step, and the parameter of `components.command`.
INPUTS = {
    "data.fingerprint": ("data", "fingerprint"),
    "train.run": ("train", "run"),
    "quality.verdict": ("quality", "quality"),
    "drift.verdict": ("drift", "drift"),
    "evaluate.verdict": ("evaluate", "evaluation"),
    "explain.verdict": ("explain", "explanation"),
    "benchmark.verdict": ("benchmark", "benchmark"),
}
REPORT, METRICS = "report.html", "metrics.json"  # in a step's folder: shown on KFP's page
_OUTPUTS = "outputs"  # in the folder of a pipeline run: a folder for each further step
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9-]*(?:\.[a-z]+)?)\}")


@dataclass(frozen=True)
class FurtherStep:
    """A further step.

    Attributes:
        command: Words of its command, with placeholders.
        after: Names of the steps that it waits for: those of its placeholders and of `after`.
    """

    command: tuple[str, ...]
    after: tuple[str, ...]


def read_steps(settings: Any) -> dict[str, FurtherStep]:
    """Return the further steps of conf/pipeline.yaml, each after those that it waits for.

    Args:
        settings: The value of `steps`.

    Raises:
        InputError: It is invalid: the message names the step, and what is valid.
    """
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise InputError("steps: must be a mapping of names to {command: [WORD, ...], after: [STEP, ...]}")
    steps = {str(name): _read_step(str(name), node, settings) for name, node in settings.items()}
    ordered: dict[str, FurtherStep] = {}
    while len(ordered) < len(steps):
        ready = [
            name
            for name, step in steps.items()
            if name not in ordered and all(item in ordered or item in DEPENDENCIES for item in step.after)
        ]
        if not ready:
            waiting = [name for name in steps if name not in ordered]
            raise InputError(
                f"steps: these wait for one another: {', '.join(waiting)}; remove one from `after` or a command"
            )
        ordered |= {name: steps[name] for name in ready}
    return ordered


def _read_step(name: str, node: Any, settings: Mapping[str, Any]) -> FurtherStep:
    shipped = [step for step in DEPENDENCIES if step.replace(" ", "-") == name]
    if shipped:
        raise InputError(f"steps.{name}: the pipeline has a step {shipped[0]}; choose another name")
    if not _NAME.fullmatch(name):
        raise InputError(f"steps.{name}: must be a name of at most 40 lower-case letters, digits and hyphens")
    if not isinstance(node, Mapping) or "command" not in node or (unknown := set(node) - {"command", "after"}):
        problem = f"unknown key {min(unknown)}" if isinstance(node, Mapping) and "command" in node else "no command"
        raise InputError(
            f"steps.{name}: {problem}; it must be {{command: [WORD, ...], after: [STEP, ...]}}, `after` is optional"
        )
    words, after = node["command"], node.get("after") or []
    if not isinstance(words, list) or not words:
        raise InputError(
            f"steps.{name}.command={words}: must be a list of words, as [python, -m, mine.report, '{{train.run}}']; no shell "
            "splits or expands it"
        )
    if unsuitable := [word for word in words if isinstance(word, bool) or not isinstance(word, str | int | float)]:
        raise InputError(f"steps.{name}.command: {unsuitable[0]} is neither text nor a number; quote it")
    command = tuple(map(str, words))
    for word in command:
        if "python3" in word:
            raise InputError(
                f"steps.{name}.command: write python in place of {word}: KFP's local runner changes python3"
            )
        if "{{" in word:
            raise InputError(f"steps.{name}.command: {word} has {{{{, which KFP would try to replace")
    refuse_secrets({f"steps.{name}.command": list(command)})
    valid = [*(step for step in DEPENDENCIES if step != "finish"), *(other for other in settings if other != name)]
    if not isinstance(after, list) or (missing := [step for step in after if step not in valid]):
        problem = f"there is no step {missing[0]}" if isinstance(after, list) else "must be a list of steps"
        raise InputError(f"steps.{name}.after={after}: {problem}; steps are {', '.join(valid)}")
    sources = [_source(name, key, settings) for word in command for key in _PLACEHOLDER.findall(word)]
    return FurtherStep(command, tuple(dict.fromkeys([*filter(None, sources), *map(str, after)])))


def _source(name: str, placeholder: str, settings: Mapping[str, Any]) -> str | None:
    """The step that a placeholder needs; None for one of the step itself."""
    if placeholder in ("folder", "root"):
        return None
    if placeholder in INPUTS:
        return INPUTS[placeholder][0]
    step, _, member = placeholder.partition(".")
    if member == "folder" and step in settings and step != name:
        return step
    valid = ["folder", "root", *INPUTS, *(f"{step}.folder" for step in settings if step != name)]
    raise InputError(
        f"steps.{name}.command: there is no input {{{placeholder}}}; inputs are {', '.join(f'{{{key}}}' for key in valid)}"
    )


def inputs(step: FurtherStep) -> Iterator[tuple[str, str]]:
    """Return the steps of the pipeline whose results a command takes, each with the parameter of `components.command`."""
    placeholders = {key for word in step.command for key in _PLACEHOLDER.findall(word)}
    return (INPUTS[key] for key in INPUTS if key in placeholders)


@repeat
def run_step(
    name: str, words: Sequence[str], after: Sequence[str], values: Mapping[str, str], root: str,
    outputs: Artifact, report: Artifact, summary: Artifact, metrics: Artifact,
) -> str:  # fmt: skip
    """Run the command of a further step; its exit code is that of the step.

    Args:
        name: Name of the step.
        words: Words of its command, with placeholders.
        after: Names of the steps that it waits for.
        values: By placeholder of INPUTS.
        root: Folder of runs and records.
        outputs: Artifact for a copy of its folder.
        report: Artifact for report.html in its folder.
        summary: Artifact for the result.
        metrics: Artifact for the numbers in metrics.json in its folder.

    Returns:
        Its folder, which a second attempt finds as the first one left it.
    """
    folder = run_folder(root) / _OUTPUTS / name
    with record_step(root, name, command=list(words)) as step:
        step["after"] = list(after)
        set_environment(root)
        folder.mkdir(parents=True, exist_ok=True)
        folders = {f"{item}.folder": str(folder.parent / item) for item in after}
        replaced = {**values, **folders, "folder": str(folder), "root": root}
        run_program(step, [_PLACEHOLDER.sub(lambda match: replaced.get(match[1], match[0]), word) for word in words])
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if (folder / REPORT).exists():
            step["report"] = str(folder / REPORT)
        artifacts.html(report, folder / REPORT)
        artifacts.metrics(metrics, files.read_json(folder / METRICS))
        shutil.copytree(folder, Path(outputs.path), dirs_exist_ok=True)
        outputs.metadata["folder"] = str(folder)
        step["verdict"] = format_count(len(paths), "file")
        rows = [(path.relative_to(folder), path.stat().st_size) for path in paths[:100]]
        table = artifacts.table(["file", "bytes"], rows)
        command = code(step["commands"][-1]["command"])
        artifacts.markdown(summary, f"# {escape(name)}\n\n{command}\n\n{escape(folder)}\n\n{table}\n")
    return str(folder)
