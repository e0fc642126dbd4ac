"""Access to local files and to those of fsspec's file systems."""

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

from config.errors import InputError


def file_system(path: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Raises:
        InputError: an unknown protocol.
    """
    import fsspec

    try:
        system, inner_path = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open {path}: {error}") from error
    return system, inner_path


def full_path(system: Any, path: str) -> str:
    """Return the path or URL of a path within an fsspec file system: local ones unchanged, others with their protocol."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return str(path) if "file" in protocols else str(system.unstrip_protocol(path))


def read_bytes(location: str) -> bytes:
    """Read a local file or a URL.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if "://" not in location:
            with open(location, "rb") as stream:  # noqa: PTH123 -- once per image
                return stream.read()
        system, path = file_system(location)
        return bytes(system.cat_file(path))
    except OSError as error:
        raise InputError(f"cannot read {location}: {error.strerror or error}") from error


@contextmanager
def open_file(file: str, compression: str | None = "infer") -> Iterator[IO[bytes]]:
    """Open a file as a stream of bytes.

    Args:
        file: local path or fsspec URL.
        compression: "infer" decompresses `.gz`; None: no decompression.

    Raises:
        InputError: the file cannot be opened, or not read to its end.
    """
    import fsspec

    try:
        with fsspec.open(file, "rb", compression=compression) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, ImportError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def open_parquet(file: str) -> Iterator[Any]:
    """Open a local path or fsspec URL as a `pyarrow.parquet.ParquetFile`.

    Raises:
        InputError: the file cannot be read as Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    with ExitStack() as stack:
        source = stack.enter_context(open_file(file, compression=None)) if "://" in file else file
        try:
            yield stack.enter_context(pyarrow.parquet.ParquetFile(source))
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{file}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def walk_files(folder: str) -> Iterator[str]:
    """Yield the files below a folder, sorted, relative to it; without hidden ones."""
    folders, files = list_folder(folder)
    yield from files
    for inner in folders:
        for file in walk_files(f"{folder}/{inner}"):
            yield f"{inner}/{file}"


def list_folder(location: str) -> tuple[list[str], list[str]]:
    """List the names of the folders and of the files in a folder, sorted; without hidden ones.

    Raises:
        InputError: the folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        if "://" not in location:
            with os.scandir(location) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else files).append(entry.name)
        else:
            system, folder = file_system(location)
            for info in system.ls(folder, detail=True):
                name = PurePosixPath(info["name"]).name
                if not name.startswith("."):
                    (folders if info["type"] == "directory" else files).append(name)
    except OSError as error:
        raise InputError(f"cannot read the folder {location}: {error.strerror or error}") from error
    return sorted(folders), sorted(files)
