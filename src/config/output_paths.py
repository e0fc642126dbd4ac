"""Paths of what a command writes: they are in a file system, and no URLs."""

import os
import re
from collections.abc import Sequence

from config.errors import InputError

_HYDRA_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")  # which Hydra makes before anything else runs
_URL = re.compile(r"[a-zA-Z][\w+.-]+:/")  # pathlib leaves one slash of two


def refuse_url(path: str | os.PathLike[str], name: str = "") -> None:
    """Check that a place to write to is no URL, of which a folder such as `s3:` would be made.

    Args:
        path: The place.
        name: What sets it, with `=` or a blank, for the message.

    Raises:
        InputError: It is a URL.
    """
    if match := _URL.match(os.fspath(path)):
        raise InputError(
            f"{name}{match[0]}/…: is a URL; name a place in the file system, or mount the bucket as a folder"
        )


def refuse_hydra_urls(words: Sequence[str]) -> None:
    """Check the run folder of a command line before Hydra makes it.

    Args:
        words: The command line.

    Raises:
        InputError: It is a URL.
    """
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in _HYDRA_FOLDERS:
            refuse_url(value.strip("'\""), f"{key}=")
