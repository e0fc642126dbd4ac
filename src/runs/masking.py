"""Masking of secrets in everything that a run writes, by the name of a key and by passwords in URLs."""

import re
from collections.abc import Sequence
from typing import Any

MASK = "***"
# The last word of the key decides: `tokenizer`, `max_tokens` and the `mask_token` of a model are not secrets.
_SECRET_KEY = re.compile(
    r"(?:^|[_.\-/])(?:password|passwd|passphrase|secret|webhook|credentials?|(?:api|access|private|secret)[_-]?key"
    r"|(?<!pad_)(?<!cls_)(?<!sep_)(?<!mask_)(?<!unk_)(?<!bos_)(?<!eos_)(?<!class_)(?<!dist_)token)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE)
_NESTED_KEY = re.compile(r"([\w.\-/]+)['\"]?\s*:")
# `key: value` to the end of the line, as in YAML; `key=value` to the end of an override.
_YAML_PAIR = re.compile(r"(?P<key>[\w.\-/]+)(?P<sign>['\"]?:[ \t]+)(?P<value>\S[^\n]*)")
_OVERRIDE_PAIR = re.compile(r"(?P<key>[\w.\-/]+)(?P<sign>=)(?P<value>\"[^\"]*\"|'[^']*'|[^\n,'\"\]}]+)")


def is_secret(key: str) -> bool:
    """Return whether a key looks like the name of a secret (`hf_token`, `db.password`, `api_key`)."""
    return _SECRET_KEY.search(key) is not None


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return a copy of nested mappings and lists with `***` for secrets; null and empty values stay.

    Args:
        value: The value.
        key: Key of the value.
    """
    if isinstance(value, dict):
        return {name: mask_secrets(child, str(name)) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(child, key) for child in value]
    if isinstance(value, str):
        return MASK if value and is_secret(key) else _mask_urls(value)
    return MASK if is_secret(key) and isinstance(value, int | float) and not isinstance(value, bool) else value


def mask_text(text: str) -> str:
    """Return text (YAML, a list of overrides) with `***` for the values of secrets in `key=value` and `key: value`."""

    def mask_pair(match: re.Match[str]) -> str:
        unset = match["value"].strip().lower() in ("null", "none", "true", "false", "''", '""')
        return match[0] if unset or not is_secret(match["key"]) else f"{match['key']}{match['sign']}{MASK}"

    for pattern in (_YAML_PAIR, _OVERRIDE_PAIR):
        text = pattern.sub(mask_pair, text)
    return _mask_urls(text)


def mask_command(arguments: Sequence[str]) -> list[str]:
    """Return a command line with `***` for the values of secrets (`key=value`, `--key value`)."""
    masked: list[str] = []
    for argument in arguments:
        option = masked[-1] if masked else ""
        is_value = option.startswith("-") and "=" not in option and is_secret(option.lstrip("-"))
        masked.append(MASK if is_value else mask_override(argument))
    return masked


def mask_override(text: str) -> str:
    """Return an override with `***` as its value if its key, or a key in a value such as {api_key: x}, is a secret's."""
    head, sign, value = text.partition("=")
    nested = _NESTED_KEY.findall(value) if "{" in value else []
    if sign and value and (is_secret(head.lstrip("-+~")) or any(map(is_secret, nested))):
        return f"{head}={MASK}"
    return _mask_urls(text)


def _mask_urls(text: str) -> str:
    return _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)
