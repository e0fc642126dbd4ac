"""The files that results depend on: this code, the configuration folders, and packages of tasks that live elsewhere.

Caches and names of results are made from their digest, so that what another code or configuration made is not taken for theirs.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config import tasks

PROJECT = tasks.CONF.parent


def code_digest() -> str:
    """SHA-256 of the files' names and contents, as hexadecimal digits."""
    whole = hashlib.sha256()
    for name, path in sorted(set(_files())):
        whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def custom_code() -> dict[str, Any] | None:
    """What a user's own task is made of, for run.json: its folders, and the SHA-256 (hex) of their files; None without one."""
    roots = [*_packages(), *tasks.conf_folders()[1:]]
    if not roots:
        return None
    whole = hashlib.sha256()
    for root in roots:
        files = [path for path in root.rglob("*") if path.suffix in (".py", ".yaml")] if root.is_dir() else [root]
        for path in sorted(files):
            name = str(path.relative_to(root.parent)).encode()
            whole.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {"folders": [str(root) for root in roots], "digest": whole.hexdigest()}


def _files() -> Iterator[tuple[str, Path]]:
    """Each file, with its name in its own folder: a copy of this code elsewhere has the same digest."""
    yield "train.py", PROJECT / "train.py"
    for root in (PROJECT / "src", *_packages()):
        for path in root.rglob("*.py") if root.is_dir() else (root,):
            yield str(path.relative_to(root.parent)), path
    for root in tasks.conf_folders():
        for path in root.rglob("*.yaml"):
            yield str(path.relative_to(root.parent)), path


def _packages() -> Iterator[Path]:
    """The top-level packages, or single files, of the tasks' modules that are not in this project."""
    dotted = {str(tasks.load_settings(name).get("module", "")) for name in tasks.task_names()}
    for name in {module.partition(".")[0] for module in dotted}:
        spec = importlib.util.find_spec(name) if name else None
        for place in [*(spec.submodule_search_locations or []), spec.origin] if spec else []:
            path = Path(place) if place else None
            # The origin of a package is its __init__.py, which stands in its folder.
            if path and path.exists() and path.name != "__init__.py" and not path.is_relative_to(PROJECT / "src"):
                yield path
