"""Messages for exceptions of Hydra and OmegaConf: one line that says what is wrong and which choices are valid."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from config.compose import compose, compose_cached, group_choices, hydra_loader, is_group_choice
from config.errors import exception_chain
from config.rules import RENAMED_KEYS
from config.suggestions import PLUGINS, join_parts, quote_override, similar_key, similar_name
from config.tasks import conf_folders


def explain_error(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """Return a message that says what is wrong with a configuration, where, and what would be valid.

    Args:
        error: Exception of Hydra or OmegaConf, raised while composing, overriding or resolving.
        overrides: Overrides of the command line, if the error does not carry them itself (`compose` attaches them). The
            keys and choices in the message are those of the configuration that they compose to.
    """
    chain = exception_chain(error)
    overrides = next((link.overrides for link in chain if hasattr(link, "overrides")), overrides)
    text = "\n".join(str(link) for link in chain)
    if type(error).__module__ == "builtins":
        words = " ".join(word for word in overrides if is_group_choice(word)) or " ".join(overrides)
        return f"{words}: cannot be composed ({type(error).__name__}: {_first_line(text)}): check the choices"
    if match := re.search(r"(?:Could not find|In '[^']*': Could not find) '([\w/]+)/([^'/]+)'", text):
        return _describe_unknown_choice(*match.groups())
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text, re.DOTALL):
        return _describe_list(match[1])
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].partition("@")[0]
        if "/" in key:
            return f"{key}: no such group; valid: {format_choices(_groups(), key)}"
        # The key of a mapping that is set as a whole: data.columns={qestion: q}.
        if (inner := re.search(r"full_key: (\S+)", text)) and inner[1].startswith(f"{key}."):
            return describe_unknown_key(inner[1], _compose_without(overrides, key))
        if "is not in struct" in text or "No match in the defaults list" in text:
            return describe_unknown_key(key, _compose_without(overrides, key))
        return f"cannot set {match[1]}: {_first_line(str(chain[-1]))}"
    if match := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return describe_unknown_key(match[1], _compose_without(overrides, match[1]))
    if match := re.search(r"Key '[^']+' is not in struct\s*full_key: (\S+)", text):
        return describe_unknown_key(match[1], _compose_without(overrides, match[1]))
    if match := re.search(r"Interpolation key '([^']+)' not found\s*full_key: (\S+)", text):
        return f"{match[2]} refers to {match[1]}, which does not exist in this configuration"
    if match := re.search(r"Environment variable '([^']+)' not found", text):
        return f"the configuration needs the environment variable {match[1]}, which is not set"
    if override := next((link.override for link in chain if hasattr(link, "override")), None):
        return _describe_unparsable(str(override), overrides)
    if match := re.search(r"Error in call to target '([^']+)'", text):
        return f"{match[1]}: {type(chain[-1]).__name__}: {_first_line(str(chain[-1]))}"
    if match := re.search(r"full_key: (\S+)", text):
        return f"{match[1]}: {_first_line(str(chain[0]))}"
    return _first_line(text)


def describe_unknown_key(key: str, config: DictConfig | None = None) -> str:
    """Return the message for a key that the configuration does not have.

    Args:
        key: Dotted key.
        config: The configuration without the key; that of train.py without overrides by default.
    """
    if key in RENAMED_KEYS:
        return f"{key} is now {RENAMED_KEYS[key]}"
    config = compose_cached(()) if config is None else config
    if "." not in key and group_choices(key):
        return f"{key}: no such choice; valid: {', '.join(group_choices(key))}"
    parents, leaf = key.split("."), ""
    node: Any = None
    while parents and not isinstance(node, DictConfig):
        leaf = parents.pop()
        node = _select(config, ".".join(parents))
    parent = ".".join(parents)
    ancestor = f"{parent}.{leaf}".lstrip(".")
    if leaf in node and ancestor != key:
        value = _select(config, ancestor)
        return f"unknown key {key}: {ancestor} is {'null' if value is None else value}, which has no keys"
    hint = ""
    if key.startswith("trainer."):
        hint = f"; +{key}=… passes any other argument to Lightning's Trainer"
    names = [str(name) for name in node if name != "_target_"]
    elsewhere = similar_key(key, config) if ancestor == key or similar_name(leaf, names) is None else None
    suggestion = suggest_name(leaf, names)
    if elsewhere is not None:
        suggestion = f" (did you mean {elsewhere.removeprefix(f'{parent}.') if parent else elsewhere}?)"
    text = f"unknown key {key}; keys of {parent or 'the configuration'}: {', '.join(names)}{suggestion}{hint}"
    mismatch = describe_task_mismatch(config) if ancestor.startswith(("model.", "data.")) else ""
    return f"{text}; {mismatch}" if mismatch else text


def describe_task_mismatch(config: DictConfig) -> str:
    """Return a message if the model and the data set have different tasks, with the choices that fit; otherwise ""."""
    model_task, task = _select(config, "model.task"), str(config.task.name)
    if model_task is None:
        return f"the YAML of the model has no task: add `task: {task}` to it"
    if str(model_task) in (task, "any"):
        return ""
    models = [name for name in group_choices("model") if _task_of_choice("model", name) in (task, "any")]
    data = [name for name in group_choices("data") if _task_of_choice("data", name) == model_task]
    options = [f"{key}={' or '.join(names)}" for key, names in (("model", models), ("data", data)) if names]
    return (
        f"the model is for the task {model_task} and the data set for {task}: "
        f"choose a model and a data set of one task: {', or '.join(options)}"
    )


def format_choices(names: Iterable[str], name: str) -> str:
    """Return the names, separated by commas, with a suggestion for an invalid one: `a, b, c (did you mean b?)`."""
    names = list(names)
    return ", ".join(names) + suggest_name(name, names)


def suggest_name(name: str, names: Iterable[str]) -> str:
    """Return ` (did you mean b?)`, or "" if none of the names is similar."""
    match = similar_name(name, names)
    return f" (did you mean {match}?)" if match else ""


def _describe_unknown_choice(group: str, name: str) -> str:
    """Return the message for a choice that a group does not have; groups of Hydra's own may be of a plug-in."""
    choices = group_choices(group) or _hydra_choices(group)
    text = f"{group}={name}: no such choice; valid: {format_choices(choices, name)}"
    plugin = PLUGINS.get(f"{group}={name}")
    return f"{text}; {name} is in the package {plugin}: pip install {plugin}" if plugin else text


