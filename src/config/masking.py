"""Masking of secrets in everything that is written or printed.

A secret is recognised in three ways:

- by its key: `api_key: ...`, `--password ...`, `quality.webhook=...`;
- by its place in an address: user and password, and signatures and tokens in a query;
- by its value: `register_secrets`, `register_command` and `register_environment` remember the values of secret keys, and
  `mask` replaces them wherever they occur, for example in the message of a library.

`config.files` masks what it writes, `config.error_handling` what a command prints.
"""

import difflib
import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import quote

MASK = "***"
# Characters of a value that `mask` looks for, and of one that has letters only: shorter ones are ordinary words.
MIN_LENGTH, LONG_WORD = 8, 16
_SECRET_WORDS = ("password", "passphrase", "secret", "webhook", "credentials", "authorization", "token")
# The last word of the key decides: `tokenizer`, `max_tokens` and the `mask_token` of a model are not secrets.
_SECRET_KEY = re.compile(
    r"(?:^|[_.\-/])(?:password|passwd|passphrase|pwd|secret|webhook(?:_?ur[li])?|credentials?|auth|authorization|bearer"
    r"|cookies?|connection[_-]?string|sig|signature|(?:api|access|account|private|secret)[_-]?key"
    r"|(?<!pad_)(?<!cls_)(?<!sep_)(?<!mask_)(?<!unk_)(?<!bos_)(?<!eos_)(?<!class_)(?<!dist_)token)$",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"[+~]*secrets\.")  # of a Kubernetes secret, in conf/pipeline.yaml
# All values in such a mapping are secrets; in Kubernetes, `secret: {...}` has names only.
_SECRET_MAPPING = re.compile(r"(?:^|[_.\-/])(?:password|credentials|auth|authorization|cookies?)$", re.IGNORECASE)
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # of camelCase
_FOLDER_VARIABLES = ("PWD", "OLDPWD")  # of the shell: folders
_QUERY_KEYS = ("key", "code")  # secrets in an address only (Google, Azure)
# These begin with fixed text, so that pages with megabytes of images are searched fast.
_ADDRESS = re.compile(r"://[^\s\"'<>\\`]+")
_QUERY_PAIR = re.compile(r"(?P<head>[?&;#](?P<key>[\w.\-]+)=)[^&;#,)}\]]+")
_HTTP = re.compile(r"https?$", re.IGNORECASE)
# Addresses whose path is the secret.
_WEBHOOK = re.compile(
    r"(?P<head>://(?:hooks\.slack\.com|[\w.-]*discord(?:app)?\.com/api/webhooks|[\w.-]*\.webhook\.office\.com)/).+"
)
_BEARER = re.compile(r"(?P<head>[Bb]earer\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{16,}")
_CONNECTION = re.compile(r"(?P<head>(?:Account|SharedAccess)Key=|SharedAccessSignature=)[^;\s\"'<>\\]+")
# References to a variable or another key, without a default, are not secrets: Hydra's, the shell's, Kubernetes'.
_REFERENCE = re.compile(
    r"['\"]?\$(?:\{oc\.env:\w+(?:,\s*(?:null|''|\"\"))?\}|\{[\w.]+\}|\(\w+\)|[A-Z_][A-Z0-9_]*)['\"]?"
)
_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)")
# `key: value` to the end of the line, as in YAML; `key=value` to the end of an override; `key:value` in {...}.
_YAML_PAIR = re.compile(r"(?<![\w.\-/])(?P<key>[\w.\-/]+)(?P<sign>['\"]?:[ \t]+)(?P<value>\S[^\n]*)")
_OVERRIDE_PAIR = re.compile(
    r"(?<![\w.\-/])(?P<key>[\w.\-/]+)(?P<sign>=)(?P<value>\"[^\"]*\"|'[^']*'|(?:\$\{[^}\n]*\}|[^\n,'\"\]}])+)"
)
_NESTED_PAIR = re.compile(
    r"(?<![\w.\-/])(?P<key>[\w.\-/]+)(?P<sign>['\"]?\s*:\s*)(?P<value>\"[^\"]*\"|'[^']*'|\$\{[^}]*\}|[^\s,{}\[\]'\"][^\n,{}\[\]]*)"
)

_SHELL_WORD = re.compile(r"(?:\"[^\"]*\"|'[^']*'|\\.|[^\s\"'\\])+")

