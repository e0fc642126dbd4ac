"""SHA-256 digests of the files of a model: recorded when they are written, checked when they are read.

They tell damage, by a disk or a copy, and files of another model; not a folder that somebody changed together with its
digests.
"""

import functools
import hashlib
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from config import files
from config.errors import InputError
from runs import folder as folders

SETTINGS = "isotrain.json"  # in a model folder: its task, its settings and the digests of its files
KEY = "digests"  # in run.json and isotrain.json: SHA-256 by relative name


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. One process reads an unchanged file once."""
    status = path.stat()
    return _read_digest(os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=64)
def _read_digest(path: str, size: int, time: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the digests of all files of a folder, by relative name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}


def check_model(folder: Path, names: Collection[str] | None = None) -> None:
    """Check a model folder against the digests in its isotrain.json; folders without digests pass.

    Args:
        folder: the model folder.
        names: relative names of the files to check; None for all.

    Raises:
        InputError: a file is missing, or has another content.
    """
    recorded = files.read_json(folder / SETTINGS).get(KEY)
    check_files(folder, recorded, folder / SETTINGS, names)


def check_run(folder: Path, record: dict[str, Any], name: str) -> None:
    """Check a file of a finished run against the digest in its run.json, if that has one.

    Args:
        folder: the run folder.
        record: its record.
        name: relative name of the file.

    Raises:
        InputError: the file is missing, or has another content.
    """
    if record.get("status") == "finished":  # one that trains on replaces its files first
        check_files(folder, record.get(KEY), folder / folders.RECORD, (name,))


def check_files(folder: Path, recorded: Any, source: Path, names: Collection[str] | None = None) -> None:
    """Check files against recorded digests.

    Args:
        folder: folder of the files.
        recorded: digests by relative name; anything else has none.
        source: file of the digests, for messages.
        names: relative names of the files to check; None for all.

    Raises:
        InputError: a file is missing, or has another content.
    """
    if not isinstance(recorded, dict):
        return
    for name, digest in recorded.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{source}: {KEY} names {name}, which is not in its folder; remove it")
        if names is not None and name not in names:
            continue
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file} is missing, which the run wrote: copy the folder again, with all of its files")
        if file_digest(file) != digest:
            raise InputError(
                f"{file} is damaged, or of another model: its SHA-256 is not the one in {source.name}. Copy the folder "
                f'again, or repeat the run (python -m runs rerun); if you changed the file yourself, remove it from "{KEY}" '
                f"in {source}"
            )
