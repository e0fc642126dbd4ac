"""Flushing files and folders to the disk, so that a power cut takes nothing back that a command has reported."""

import contextlib
import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, and flush their names to the disk. Existing ones are left as they are."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_directory(path.parent)


def sync_parents(path: Path) -> None:
    """Flush the names of a file or folder and of all folders above it to the disk."""
    for folder in path.absolute().parents:
        sync_directory(folder)


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