_values: set[str] = set()  # secrets that `mask` looks for, and their escaped forms


def is_secret(key: str) -> bool:
    """Return whether a key looks like the name of a secret (`hf_token`, `db.password`, `apiKey`, `X-Amz-Signature`)."""
    return _SECRET_KEY.search(_WORD_START.sub("_", key)) is not None and not _SECRET_NAME.match(key)


def mask(text: str) -> str:
    """Return a text with `***` for the values of registered secrets and for secrets in addresses."""
    for value in sorted(_values, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    if "://" in text:
        text = _ADDRESS.sub(_mask_address, text)
    if "earer" in text:
        text = _BEARER.sub(rf"\g<head>{MASK}", text)
    return _CONNECTION.sub(rf"\g<head>{MASK}", text) if "SharedAccess" in text or "AccountKey" in text else text


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return a copy of nested mappings and lists with `***` for secrets; null and empty values stay.

    Args:
        value: The value.
        key: Key of the value.
    """
    if isinstance(value, Mapping):
        return {name: mask_secrets(child, _child_key(key, name, value)) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(child, key) for child in value]
    if isinstance(value, str):
        if value and is_secret(key) and not _REFERENCE.fullmatch(value):
            return MASK
        return mask_shell(value) if "=" in value else mask(value)
    return MASK if is_secret(key) and isinstance(value, int | float) and not isinstance(value, bool) else value


def mask_text(text: str) -> str:
    """Return text (YAML, a list of overrides) with `***` for the values of secrets in `key=value` and `key: value`."""

    def mask_pair(match: re.Match[str]) -> str:
        public = _is_public(match["value"]) or not is_secret(match["key"])
        return match[0] if public else f"{match['key']}{match['sign']}{MASK}"

    for pattern in (_YAML_PAIR, _OVERRIDE_PAIR, _NESTED_PAIR):
        text = pattern.sub(mask_pair, text)
    return mask(text)


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
    if sign and value and not _REFERENCE.fullmatch(value) and _secret_values(text):
        return f"{head}={MASK}"
    return mask(text)


def mask_shell(text: str) -> str:
    """Return a shell's command line with its words masked as overrides."""

    def mask_word(match: re.Match[str]) -> str:
        word = match[0]
        quote = word[0] if word[0] in "'\"" and len(word) > 1 and word[-1] == word[0] else ""
        return f"{quote}{mask_override(word[1:-1])}{quote}" if quote else mask_override(word)

    return _SHELL_WORD.sub(mask_word, text)


def register_secrets(value: Any) -> None:
    """Remember the secrets in nested mappings and lists, such as a configuration or an Experiment, for `mask`."""
    nodes: list[tuple[str, Any]] = [("", value)]
    visited: set[tuple[str, int]] = set()
    while nodes:
        key, node = nodes.pop()
        if isinstance(node, str) and is_secret(key):
            _register(node)
        elif isinstance(node, str) and "=" in node:
            register_command([word.strip("'\"") for word in _SHELL_WORD.findall(node)])
        elif isinstance(node, Mapping | list | tuple) and (key, id(node)) not in visited:  # YAML can have cycles
            visited.add((key, id(node)))
            if isinstance(node, Mapping):
                nodes += [(_child_key(key, name, node), child) for name, child in node.items()]
            else:
                nodes += [(key, child) for child in node]


def register_command(arguments: Sequence[str]) -> None:
    """Remember the secrets in a command line for `mask`."""
    previous = ""
    for argument in map(str, arguments):
        values = _secret_values(argument)
        key, _, value = argument.partition("=")
        if _is_misspelled(key) and not _is_public(value):
            values.append(value)
        if is_secret(key.lstrip("-+~'\"")):
            values += [os.environ.get(name, "") for name in _VARIABLE.findall(argument)]
        if previous.startswith("-") and "=" not in previous and is_secret(previous.lstrip("-")):
            values.append(argument)
        for value in values:
            _register(value)
        previous = argument


def _is_misspelled(key: str) -> bool:
    """Return whether the last word of a key is nearly that of a secret (`webhok`): messages about it must not tell the value.

    Exact words (`pad_token`) are decided by `is_secret`, and `tokens` are none.
    """
    word = re.split(r"[_.\-/]", key)[-1].lower()
    if _SECRET_NAME.match(key) or word.removesuffix("s") in _SECRET_WORDS or word in _SECRET_WORDS:
        return False
    return bool(difflib.get_close_matches(word, _SECRET_WORDS, 1, 0.85))


def register_environment() -> None:
    """Remember the values of environment variables with the name of a secret for `mask`."""
    for name, value in os.environ.items():
        if (
            is_secret(name)
            and name not in _FOLDER_VARIABLES
            and not (value.startswith("/") and os.access(value, os.F_OK))
        ):
            _register(value)


def hide_environment(text: str, source: str) -> str:
    """Return a message with `${oc.env:NAME}` in place of the values of the variables to which a configuration refers.

    Args:
        text: The message.
        source: The configuration or the overrides, not resolved.
    """
    for name in dict.fromkeys(_VARIABLE.findall(source)):
        value = os.environ.get(name, "")
        if len(value) >= MIN_LENGTH:
            text = text.replace(value, f"${{oc.env:{name}}}")
        elif value:  # only where it is not a part of another word or number
            before = "(?<![A-Za-z0-9])" if value[0].isalnum() else ""
            after = "(?![A-Za-z0-9])" if value[-1].isalnum() else ""
            text = re.sub(f"{before}{re.escape(value)}{after}", f"${{oc.env:{name}}}", text)
    return text


class MaskedStream:
    """A text stream that masks what is written to another one. All else is the other stream's."""

    def __init__(self, stream: TextIO) -> None:
        object.__setattr__(self, "_stream", stream)
        self.write = stream.write

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts with their secrets masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "write":
            setattr(self._stream, name, value)
            return

        def write(text: str) -> int:
            value(mask(text))
            return len(text)

        # Also of a tracker that replaces the method to get a copy of what is printed.
        object.__setattr__(self, name, write)


def _child_key(key: str, name: Any, parent: Mapping[Any, Any]) -> str:
    """Return the key that decides whether a child of a mapping is a secret."""
    if _SECRET_MAPPING.search(key):
        return key
    if key == "secrets":
        return f"secrets.{name}"
    # A variable of a container: {name: ..., value: ...}.
    return str(parent["name"]) if name == "value" and isinstance(parent.get("name"), str) else str(name)


def _secret_values(override: str) -> list[str]:
    """Return the secrets in an override: its value, and values in {...}."""
    head, sign, value = override.partition("=")
    if not sign or not value:
        return []
    values = [] if _is_public(value) or not is_secret(head.lstrip("-+~'\"")) else [value]
    if "{" in value:
        values += [
            match["value"].strip()
            for match in _NESTED_PAIR.finditer(value)
            if is_secret(match["key"]) and not _is_public(match["value"])
        ]
    return values


def _is_public(value: str) -> bool:
    value = value.strip()
    return value.lower() in ("null", "none", "true", "false", "''", '""') or bool(_REFERENCE.fullmatch(value))


def _register(value: str) -> None:
    value = value.strip()
    for text in (value, value.strip("'\"")):
        # A number or a word of the language can have another meaning elsewhere.
        common = re.fullmatch(r"[\d.,+\-eE]+", text) or (text.isalpha() and len(text) < LONG_WORD)
        if len(text) < MIN_LENGTH or text == MASK or common or _REFERENCE.fullmatch(text):
            continue
        escaped = html.escape(text, quote=False).replace('"', "&#34;").replace("'", "&#39;")  # as jinja2 does
        _values.update(
            [
                text,
                escaped,
                *(json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)),
                quote(text, safe=""),
                text.replace("'", "'\"'\"'"),  # as shlex.quote does
                repr(text)[1:-1],
            ]
        )


def _mask_address(match: re.Match[str]) -> str:
    text = match[0]
    if webhook := _WEBHOOK.match(text):
        return f"{webhook['head']}{MASK}"
    end = next((index for index, char in enumerate(text[3:], 3) if char in "/?#"), len(text))
    user, at, host = text[3:end].rpartition("@")
    # A user without a password is a token in addresses of HTTP, and a name in others.
    scheme = match.string[max(0, match.start() - 5) : match.start()]
    if at and user and (":" in user or _HTTP.search(scheme)):
        text = f"://{MASK}@{host}{text[end:]}"
    return _QUERY_PAIR.sub(_mask_query, text) if "=" in text else text


def _mask_query(match: re.Match[str]) -> str:
    secret = is_secret(match["key"]) or match["key"].lower() in _QUERY_KEYS
    return f"{match['head']}{MASK}" if secret else match[0]
