"""JSON files that are read back from a cache, with a digest of their content by which damage is noticed."""

import hashlib
import json
import os
from typing import Any

from config import files, parsing


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Write a value of JSON atomically, with its digest.

    Raises:
        ValueError: a number is not finite.
    """
    files.write_text(path, json.dumps({"sha256": _digest(content), "content": content}, indent=1) + "\n")


def read(path: str | os.PathLike[str]) -> Any:
    """Return the value that `write` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or another file.
    """
    try:
        record = parsing.read_json(path)
        content, digest = record["content"], record["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON with a digest") from error
    if digest != _digest(content):
        raise ValueError(f"{path} is damaged: its content does not have the digest that it names")
    return content


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
