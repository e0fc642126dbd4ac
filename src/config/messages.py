"""Hydra's and OmegaConf's exceptions, said in one line that names the choices."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from config.compose import compose_cached, group_choices, is_group_choice
from config.rules import RENAMED_KEYS
from config.tasks import conf_folders


def explain_error(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """Says what is wrong with a configuration, where, and what would be right.

    Args:
        error: what Hydra or OmegaConf raised while composing, overriding or resolving.
        overrides: of the command line, for an error that does not carry its own (`compose` gives it them): the keys and
            choices in the message are those of the configuration that they make.
    """
    chain = list(_chain(error))
    overrides = next((link.overrides for link in chain if hasattr(link, "overrides")), overrides)
    text = "\n".join(str(link) for link in chain)
    if found := re.search(r"(?:Could not find|In '[^']*': Could not find) '([\w/]+)/([^'/]+)'", text):
        return no_choice(found[1], found[2])
    if found := re.search(r"Could not override '([^']+)'", text):
        group, _, _ = found[1].partition("@")
        if "is not in struct" in text or "No match in the defaults list" in text:
            return describe_unknown_key(group, _nearest(overrides, group))
        return f"cannot set {found[1]}: {_first_line(str(chain[-1]))}"
    if found := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return describe_unknown_key(found[1], _nearest(overrides, found[1]))
    if found := re.search(r"Key '([^']+)' is not in struct\s*full_key: (\S+)", text):
        return describe_unknown_key(found[2], _nearest(overrides, found[2]))
    if found := re.search(r"Interpolation key '([^']+)' not found\s*full_key: (\S+)", text):
        return f"{found[2]} refers to {found[1]}, which does not exist in this configuration"
    if found := re.search(r"Environment variable '([^']+)' not found", text):
        return f"the configuration needs the environment variable {found[1]}, which is not set"
    if override := next((link.override for link in chain if hasattr(link, "override")), None):
        return f"cannot read the override '{override}': write key=value, and quote values with spaces or symbols"
    if found := re.search(r"full_key: (\S+)", text):
        return f"{found[1]}: {_first_line(str(chain[0]))}"
    return _first_line(text)


def no_choice(group: str, name: str) -> str:
    """`group=name` where the group has no such choice."""
    return f"{group}={name}: no such choice; {group} can be {format_choices(group_choices(group), name)}"


def describe_unknown_key(key: str, config: DictConfig | None = None) -> str:
    """A key that the configuration does not have.

    Args:
        key: dotted.
        config: the configuration without it; None for train.py's without overrides.
    """
    if key in RENAMED_KEYS:
        return f"{key} is now {RENAMED_KEYS[key]}"
    config = compose_cached(()) if config is None else config
    if "." not in key and group_choices(key):
        return f"{key}: no such choice; it can be {', '.join(group_choices(key))}"
    parents, leaf = key.split("."), ""
    node: Any = None
    while parents and not isinstance(node, DictConfig):
        leaf = parents.pop()
        node = _select(config, ".".join(parents))
    parent = ".".join(parents)
    below = f"{parent}.{leaf}".lstrip(".")
    if leaf in node and below != key:
        value = _select(config, below)
        shown = "null" if value is None else str(value)
        return f"unknown key {key}: {below} is {shown} here, without keys of its own"
    plus = ""
    if key.startswith("trainer."):
        plus = f"; an argument of Lightning's Trainer that is not listed is added by +{key}=…"
    names = [str(name) for name in node if name != "_target_"]
    text = f"unknown key {key}; {parent or 'the configuration'} has {format_choices(names, leaf)}{plus}"
    other = describe_task_mismatch(config) if below.startswith(("model.", "data.")) else ""
    return f"{text}; {other}" if other else text


def describe_task_mismatch(config: DictConfig) -> str:
    """What is wrong with a model and a data set of different tasks, and which choices fit; "" where nothing is."""
    made_for, task = _select(config, "model.task"), str(config.task.name)
    if made_for is None:
        return f"the model's YAML does not say which task it is made for: add `task: {task}` to it"
    if str(made_for) in (task, "any"):
        return ""
    models = [name for name in group_choices("model") if _task_of("model", name) in (task, "any")]
    data = [name for name in group_choices("data") if _task_of("data", name) == made_for]
    fitting = [f"model={' or '.join(models)}"] * bool(models) + [f"data={' or '.join(data)}"] * bool(data)
    return (
        f"the model is made for {made_for}, the data set for {task}: "
        f"choose a model and a data set of one task: {', or '.join(fitting)}"
    )


def format_choices(names: Iterable[str], wanted: str) -> str:
    """`a, b, c (did you mean b?)`."""
    names = list(names)
    return ", ".join(names) + suggest_name(wanted, names)


def suggest_name(wanted: str, names: Iterable[str]) -> str:
    """` (did you mean b?)`, or "" where nothing is close."""
    close = difflib.get_close_matches(wanted, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _nearest(overrides: Sequence[str], key: str) -> DictConfig:
    """The configuration of a command line without the override of a key; without others, too, if these do not compose."""
    rest = [each for each in overrides if each.lstrip("+~").partition("=")[0].partition("@")[0] != key]
    for tried in (rest, [each for each in rest if is_group_choice(each)]):
        try:
            return compose_cached(tried)
        except Exception:  # what else is wrong is for the next message
            continue
    return compose_cached(())


def _task_of(group: str, name: str) -> str | None:
    """The task of a choice of `model` or `data`, read from its YAML: composing every one would take seconds."""
    path = next((path for folder in conf_folders() if (path := folder / group / f"{name}.yaml").is_file()), None)
    content = _read(path) if path is not None else None
    if not isinstance(content, dict):
        return None
    if group == "model" and "task" in content:
        return str(content["task"])
    found = None
    for entry in content.get("defaults") or []:
        if isinstance(entry, str) and entry not in ("_self_", name):
            found = _task_of(group, entry) or found
        elif isinstance(entry, dict):
            found = next((str(value) for key, value in entry.items() if re.match(r"(override )?/?task@", key)), found)
    return found


def _read(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None


def _select(config: DictConfig, key: str) -> Any:
    """A value, unresolved where it cannot be resolved."""
    if not key:
        return config
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unreadable configuration")
