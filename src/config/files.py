"""Atomic writes: a file or folder appears under its name complete, or not at all, and replaces nothing of other programs."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from config import parsing
from config.errors import InputError, ResourceError
from config.masking import mask
from config.output_paths import refuse_url
from config.syncing import make_folder
from config.syncing import sync_directory as sync_directory
from config.syncing import sync_folder as sync_folder
from config.system_errors import to_expected_error
from config.temporary_files import OLD, temporary_file, temporary_folder

PROJECT = Path(__file__).resolve().parents[2]  # the folder of train.py, src and conf
READER_SECONDS = 10.0  # in which a pipe that is written to gets a reader
_START = time.time()  # of this process; train.py imports this module before Hydra creates a folder


def check_writable(path: str | os.PathLike[str], description: str, append: bool = False) -> None:
    """Check that a file can be written, before the work whose result it gets. The file system itself is asked.

    Args:
        path: A file, or a folder that gets files. It and the folders above it may be absent.
        description: What isotrain writes there, such as "a report".
        append: Whether an existing file is continued; otherwise it is replaced, for which its folder must be writable.

    Raises:
        InputError: It cannot be written, or is a URL.
    """
    refuse_url(path)
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
    parsing.check_regular(path)
    with path.open(encoding="utf-8") as file:
        return any(line.startswith(start) for line, _ in zip(file, range(lines), strict=False))


def remove_new_folder(folder: Path) -> None:
    """Remove a folder if it is empty and did not exist before this process."""
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime >= _START:
            folder.rmdir()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file atomically: to a temporary name, synced, then renamed.

    A symbolic link stays one: its target is replaced. A pipe or a device is written to, not replaced.

    Yields:
        The open binary file. If the block raises, the previous file stays.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with os.fdopen(_open_special(path), "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    with temporary_file(path) as (temporary, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)


def _open_special(path: Path) -> int:
    """Open a pipe or a device for writing; a pipe that nobody reads fails after a while, where `open` would wait for ever."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "is a pipe that nobody reads", str(path)) from None
            time.sleep(0.05)
            continue
        os.set_blocking(descriptor, True)
        return descriptor


def append_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Append lines to a text file, with secrets masked, and sync it: they are on the disk when this returns.

    An incomplete last line, which a killed process or a power cut left, is removed before. A pipe or a device is written to.

    Args:
        path: The file, which is created with its folder if it does not exist.
        lines: Lines without their ends.
    """
    path = Path(path)
    data = "".join(f"{mask(line)}\n" for line in lines).encode()
    if path.exists() and not path.is_file():
        with path.open("ab") as file:
            file.write(data)
        return
    make_folder(path.parent)
    new = not path.exists()
    with path.open("a+b") as file:
        _remove_incomplete_line(file)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_directory(path.parent)


def _remove_incomplete_line(file: IO[bytes]) -> None:
    """Truncate a file to the end of its last complete line."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        complete = file.read(end - start).rfind(b"\n") + 1
        end = start
        if complete:
            end += complete
            break
    if end < size:
        file.truncate(end)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically, in UTF-8, with secrets masked (`config.masking`)."""
    with atomic_write(path) as file:
        file.write(mask(text).encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write an indented JSON file atomically, with secrets masked.

    Raises:
        ValueError: A number is not finite.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing, damaged, or has another value."""
    try:
        value = parsing.read_json(path)
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
    with temporary_folder(path) as temporary:
        new = temporary / "new"
        new.mkdir()
        yield new
        if path.is_dir():
            _copy_other_files(path, new, removable)
        sync_folder(new)
        if path.is_dir() and any(path.iterdir()):
            path.rename(temporary / OLD)  # where it is found if the process is killed now
        new.replace(path)
        sync_directory(path.parent)


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
