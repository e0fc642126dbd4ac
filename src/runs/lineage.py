"""Lineage of a model: data, code, packages, configuration and parent, with their hashes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import folder as folders
from runs.digests import file_digest
from runs.fields import as_mapping


def collect_lineage(
    folder: Path, record: Mapping[str, Any], model_digest: str | None = None
) -> list[tuple[str, str, str]]:
    """Return what a run was made from, and its model, as (kind, name, hash). Unknown parts are left out.

    Args:
        folder: The run folder.
        record: Its record.
        model_digest: Digest of its model folder, if it is known already; a large one takes seconds.
    """
    git, custom, parent = as_mapping(record.get("git")), as_mapping(record.get("own_code")), record.get("parent")
    fingerprints = as_mapping(as_mapping(record.get("data")).get("fingerprints"))
    rows = [("data", str(split), str(fingerprint)) for split, fingerprint in fingerprints.items()]
    if git.get("revision"):
        rows.append(("code", "with uncommitted changes" if git.get("dirty") else "as committed", str(git["revision"])))
    if custom.get("digest"):
        rows.append(("task's code", ", ".join(map(str, custom.get("folders") or [])), str(custom["digest"])))
    if record.get("lock_hash"):
        rows.append(("packages", "requirements.lock", str(record["lock_hash"])))
    if record.get("config_hash"):
        rows.append(("configuration", "as resolved", str(record["config_hash"])))
    if isinstance(parent, dict):
        rows.append(
            ("parent", str(parent.get("init_from")), str(parent.get("model") or parent.get("config_hash") or ""))
        )
    if model_digest is None and (folder / folders.MODEL).is_dir():
        model_digest = folder_digest(folder / folders.MODEL)
    if model_digest is not None:
        rows.append(("model", folders.MODEL, model_digest))
    return rows


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 (hexadecimal digits) of the names and contents of the files of a folder, sorted by name."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        digest.update(bytes.fromhex(file_digest(path)))
    return digest.hexdigest()
