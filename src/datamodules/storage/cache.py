"""Cache of folders of preprocessed data, keyed by everything their content depends on.

An entry is built once, in a temporary folder under a file lock, and then renamed: readers see a complete entry or none,
two processes that start at the same time do the work once, and an incomplete entry of a killed process is never read.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from config import files
from config.errors import InputError, ResourceError

logger = logging.getLogger(__name__)

_NAME = re.compile("[0-9a-f]{24}")  # of an entry
MOVE_HINT = "set data.cache_dir=<folder> or the environment variable ISOTRAIN_CACHE to move it"


def root(configured: str | None = None) -> Path:
    """Return the folder of all entries: the configured one, else $ISOTRAIN_CACHE, else ~/.cache/isotrain."""
    folder = configured or os.environ.get("ISOTRAIN_CACHE") or "~/.cache/isotrain"
    return Path(folder).expanduser().absolute()


def entry(root: Path, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of the entry with a key, built if it does not exist.

    Args:
        root: the folder of all entries, see `root()`.
        kind: subfolder of entries of one kind, such as "windows".
        key: everything the content depends on, as JSON values; also written to `key.json` in the entry.
        build: writes the content into an empty folder.

    Returns:
        `root/kind/<first 24 hex digits of the key's SHA-256>`, whose content never changes.

    Raises:
        ResourceError: the disk is full. The incomplete entry is removed.
        InputError: the folder cannot be created or written.
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
        raise InputError(f"the data cache {folder} cannot be created ({error.strerror}); {MOVE_HINT}") from error
    temporary = folder / f"{name}.tmp"
    message = f"waiting for another process to build {final}"
    with _disk_errors(folder), _locked(folder / f"{name}.lock", message):
        if final.is_dir():
            return final
        _remove_abandoned(folder, keep=name)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            build(temporary)
            text = json.dumps(key, indent=1, sort_keys=True) + "\n"
            (temporary / "key.json").write_text(text, encoding="utf-8")
            files.sync_folder(temporary)
            temporary.replace(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        files.sync_directory(folder)
    return final


@contextlib.contextmanager
def _locked(path: Path, message: str) -> Iterator[None]:
    # A lock of the operating system: it ends with its process, even if that is killed.
    lock: BaseFileLock = FileLock(path)
    try:
        acquired = lock.acquire(timeout=0)
    except Timeout:
        logger.info(message)
        acquired = lock.acquire()
    with acquired:
        yield


def _remove_abandoned(folder: Path, keep: str) -> None:
    """Remove the temporary folders of processes that ended: those whose lock is free."""
    for temporary in folder.glob("*.tmp"):
        if temporary.stem != keep and _NAME.fullmatch(temporary.stem):
            with contextlib.suppress(Timeout), FileLock(temporary.with_suffix(".lock")).acquire(timeout=0):
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a short write without an errno: "4096 requested and 512 written".
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error)):
            raise ResourceError(f"no space left for the data cache in {folder}; free some, or {MOVE_HINT}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and str(error.filename or "").startswith(
            str(folder)
        ):
            raise InputError(f"the data cache {folder} cannot be written ({error.strerror}); {MOVE_HINT}") from error
        raise
