"""Compiled pipelines: files that say which command made them, so that the same settings make them again."""

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import Refused
from config.tasks import CONF
from pipelines.commands import PROJECT

_MADE = re.compile(r"^# python -m pipelines (compile .*)$", re.MULTILINE)
# Said by a parameter of the pipeline, or by the step.
OWN = ("quality=", "explain=", "hydra.run.dir=")
POLICIES = ("enforce", "warn", "off")
CHOICES = {
    "quality": POLICIES, "drift": POLICIES, "explain": POLICIES, "benchmark": POLICIES,
    "tune_backend": ("katib", "local"), "when": ("always", "changed"),
}  # fmt: skip
SIZES = ("small", "large")
TYPES = {
    "STRING": "text", "NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number", "BOOLEAN": "true or false",
    "LIST": "a list, as [a,b]", "STRUCT": "a mapping",
}  # fmt: skip


def settings(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """conf/pipeline.yaml with overrides.

    Raises:
        Refused: what does not compose, or cannot be.
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
        raise Refused(f"{why} Settings are those of conf/pipeline.yaml; keys are added with +key=value") from error
    shipped: Any = yaml.safe_load((CONF / "pipeline.yaml").read_text(encoding="utf-8"))
    for place, known, given in [("", shipped, found), *((f"{size}.", shipped[size], found[size]) for size in SIZES)]:
        if unknown := set(given) - set(known):
            raise Refused(f"unknown setting {place}{min(unknown)}; conf/pipeline.yaml has {', '.join(known)}")
    for size in SIZES:
        quantities = ("cpu", "cpu_limit", "memory", "memory_limit")
        found[size] |= {name: str(found[size][name]) for name in quantities}  # KFP takes no numbers
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", str(found["name"])):  # KFP would change it
        raise Refused(f"name={found['name']}: small letters, digits and hyphens only")
    if not str(found["root"]).startswith("/"):
        raise Refused(f"root={found['root']}: a path from /, which the volume is mounted at")
    if not isinstance(found["large"]["gpus"], int) or found["large"]["gpus"] < 0:
        raise Refused(f"large.gpus={found['large']['gpus']}: a whole number, 0 or more")
    return dict(found)


def text(overrides: Sequence[str] = (), output: str = "") -> str:
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
            raise Refused(f"KFP refuses this: {error}") from error
        written = path.read_text(encoding="utf-8")
    made = shlex.join(["compile", *overrides, *(["-o", output] if output else [])])
    return f"# python -m pipelines {made}\n{written}"


def again(path: Path) -> str:
    """A file's text, compiled anew as its first lines say.

    Raises:
        Refused: it does not say how.
    """
    found = _MADE.search(path.read_text(encoding="utf-8"))
    if not found:
        raise Refused(f"{path} does not say which command made it")
    words = shlex.split(found[1])[1:]
    output = words[words.index("-o") + 1] if "-o" in words else ""
    return text([each for each in words if each not in ("-o", output)], output)


def documents(path: str) -> list[dict[str, Any]]:
    """The documents of a compiled pipeline: its specification, then what it asks of the platform.

    Raises:
        Refused: it is no YAML, or no compiled pipeline.
    """
    try:
        found = list(yaml.safe_load_all(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not found or not all(isinstance(each, dict) for each in found):
        raise Refused(f"{path} is no compiled pipeline")
    return found


def parameters(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The pipeline's parameters: type and default of each."""
    found = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return dict(found)


def arguments(spec: Mapping[str, Any], overrides: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """What a run of the pipeline is given.

    Args:
        spec: of the pipeline.
        overrides: train.py's: `model=` and `data=` are parameters of their own, the rest is one list.
        given: NAME=VALUE of other parameters.

    Raises:
        Refused: an unknown parameter, a value of another type, or a configuration that cannot train.
    """
    known = parameters(spec)
    if missing := [name for name in ("model", "data", "overrides", *CHOICES, "tune") if name not in known]:
        raise Refused(f"this is not isotrain's pipeline: it has no parameter {missing[0]}")
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or name not in known:
            raise Refused(f"-p {each}: write NAME=VALUE, a name of {', '.join(known)}")
        found[name] = _value(each, value, str(known[name]["parameterType"]))
    rest = []
    for each in overrides:
        name, _, value = each.partition("=")
        if name in ("model", "data"):
            found[name] = value
        elif each.startswith(OWN):
            said = "the step chooses its folder" if name.startswith("hydra") else f"say -p {name}={value}"
            raise Refused(f"{each}: {said}")
        else:
            rest.append(each)
    if rest:
        found["overrides"] = rest
    _refuse(known, found)
    return found


def _refuse(known: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    """Composes what the train step will, before anything is started."""
    from config.check import check
    from config.compose import compose

    def of(name: str) -> Any:
        return found.get(name, known[name].get("defaultValue"))

    check(compose([f"model={of('model')}", f"data={of('data')}", *of("overrides")]))
    for name, choices in CHOICES.items():
        if of(name) not in choices:
            raise Refused(f"-p {name}={of(name)}: {', '.join(choices)}")
    if of("tune") and not experiment(of("tune")).exists():
        raise Refused(f"-p tune={of('tune')}: there is no such file; those of the image are in katib/")
    for name, value in found.items():
        if "{{$" in str(value):
            raise Refused(f"{name}: KFP takes {{{{$ for its own and would break on it")


def experiment(file: str) -> Path:
    """The file of an Experiment: one of this folder, or of the project, which an image has."""
    return Path(file) if Path(file).exists() else PROJECT / file


def _value(each: str, value: str, kind: str) -> Any:
    found = value if kind == "STRING" else yaml.safe_load(value)
    good: Any = {
        "STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list,
        "STRUCT": dict,
    }[kind]  # fmt: skip
    if not isinstance(found, good) or (isinstance(found, bool) and kind != "BOOLEAN"):
        raise Refused(f"-p {each}: {TYPES[kind]}")
    if kind == "LIST":
        return [str(item) for item in found]
    return float(found) if kind == "NUMBER_DOUBLE" else found  # KFP takes no whole number for it
