"""Temporary files and folders beside the file or folder that they become.

Their writer holds a lock on them. The next writer of the same name removes those whose lock is free: their writer was
killed. A lock ends with its process, on whatever machine, as long as the storage has locks.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from config.syncing import make_folder

OLD = "old"  # in a temporary folder: the folder that is being replaced
_NAME = re.compile(r"\.(?P<target>.+)\.\d+-[0-9a-f]{8}\.tmp")  # of `_temporary_path`
_LOCK = "lock"  # in a temporary folder
_SILENCE = 86_400.0  # seconds without a change after which a writer counts as gone, on storage without locks


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a new file beside a target, to be renamed to it; whatever is left of it is removed at the end.

    Args:
        target: The file that it becomes. Its folder is created.

    Yields:
        Its path and the open binary file.
    """
    _prepare(target)
    path = _temporary_path(target)
    file = path.open("xb")
    while not _is_locked_by(file, path):
        file.close()
        path = _temporary_path(target)
        file = path.open("xb")
    try:
        with file:
            yield path, file
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Create a folder beside a target, for what is to be renamed to it; it is removed at the end.

    Args:
        target: The file or folder that something in it becomes. The folder of the target is created.

    Yields:
        The folder. It has a file `lock`. A subfolder `OLD` becomes the target again if the process is killed while there
        is none.
    """
    _prepare(target)
    while True:
        path = _temporary_path(target)
        path.mkdir()
        with contextlib.suppress(FileNotFoundError):  # removed before it was locked
            lock = (path / _LOCK).open("xb")
            if _is_locked_by(lock, path / _LOCK):
                break
            lock.close()
    with lock:
        try:
            yield path
        finally:
            _remove_folder(path, target)


def remove_temporary_files(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders of killed writers.

    Args:
        folder: The folder in which they are.
        name: Name of the target that was being written; None for any.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match is None or (name is not None and match["target"] != name):
            continue
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        if not is_folder and not entry.is_file(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError), _claim(path) as claimed:
            if claimed and is_folder:
                _remove_folder(path, folder / match["target"])
            elif claimed:
                path.unlink(missing_ok=True)


def _prepare(target: Path) -> None:
    make_folder(target.parent)
    remove_temporary_files(target.parent, target.name)


def _temporary_path(target: Path) -> Path:
    """Return a new name in the folder of a target, so that a rename to the target is atomic."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _is_locked_by(file: IO[bytes], path: Path) -> bool:
    """Lock a new file; return False if another process has removed it before."""
    with contextlib.suppress(OSError):  # storage without locks
        fcntl.flock(file, fcntl.LOCK_EX)
    return path.exists()


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Lock a temporary file or folder, and yield whether its writer is gone.

    Raises:
        OSError: It cannot be opened, or was removed.
    """
    lock = path / _LOCK if (path / _LOCK).is_file() else path
    # NFS locks only files that are open for writing.
    descriptor = os.open(lock, os.O_RDONLY if lock.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed = True
        except BlockingIOError:
            claimed = False
        except OSError:
            claimed = time.time() - path.stat().st_mtime > _SILENCE
        yield claimed
    finally:
        os.close(descriptor)


def _remove_folder(path: Path, target: Path) -> None:
    """Remove a temporary folder; the folder that it was to replace returns if nothing has its place."""
    if (path / OLD).is_dir() and not os.path.lexists(target):
        (path / OLD).rename(target)
    shutil.rmtree(path, ignore_errors=True)
