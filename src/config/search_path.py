"""`hydra.searchpath=[FOLDER]` and `--config-dir FOLDER`: ISOTRAIN_CONF for one command.

Hydra composes with such a folder, but tasks, their contracts, messages and child processes look for it in ISOTRAIN_CONF.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from config.errors import InputError

CONF_VARIABLE = "ISOTRAIN_CONF"  # names the folder of tasks, models and data of one's own
_OVERRIDE = "hydra.searchpath="
_OPTIONS = ("--config-dir", "-cd")


def is_override(word: str) -> bool:
    """Whether a word of a command line is the override."""
    return word.lstrip("+").startswith(_OVERRIDE)


def named_folder(words: Sequence[str]) -> Path | None:
    """Return the folder of configuration that a command line names; None if it names none.

    Raises:
        InputError: It names several, one of a Python package, or one that does not exist.
    """
    names = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option in _OPTIONS:
            names.append(value if equals else following)
        elif is_override(word):
            names += [part.strip().strip("'\"") for part in word.partition("=")[2].strip().strip("[]").split(",")]
    names = list(dict.fromkeys(filter(None, names)))
    if not names:
        return None
    if len(names) > 1:
        raise InputError(f"{_OVERRIDE}[{','.join(names)}]: name one folder; isotrain's own is always searched")
    if names[0].startswith("pkg://"):
        raise InputError(f"{_OVERRIDE}[{names[0]}]: name the folder of the package, as file:///home/me/mine/conf")
    folder = Path(names[0].removeprefix("file://"))
    if not folder.is_dir():
        raise InputError(
            f"{_OVERRIDE}[{names[0]}]: no such folder on this machine; name one that contains task/, model/ or data/"
        )
    return folder


def adopt(words: Sequence[str]) -> None:
    """Let this process and its children search the folder that a command line names, if it names one.

    Raises:
        InputError: As `named_folder`.
    """
    if folder := named_folder(words):
        os.environ[CONF_VARIABLE] = str(folder.absolute())


@contextlib.contextmanager
def adopted(words: Sequence[str]) -> Iterator[None]:
    """Search the folder that a command line names, within the block."""
    before = os.environ.get(CONF_VARIABLE)
    adopt(words)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CONF_VARIABLE, None)
        else:
            os.environ[CONF_VARIABLE] = before
