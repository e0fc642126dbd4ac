"""Digests of the code and configuration that results depend on: isotrain's, and those of the user's own tasks and models.

Caches and names of results contain the digest, so that results of other code are never reused.
"""

import hashlib
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config import tasks
from config.files import PROJECT

_TARGET = re.compile(r"\b_target_:\s*['\"]?([A-Za-z_]\w*)\.")


def code_digest() -> str:
    """Return the SHA-256 of the names and contents of all files, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, path in sorted(set(_files())):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def custom_code() -> dict[str, Any] | None:
    """Return folders and SHA-256 (hexadecimal digits) of the code of the user's own tasks and models; None if there is none."""
    roots = [*_packages(), *tasks.conf_folders()[1:]]
    if not roots:
        return None
    digest = hashlib.sha256()
    for root in roots:
        files = [path for path in root.rglob("*") if path.suffix in (".py", ".yaml")] if root.is_dir() else [root]
        for path in sorted(files):
            name = str(path.relative_to(root.parent)).encode()
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {"folders": [str(root) for root in roots], "digest": digest.hexdigest()}


def _files() -> Iterator[tuple[str, Path]]:
    """Files with their names relative to their folder, so that a copy of the code elsewhere has the same digest."""
    yield "train.py", PROJECT / "train.py"
    for root in (PROJECT / "src", *_packages()):
        for path in root.rglob("*.py") if root.is_dir() else (root,):
            yield str(path.relative_to(root.parent)), path
    for root in (*tasks.conf_folders(), *tasks.contract_folders()):
        for path in root.rglob("*.yaml"):
            yield str(path.relative_to(root.parent)), path


def _packages() -> Iterator[Path]:
    """Top-level packages, or single files, of task modules outside this project, and of the user's models and data."""
    modules = {str(tasks.load_settings(name).get("module", "")) for name in tasks.task_names()}
    names = {module.partition(".")[0] for module in modules}
    targets = {name for folder in tasks.conf_folders()[1:] for name in _target_packages(folder)} - names
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    for name in names | targets:
        spec = importlib.util.find_spec(name) if name else None
        for location in [*(spec.submodule_search_locations or []), spec.origin] if spec else []:
            path = Path(location) if location else None
            # The origin of a package is its __init__.py, which the package's folder contains.
            if name in targets and path and any(path.is_relative_to(root) for root in installed):
                continue  # a library such as torch, which run.json has the version of
            if path and path.exists() and path.name != "__init__.py" and not path.is_relative_to(PROJECT / "src"):
                yield path


def _target_packages(folder: Path) -> set[str]:
    """Top-level packages of the classes that the YAML files of a configuration folder name."""
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in folder.rglob("*.yaml"))
    return {name for text in texts for name in _TARGET.findall(text)}
