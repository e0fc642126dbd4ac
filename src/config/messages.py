"""Hydra's and OmegaConf's exceptions, said in one line that names the choices."""

import difflib
import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from config.compose import choices, compose


def explain(error: BaseException) -> str:
    """Says what is wrong with a configuration, where, and what would be right.

    Args:
        error: what Hydra or OmegaConf raised while composing, overriding or resolving.
    """
    chain = list(_chain(error))
    text = "\n".join(str(link) for link in chain)
    if found := re.search(r"(?:Could not find|In '[^']*': Could not find) '([\w/]+)/([^'/]+)'", text):
        return no_choice(found[1], found[2])
    if found := re.search(r"Could not override '([^']+)'", text):
        group, _, _ = found[1].partition("@")
        if "is not in struct" in text or "No match in the defaults list" in text:
            return unknown_key(group)
        return f"cannot set {found[1]}: {_first_line(str(chain[-1]))}"
    if found := re.search(r"Key '([^']+)' is not in struct\s*full_key: (\S+)", text):
        return unknown_key(found[2])
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
    return f"{group}={name}: no such choice; {group} can be {_listed(choices(group), name)}"


def unknown_key(key: str) -> str:
    """A key that the configuration does not have."""
    parent, _, leaf = key.rpartition(".")
    if not parent and choices(leaf):
        return f"{leaf}: no such choice; it can be {', '.join(choices(leaf))}"
    config = compose()
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return f"unknown key {key}: there is no {parent} in this configuration"
    plus = ""
    if key.startswith("trainer."):
        plus = f"; an argument of Lightning's Trainer that is not listed is added by +{key}=…"
    return f"unknown key {key}; {parent or 'the configuration'} has {_listed([str(k) for k in node], leaf)}{plus}"


def _listed(names: Iterable[str], wanted: str) -> str:
    names = list(names)
    close = difflib.get_close_matches(wanted, names, n=1)
    return ", ".join(names) + (f" (did you mean {close[0]}?)" if close else "")


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unreadable configuration")
