"""Files and folders of images, local ones and those of fsspec."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from config.errors import InputError


def read_bytes(location: str) -> bytes:
    """The content of a local file or a URL.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if "://" not in location:
            with open(location, "rb") as stream:  # noqa: PTH123 -- once per image
                return stream.read()
        system, file = file_system(location)
        return bytes(system.cat_file(file))
    except OSError as error:
        raise InputError(f"cannot read {location}: {error.strerror or error}") from error


def walk(folder: str) -> Iterator[str]:
    """Files below a folder, sorted, relative to it; hidden ones left out."""
    folders, files = entries(folder)
    yield from files
    for inner in folders:
        for file in walk(f"{folder}/{inner}"):
            yield f"{inner}/{file}"


def entries(place: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted; hidden ones left out."""
    folders: list[str] = []
    files: list[str] = []
    try:
        if "://" not in place:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else files).append(entry.name)
        else:
            system, folder = file_system(place)
            for about in system.ls(folder, detail=True):
                name = PurePosixPath(about["name"]).name
                if not name.startswith("."):
                    (folders if about["type"] == "directory" else files).append(name)
    except OSError as error:
        raise InputError(f"cannot read the folder {place}: {error.strerror or error}") from error
    return sorted(folders), sorted(files)


def file_system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, folder = fsspec.core.url_to_fs(path if "://" in path else str(Path(path).absolute()))
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open {path}: {error}") from error
    return system, folder