def _describe_list(word: str) -> str:
    """Return the message for several values of a key in a command that runs one training."""
    message = f"{word}: is a list of values: add -m to run one training for each"
    quoted = quote_override(word) if "/" in word or " " in word else None
    return f"{message}, or, for one text with a comma, write {quoted}" if quoted else message


def _describe_unparsable(word: str, overrides: Sequence[str]) -> str:
    """Return the message for an override that is no `key=value`, with the exact quoting if that is what it lacks."""
    message = f"cannot parse the override '{word}'"
    if match := re.fullmatch(r"([^=]+)=\s*(uniform|loguniform|logint|normal|lognormal)\(.*\)\s*", word):
        advice = f"with -m, write {match[1]}=interval(low,high) or {match[1]}=tag(log,interval(low,high))"
        return f"{message}: {match[2]}() is for python -m katib new; {advice}"
    if joined := join_parts(word, overrides):
        return f"{message}: a value with a blank needs quotes: write {joined}"
    if quoted := quote_override(word):
        return f"{message}: its value needs quotes: write {quoted}"
    return f"{message}: write key=value, and quote values with spaces or symbols"


def _hydra_choices(group: str) -> list[str]:
    """Return the choices of a group that Hydra or its plug-ins have, e.g. `hydra/launcher`."""
    with hydra_loader() as loader:
        return [str(name) for name in loader.get_group_options(group)]


def _groups() -> list[str]:
    """Return all groups that a command line can choose from."""
    names = {
        path.name for folder in conf_folders() for path in folder.iterdir() if path.is_dir() and path.name != "hydra"
    }
    with hydra_loader() as loader:
        return [*sorted(names), *(f"hydra/{name}" for name in loader.list_groups("hydra"))]


def _compose_without(overrides: Sequence[str], key: str) -> DictConfig:
    """Compose without the override of a key; if that fails, with the group choices only, then without overrides."""
    rest = [item for item in overrides if item.lstrip("+~").partition("=")[0].partition("@")[0] != key]
    if key.startswith("hydra."):
        return compose([item for item in rest if item.startswith("hydra/")], with_hydra=True)
    for attempt in (rest, [item for item in rest if is_group_choice(item)]):
        try:
            return compose_cached(attempt)
        except Exception:  # another error in the overrides, which the next attempt of the user will show
            continue
    return compose_cached(())


def _task_of_choice(group: str, name: str) -> str | None:
    """The task of a choice of `model` or `data`, read from its YAML: composing every choice would take seconds."""
    path = next((path for folder in conf_folders() if (path := folder / group / f"{name}.yaml").is_file()), None)
    content = _read_yaml(path) if path is not None else None
    if not isinstance(content, dict):
        return None
    if group == "model" and "task" in content:
        return str(content["task"])
    task = None
    for entry in content.get("defaults") or []:
        if isinstance(entry, str) and entry not in ("_self_", name):
            task = _task_of_choice(group, entry) or task
        elif isinstance(entry, dict):
            task = next((str(value) for key, value in entry.items() if re.match(r"(override )?/?task@", key)), task)
    return task


def _read_yaml(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None


def _select(config: DictConfig, key: str) -> Any:
    """A value; None if it cannot be resolved."""
    if not key:
        return config
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unreadable configuration")
