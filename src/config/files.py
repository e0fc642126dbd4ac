"""Atomic writes: a file or folder appears under its name complete, or not at all, and replaces nothing of other programs."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from config.errors import InputError, ResourceError
from config.system_errors import to_expected_error

PROJECT = Path(__file__).resolve().parents[2]  # the folder of train.py, src and conf
_START = time.time()  # of this process; train.py imports this module before Hydra creates a folder
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # names of `_temporary_path`


def check_writable(path: str | os.PathLike[str], description: str, append: bool = False) -> None:
    """Check that a file can be written, before the work whose result it gets. The file system itself is asked.

    Args:
        path: A file, or a folder that gets files. It and the folders above it may be absent.
        description: What isotrain writes there, such as "a report".
        append: Whether an existing file is continued; otherwise it is replaced, for which its folder must be writable.

    Raises:
        InputError: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir() and (append or not target.is_file()):
        location = target
    else:
        location = next(folder for folder in (target, *target.parents) if folder.is_dir())
    try:
        if location.is_dir():
            status = location.stat()
            tempfile.TemporaryFile(dir=location).close()
            with contextlib.suppress(OSError):  # `remove_new_folder` reads the time of the folder
                os.utime(location, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif location.is_file():
            location.open("ab").close()
        elif not os.access(location, os.W_OK):  # opening a pipe would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if isinstance(to_expected_error(error), ResourceError):
            raise
        detail = "" if location == target else f": {location}"
        raise InputError(
            f"{path} cannot be written{detail}: {str(error.strerror or error).lower()}; name another place for "
            f"{description}, or change the permissions"
        ) from None


def check_replaceable(
    path: str | os.PathLike[str], is_own: Callable[[Path], bool], description: str, append: bool = False
) -> None:
    """Check that a file can be written and replaces nothing that another program or a person wrote.

    Args:
        path: The file. Pipes and devices pass: writing to them replaces nothing.
        is_own: Whether an existing file was written by isotrain; it may raise OSError or ValueError.
        description: What isotrain writes there, such as "a report".
        append: Whether an existing file is continued; otherwise it is replaced.

    Raises:
        InputError: It is a folder, below a file, a file that is not empty and not isotrain's, or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for {description}")
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is a file; name a file in a folder for {description}")
    check_writable(path, description, append)
    if not path.is_file() or path.stat().st_size == 0:
        return
    with contextlib.suppress(OSError, ValueError):
        if is_own(path):
            return
    raise InputError(
        f"{path} exists and is not {description} of isotrain: it was not replaced; choose another name, or move it away"
    )


def check_output_folder(
    folder: str | os.PathLike[str], names: Iterable[str], is_own: Callable[[Path], bool], description: str
) -> None:
    """Check that files can be written into a folder and replace nothing that another program or a person wrote.

    Args:
        folder: The folder.
        names: The files to write.
        is_own: Whether the folder holds an earlier output of isotrain; it may raise OSError or ValueError.
        description: What isotrain writes there, such as "a report".

    Raises:
        InputError: It is a file, one of the files exists in a folder that is not isotrain's, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for {description}")
    check_writable(folder, description)
    existing = sorted(name for name in names if os.path.lexists(folder / name))
    if not existing:
        return
    with contextlib.suppress(OSError, ValueError, InputError):
        if is_own(folder):
            return
    raise InputError(
        f"{folder} contains {', '.join(existing)} and is not {description} of isotrain: nothing was replaced; choose "
        "another folder, or empty it"
    )


def has_line(path: Path, start: str, lines: int = 10) -> bool:
    """Return whether one of the first lines of a text file begins with a text."""
    with path.open(encoding="utf-8") as file:
        return any(line.startswith(start) for line, _ in zip(file, range(lines), strict=False))


def remove_temporary_files(folder: Path, name: str = "*") -> None:
    """Remove what a killed process left half-written in a folder. No other process may be writing there.

    Args:
        folder: The folder.
        name: Name of the files or folders that were being written; `*` is a wildcard.
    """
    for path in [path for path in folder.glob(f".{name}.*.tmp") if _TEMPORARY.fullmatch(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_new_folder(folder: Path) -> None:
    """Remove a folder if it is empty and did not exist before this process."""
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime >= _START:
            folder.rmdir()


def _temporary_path(path: Path) -> Path:
    """A new name in the same folder, so that a rename to `path` is atomic. The folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file atomically: to a temporary name, synced, then renamed.

    A symbolic link stays one: its target is replaced. A pipe or a device is written to, not replaced.

    Yields:
        The open binary file. If the block raises, the previous file stays.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = _temporary_path(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write an indented JSON file atomically.

    Raises:
        ValueError: A number is not finite.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing, damaged, or has another value."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], removable: Collection[str] = ()) -> Iterator[Path]:
    """Write a folder atomically: under a temporary name, synced, then renamed.

    Args:
        path: The folder. An existing one is replaced; files that only the existing one has are kept.
        removable: Relative names of such files that are not kept.

    Yields:
        The empty folder to fill. If the block raises, the previous folder stays.
    """
    path = Path(os.path.realpath(path))
    temporary = _temporary_path(path)
    old = temporary.with_suffix(".old.tmp")
    try:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            _copy_other_files(path, temporary, removable)
        sync_folder(temporary)
        if path.is_dir() and any(path.iterdir()):
            path.rename(old)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        if old.exists() and not path.exists():  # the second rename failed
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _copy_other_files(source: Path, target: Path, removable: Collection[str]) -> None:
    """Copy files and links that the target lacks."""
    for parent, folders, names in os.walk(source):
        relative = Path(parent).relative_to(source)
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in [*names, *links]:
            if str(relative / name) not in removable and not os.path.lexists(target / relative / name):
                (target / relative).mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(parent) / name, target / relative / name, follow_symlinks=False)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file atomically."""
    with Path(source).open("rb") as original, atomic_write(target) as file:
        shutil.copyfileobj(original, file)


def sync_folder(folder: Path) -> None:
    """Flush a folder and all files below it to the disk, so that a power cut leaves no name without content."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            if path.is_symlink():  # its target is not of this folder
                continue
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(parent))


def sync_directory(folder: Path) -> None:
    """Flush the entries of one directory to the disk, e.g. after a rename."""
    # Some file systems cannot sync a directory. The rename is atomic nevertheless.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
