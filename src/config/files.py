"""Atomic writes: a file or folder appears under its name complete, or not at all."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).resolve().parents[2]  # the folder of train.py, src and conf


def _temporary_path(path: Path) -> Path:
    """A new name in the same folder, so that a rename to `path` is atomic. The folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file atomically: to a temporary name, synced, then renamed.

    Yields:
        The open binary file. If the block raises, the previous file stays.
    """
    path = Path(path)
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
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder atomically: under a temporary name, synced, then renamed over an existing one.

    Yields:
        The empty folder to fill. If the block raises, the previous folder stays.
    """
    path = Path(path)
    temporary = _temporary_path(path)
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file atomically."""
    with Path(source).open("rb") as original, atomic_write(target) as file:
        shutil.copyfileobj(original, file)


def sync_folder(folder: Path) -> None:
    """Flush a folder and all files below it to the disk, so that a power cut leaves no name without content."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
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
