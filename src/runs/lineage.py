"""Where a model comes from: data, code, environment and parent, each with its hash."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import folder as folders
from runs.fields import as_mapping


def collect_lineage(folder: Path, record: Mapping[str, Any], model: str | None = None) -> list[tuple[str, str, str]]:
    """What a run was made from and what it made: kind, name, hash; what is not known is left out.

    Args:
        folder: the run's.
        record: its run.json.
        model: digest of its model folder, where it is known already: a large one takes seconds.
    """
    found: list[tuple[str, str, str]] = []
    prints = as_mapping(as_mapping(record.get("data")).get("fingerprints"))
    found += [("data", str(split), str(mark)) for split, mark in prints.items()]
    git = as_mapping(record.get("git"))
    if git.get("revision"):
        found.append(("code", "with uncommitted changes" if git.get("dirty") else "as committed", str(git["revision"])))
    own = as_mapping(record.get("own_code"))
    if own.get("digest"):
        found.append(("task's code", ", ".join(map(str, own.get("folders") or [])), str(own["digest"])))
    if record.get("lock_hash"):
        found.append(("packages", "requirements.lock", str(record["lock_hash"])))
    if record.get("config_hash"):
        found.append(("configuration", "as resolved", str(record["config_hash"])))
    parent = record.get("parent")
    if isinstance(parent, dict):
        found.append(("parent", str(parent.get("init_from")), str(parent.get("config_hash") or "")))
    if model is None and (folder / folders.MODEL).is_dir():
        model = folder_digest(folder / folders.MODEL)
    if model is not None:
        found.append(("model", folders.MODEL, model))
    return found


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of a folder's files: of their names and contents, by name."""
    whole = hashlib.sha256()
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        whole.update(path.name.encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
