"""Compiled pipelines: files that say which command made them, so that the same settings make them again."""

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import InputError
from config.tasks import CONF

_MADE = re.compile(r"^# python -m pipelines (compile .*)$", re.MULTILINE)
SIZES = ("small", "large")


def settings(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """conf/pipeline.yaml with overrides.

    Raises:
        InputError: what does not compose, or cannot be.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            found: Any = OmegaConf.to_container(compose("pipeline", overrides=list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{why} Settings are those of conf/pipeline.yaml; keys are added with +key=value") from error
    shipped: Any = yaml.safe_load((CONF / "pipeline.yaml").read_text(encoding="utf-8"))
    for place, known, given in [("", shipped, found), *((f"{size}.", shipped[size], found[size]) for size in SIZES)]:
        if unknown := set(given) - set(known):
            raise InputError(f"unknown setting {place}{min(unknown)}; conf/pipeline.yaml has {', '.join(known)}")
    for size in SIZES:
        quantities = ("cpu", "cpu_limit", "memory", "memory_limit")
        found[size] |= {name: str(found[size][name]) for name in quantities}  # KFP takes no numbers
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", str(found["name"])):  # KFP would change it
        raise InputError(f"name={found['name']}: small letters, digits and hyphens only")
    if not str(found["root"]).startswith("/"):
        raise InputError(f"root={found['root']}: a path from /, which the volume is mounted at")
    if not isinstance(found["large"]["gpus"], int) or found["large"]["gpus"] < 0:
        raise InputError(f"large.gpus={found['large']['gpus']}: a whole number, 0 or more")
    return dict(found)


def compile_text(overrides: Sequence[str] = (), output: str = "") -> str:
    """The compiled pipeline as YAML, with the command that makes it again in its first lines.

    Args:
        overrides: of conf/pipeline.yaml.
        output: the file's name, for that command.
    """
    import warnings

    from kfp import compiler

    from pipelines.definition import pipeline

    chosen = settings(overrides)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "pipeline.yaml"
        try:
            compiler.Compiler().compile(pipeline(chosen), str(path))
        except ValueError as error:
            raise InputError(f"KFP refuses this: {error}") from error
        written = path.read_text(encoding="utf-8")
    made = shlex.join(["compile", *overrides, *(["-o", output] if output else [])])
    return f"# python -m pipelines {made}\n{written}"


def recompile(path: Path) -> str:
    """A file's text, compiled anew as its first lines say.

    Raises:
        InputError: it does not say how.
    """
    found = _MADE.search(path.read_text(encoding="utf-8"))
    if not found:
        raise InputError(f"{path} does not say which command made it")
    words = shlex.split(found[1])[1:]
    output = words[words.index("-o") + 1] if "-o" in words else ""
    return compile_text([each for each in words if each not in ("-o", output)], output)


def read_documents(path: str) -> list[dict[str, Any]]:
    """The documents of a compiled pipeline: its specification, then what it asks of the platform.

    Raises:
        InputError: it is no YAML, or no compiled pipeline.
    """
    try:
        found = list(yaml.safe_load_all(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not found or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path} is no compiled pipeline")
    return found


def spec_parameters(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The pipeline's parameters: type and default of each."""
    found = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return dict(found)
