"""Files that appear under their names whole, or not at all."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that appears under its name whole, or not at all: written beside it, synced, and renamed.

    Yields:
        The open binary file. An exception inside leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file atomically, indented for people.

    Raises:
        ValueError: a number that is not finite.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears under its name whole: made beside it, synced, and renamed over what was there.

    Yields:
        The empty folder to fill. An exception inside leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        beside.mkdir()
        yield beside
        sync_folder(beside)
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copies a file atomically."""
    with Path(source).open("rb") as original, atomic_write(target) as file:
        shutil.copyfileobj(original, file)


def sync_folder(folder: Path) -> None:
    """Writes a folder and all files in it to the disk, so that no name points at content that a power cut took away."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(parent))


def sync_directory(folder: Path) -> None:
    """Writes a folder's own entries to the disk: what was renamed into it."""
    # Some file systems do not let a folder be synced. The rename is atomic all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
