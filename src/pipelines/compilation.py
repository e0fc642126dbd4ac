"""Compilation of the pipeline. The first line of a compiled file is the command that makes it again."""

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import InputError
from config.parsing import parse_yaml, read_bytes, read_text
from config.tasks import CONF
from pipelines.further_steps import read_steps

_COMMAND = re.compile(r"^# python -m pipelines (compile .*)$", re.MULTILINE)
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # names of claims and configuration maps
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")  # names that are values of labels
_MEMORY = re.compile(r"\d+([EPTGMK]i?)?")
SIZES = ("small", "large")


def load_settings(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose conf/pipeline.yaml with overrides, and check it.

    Raises:
        InputError: The settings do not compose, or are invalid.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            settings: Any = OmegaConf.to_container(compose("pipeline", overrides=list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reason} Settings are those of conf/pipeline.yaml; +key=value adds one") from error
    defaults: Any = yaml.safe_load((CONF / "pipeline.yaml").read_text(encoding="utf-8"))
    sections = [("", defaults, settings), *((f"{size}.", defaults[size], settings[size]) for size in SIZES)]
    for prefix, allowed, section in sections:
        if unknown := set(section) - set(allowed):
            raise InputError(f"unknown setting {prefix}{min(unknown)}; conf/pipeline.yaml has {', '.join(allowed)}")
    for size in SIZES:
        quantities = ("cpu", "cpu_limit", "memory", "memory_limit")
        settings[size] |= {name: str(settings[size][name]) for name in quantities}  # KFP rejects numbers
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", str(settings["name"])):  # KFP would change it
        raise InputError(f"name={settings['name']}: must be lower-case letters, digits and hyphens")
    if not str(settings["root"]).startswith("/"):
        raise InputError(f"root={settings['root']}: must be an absolute path, where the volume is mounted")
    _check_settings(settings)
    settings["steps"] = read_steps(_with_deployment(settings))
    return dict(settings)


def _with_deployment(settings: Mapping[str, Any]) -> Any:
    """Return the further steps, and the step that deploys the champion if `deploy` names an InferenceService."""
    steps, name, options = settings["steps"], settings["deploy"], settings["deploy_settings"] or {}
    if not isinstance(options, Mapping) or not all(isinstance(value, str | int | float) for value in options.values()):
        raise InputError(f"deploy_settings={options}: must be a mapping of names to values, as {{cpu: 2, memory: 4Gi}}")
    if name is None:
        if options:
            raise InputError(f"deploy_settings={options}: has no effect without deploy=NAME, the InferenceService")
        return steps
    if not _SERVICE.fullmatch(str(name)):
        raise InputError(
            f"deploy={name}: must be the name of an InferenceService: lower-case letters, digits and dashes"
        )
    if isinstance(steps, Mapping) and "deploy" in steps:
        raise InputError("steps.deploy: deploy=NAME adds a step of this name; choose another one")
    words = ["python", "-m", "pipelines", "deploy", "run={train.run}", "--name", str(name)]
    words += ["--image", settings["image"], "--if-champion", "--root", "{root}", "--folder", "{folder}"]
    words += [word for option, value in options.items() for word in ("--setting", f"{option}={value}")]
    return {**(steps or {}), "deploy": {"command": words, "after": ["register"]}}


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Check what KFP compiles without a word, and the cluster refuses when a step starts."""
    for name, value in (("retries", settings["retries"]), ("large.gpus", settings["large"]["gpus"])):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name}={value}: must be a whole number, 0 or more")
    large = settings["large"]
    for name, value in (("image", settings["image"]), ("large.gpu", large["gpu"])):
        if not re.fullmatch(r"[^\s]+", str(value)):
            raise InputError(f"{name}={value}: must be a name without blanks, not empty")
    if "/" not in str(large["gpu"]):
        raise InputError(
            f"large.gpu={large['gpu']}: must be the name of the GPU's resource, such as nvidia.com/gpu; large.gpus is the "
            "number of GPUs"
        )
    for name in ("root", "cache"):
        if not re.fullmatch(r"/[^\s]*", str(settings[name])):
            raise InputError(f"{name}={settings[name]}: must be an absolute path without blanks")
    for name in ("volume", "cache_volume", "config_map"):
        if settings[name] is not None and not _OBJECT.fullmatch(str(settings[name])):
            raise InputError(f"{name}={settings[name]}: must be the name of an object of Kubernetes, or null")
    for name in ("queue", "priority_class"):
        if settings[name] is not None and not _LABEL.fullmatch(str(settings[name])):
            raise InputError(
                f"{name}={settings[name]}: must be a name of at most 63 lower-case letters, digits and dashes, or null"
            )
    if settings["priority_class"] and not settings["queue"]:
        raise InputError(
            f"priority_class={settings['priority_class']}: is Kueue's, which needs a queue: add queue=NAME"
        )
    if large["shared_memory"] is not None and not _MEMORY.fullmatch(str(large["shared_memory"])):
        raise InputError(f"large.shared_memory={large['shared_memory']}: must be an amount such as 2Gi, or null")
    for name in ("secrets", "node_selector"):
        values = settings[name] or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
            raise InputError(f"{name}={values}: must be a mapping of names to texts that are not empty")
    if not all(isinstance(toleration, dict) for toleration in settings["tolerations"] or []):
        raise InputError(
            f"tolerations={settings['tolerations']}: must be a list of mappings, as [{{key: gpu, operator: Exists}}]"
        )


def compile_text(overrides: Sequence[str] = (), output: str = "") -> str:
    """Compile the pipeline to YAML, with the command that makes it again in the first line.

    Args:
        overrides: Overrides of conf/pipeline.yaml.
        output: Name of the file, for that command.
    """
    import warnings

    from kfp import compiler

    from pipelines.definition import pipeline

    settings = load_settings(overrides)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "pipeline.yaml"
        try:
            compiler.Compiler().compile(pipeline(settings), str(path))
        except ValueError as error:
            raise InputError(f"KFP cannot compile these settings: {error}") from error
        text = path.read_text(encoding="utf-8")
    command = shlex.join(["compile", *overrides, *(["-o", output] if output else [])])
    return f"# python -m pipelines {command}\n{text}"


def is_compiled(path: Path) -> bool:
    """Return whether a file has the line of the command that compiled it."""
    return _COMMAND.search(path.read_text(encoding="utf-8")) is not None


def recompile(path: Path) -> str:
    """Compile a file again with the command in its first line.

    Raises:
        InputError: The file has no such line.
    """
    try:
        match = _COMMAND.search(read_text(path))
        words = shlex.split(match[1])[1:] if match else []
        output = words[words.index("-o") + 1] if "-o" in words else ""
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not match:
        raise InputError(
            f"{path} does not say which command compiled it: it has no line # python -m pipelines compile …"
        )
    return compile_text([word for word in words if word not in ("-o", output)], output)


def read_documents(path: str) -> list[dict[str, Any]]:
    """Return the documents of a compiled pipeline: the specification, and the settings of the platform.

    Raises:
        InputError: The file is not a compiled pipeline.
    """
    try:
        documents = parse_yaml(read_bytes(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise InputError(f"{path} is not a compiled pipeline")
    return documents


def spec_parameters(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parameters of a pipeline: type and default by name."""
    return dict(spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {}))
