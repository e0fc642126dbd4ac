"""Secrets are kept out of what a run leaves: by the name of a key, and by the password in an address."""

import re
from collections.abc import Sequence
from typing import Any

MASK = "***"
# The last word of a key decides: `tokenizer`, `max_tokens` and a model's `mask_token` are no secrets.
_KEY = re.compile(
    r"(?:^|[_.\-/])(?:password|passwd|passphrase|secret|webhook|credentials?|(?:api|access|private|secret)[_-]?key"
    r"|(?<!pad_)(?<!cls_)(?<!sep_)(?<!mask_)(?<!unk_)(?<!bos_)(?<!eos_)(?<!class_)(?<!dist_)token)$",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE)
_KEYS = re.compile(r"([\w.\-/]+)['\"]?\s*:")
# `key: value` to the end of the line, as YAML has it; `key=value` to what ends an override.
_IN_YAML = re.compile(r"(?P<key>[\w.\-/]+)(?P<sign>['\"]?:[ \t]+)(?P<value>\S[^\n]*)")
_IN_OVERRIDE = re.compile(r"(?P<key>[\w.\-/]+)(?P<sign>=)(?P<value>\"[^\"]*\"|'[^']*'|[^\n,'\"\]}]+)")


def is_secret(key: str) -> bool:
    """Whether a key looks like the name of a secret (`hf_token`, `db.password`, `api_key`)."""
    return _KEY.search(key) is not None


def mask_secrets(value: Any, key: str = "") -> Any:
    """A copy of nested mappings and lists in which the secrets read `***`; null and empty values stay."""
    if isinstance(value, dict):
        return {name: mask_secrets(child, str(name)) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(child, key) for child in value]
    if isinstance(value, str):
        return MASK if value and is_secret(key) else _IN_ADDRESS.sub(rf"\g<head>{MASK}", value)
    return MASK if is_secret(key) and isinstance(value, int | float) and not isinstance(value, bool) else value


def mask_text(text: str) -> str:
    """Text (YAML, a list of overrides) in which `key=value` and `key: value` of secrets read `***`."""

    def assigned(match: re.Match[str]) -> str:
        unset = match["value"].strip().lower() in ("null", "none", "true", "false", "''", '""')
        return match[0] if unset or not is_secret(match["key"]) else f"{match['key']}{match['sign']}{MASK}"

    for pattern in (_IN_YAML, _IN_OVERRIDE):
        text = pattern.sub(assigned, text)
    return _IN_ADDRESS.sub(rf"\g<head>{MASK}", text)


def mask_command(arguments: Sequence[str]) -> list[str]:
    """A command line in which the values of secrets (`key=value`, `--key value`) read `***`."""
    out: list[str] = []
    for argument in arguments:
        after_secret = bool(out) and out[-1].startswith("-") and "=" not in out[-1] and is_secret(out[-1].lstrip("-"))
        out.append(MASK if after_secret else mask_override(argument))
    return out


def mask_override(text: str) -> str:
    """One override, whose whole value reads `***` where its key, or a key in a value such as {api_key: x}, is a secret's."""
    head, sign, value = text.partition("=")
    inner = _KEYS.findall(value) if "{" in value else []
    if sign and value and (is_secret(head.lstrip("-+~")) or any(map(is_secret, inner))):
        return f"{head}={MASK}"
    return _IN_ADDRESS.sub(rf"\g<head>{MASK}", text)
