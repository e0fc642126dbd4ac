"""Commands of isotrain as child processes, whatever files the working directory has."""

import os
import sys

from config.files import PROJECT

PREFIX = "isotrain: "  # of a command's messages on stderr


def command_line(*words: str) -> list[str]:
    """Return the command line of `python WORDS`, for `environment()`: train.py is ours, and so are the packages after -m.

    -P keeps Python from importing files of the working directory, such as runs.py, in place of a package.
    """
    script, *rest = words
    return [sys.executable, "-P", str(PROJECT / script) if script == "train.py" else script, *rest]


def environment() -> dict[str, str]:
    """Return the variables of a child: isotrain's packages come first, then PYTHONPATH, then the working directory."""
    path = [str(PROJECT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(os.getcwd())]  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, path)))}


def last_message(stderr: str) -> str:
    """Return the last message of a command, which may have several lines; "" if there is none."""
    lines = stderr.splitlines()
    start = next((i for i in reversed(range(len(lines))) if lines[i].startswith(PREFIX)), len(lines))
    return "\n".join(lines[start:]).removeprefix(PREFIX).strip()
