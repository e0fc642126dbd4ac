"""Folders of preprocessed data, keyed by what they were made from.

An entry is built once, in a temporary folder under a file lock, and then renamed into place: who reads sees
all of it or nothing, two processes that start at once do the work once, and what a killed builder leaves is
never read.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from config import files
from config.errors import InputError, ResourceError

logger = logging.getLogger(__name__)

MOVE_IT = "set data.cache_dir=<folder> or the environment variable ISOTRAIN_CACHE to keep it elsewhere"


def root(configured: str | None = None) -> Path:
    """The folder of all entries: what is configured, else $ISOTRAIN_CACHE, else ~/.cache/isotrain."""
    chosen = configured or os.environ.get("ISOTRAIN_CACHE") or "~/.cache/isotrain"
    return Path(chosen).expanduser().absolute()


def entry(root: Path, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of the entry with this key, built if it is not there.

    Args:
        root: the folder of all entries, see `root()`.
        kind: a subfolder for entries of one sort, such as "windows".
        key: everything the content depends on, as JSON values; also written to `key.json` in the entry.
        build: writes the content into the (empty) folder it is given.

    Returns:
        `root/kind/<first 24 hex digits of the key's SHA-256>`. Nothing in it changes any more.

    Raises:
        ResourceError: the disk is full. What was written is removed.
        InputError: the folder cannot be made or written.
    """
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    name = hashlib.sha256(canonical.encode()).hexdigest()[:24]
    folder = root / kind
    final = folder / name
    if final.is_dir():
        return final
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the data cache {folder} cannot be made ({error.strerror}); {MOVE_IT}") from error
    temporary = folder / f"{name}.tmp"
    message = f"waiting for another process to build {final}"
    with _disk_errors(folder), _locked(folder / f"{name}.lock", message):
        if final.is_dir():
            return final
        _remove_leftovers(folder, except_for=name)
        _remove(temporary)
        temporary.mkdir()
        try:
            build(temporary)
            text = json.dumps(key, indent=1, sort_keys=True) + "\n"
            (temporary / "key.json").write_text(text, encoding="utf-8")
            files.sync_folder(temporary)
            temporary.replace(final)
        finally:
            _remove(temporary)
        files.sync_directory(folder)
    return final


@contextlib.contextmanager
def _locked(path: Path, message: str) -> Iterator[None]:
    # An operating-system lock: it ends with the process that holds it, even one that was killed.
    lock: BaseFileLock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info(message)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(folder: Path, except_for: str) -> None:
    """Removes temporary folders whose builder is gone: those whose lock is free."""
    for leftover in folder.glob("*.tmp"):
        if leftover.stem != except_for:
            with contextlib.suppress(Timeout), FileLock(leftover.with_suffix(".lock")).acquire(timeout=0):
                _remove(leftover)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a short write without an errno: "4096 requested and 512 written".
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error)):
            raise ResourceError(f"no space left for the data cache in {folder}; free some, or {MOVE_IT}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and str(error.filename or "").startswith(
            str(folder)
        ):
            raise InputError(f"the data cache {folder} cannot be written ({error.strerror}); {MOVE_IT}") from error
        raise
