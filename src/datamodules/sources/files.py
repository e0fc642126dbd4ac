"""Access to local files and to those of fsspec's file systems."""

import contextlib
import io
import os
import urllib.parse
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

from config import parsing
from config.errors import InputError

MAX_BYTES = 512 << 20  # of an image
# Of a decompressed file: texts have ratios of 3 to 30, gzip's largest is 1,032.
MAX_RATIO = 200
MIN_DECOMPRESSED = 256 << 20
BATCH_BYTES = 2 << 30  # of a batch of rows of Parquet, at most


def file_system(path: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Raises:
        InputError: an unknown protocol, or no valid URL.
    """
    import fsspec

    try:
        _ = urllib.parse.urlsplit(path).port  # raises ValueError
        system, inner_path = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open {path}: {error}") from error
    return system, inner_path


def full_path(system: Any, path: str) -> str:
    """Return the path or URL of a path within an fsspec file system: local ones unchanged, others with their protocol."""
    return str(path) if _is_local(system) else str(system.unstrip_protocol(path))


def read_bytes(location: str) -> bytes:
    """Read a local file or a URL: an image, or a small file beside images.

    Raises:
        InputError: it cannot be read, is not a regular file, or is too large.
    """
    try:
        if "://" not in location:
            return parsing.read_bytes(location, MAX_BYTES)
        system, path = file_system(location)
        if _is_local(system):
            return parsing.read_bytes(path, MAX_BYTES)
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
        InputError: the file cannot be opened, is not a regular file, cannot be read to its end, or is decompressed to an
            implausible size.
    """
    import fsspec

    try:
        size = _check_local(file)
        with fsspec.open(file, "rb", compression=compression) as stream:
            is_compressed = compression is not None and fsspec.core.get_compression(file, compression) is not None
            yield io.BufferedReader(_Decompressed(stream, file, size)) if is_compressed else stream
    except (OSError, EOFError, zlib.error, ImportError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def open_parquet(file: str) -> Iterator[Any]:
    """Open a local path or fsspec URL as a `pyarrow.parquet.ParquetFile`.

    Raises:
        InputError: the file cannot be read as Parquet, or is decompressed to an implausible size.
    """
    import pyarrow
    import pyarrow.parquet

    with ExitStack() as stack:
        source = stack.enter_context(open_file(file, compression=None)) if "://" in file else file
        try:
            size = _check_local(file)
            table = stack.enter_context(pyarrow.parquet.ParquetFile(source))
            if size and sum(chunk.total_uncompressed_size for chunk in _column_chunks(table)) > _decompressed_limit(
                size
            ):
                raise _decompression_error(file)
            yield table
        except (OSError, pyarrow.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(f"{file}: not a readable Parquet file: {reason}") from error


def rows_per_batch(table: Any, columns: Collection[str], maximum: int) -> int:
    """Return how many rows of a Parquet file are read together.

    A dictionary holds each value once. A batch holds it once for each of its rows, and no value is longer than what is
    stored of its column.

    Args:
        table: of `open_parquet`.
        columns: that are read.
        maximum: number of rows if memory suffices.
    """
    sizes: list[int] = [
        chunk.total_uncompressed_size
        for chunk in _column_chunks(table)
        if chunk.path_in_schema.split(".")[0] in columns and any("DICTIONARY" in name for name in chunk.encodings)
    ]
    return max(1, min(maximum, BATCH_BYTES // max([1, *sizes])))


def _column_chunks(table: Any) -> Iterator[Any]:
    metadata = table.metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        yield from (group.column(column) for column in range(group.num_columns))


def _decompressed_limit(size: int) -> int:
    return max(MIN_DECOMPRESSED, MAX_RATIO * size)


def _decompression_error(file: str) -> InputError:
    return InputError(
        f"{file} is decompressed to more than {MAX_RATIO} times its size; if that is right, store it without compression"
    )


def _is_local(system: Any) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


def _check_local(file: str) -> int:
    """Return the size of a local file; 0 of another.

    Raises:
        OSError: it is not a regular file.
    """
    if "://" in file:
        system, file = file_system(file)
        if not _is_local(system):
            return 0
    return parsing.check_regular(file).st_size


class _Decompressed(io.RawIOBase):
    """A decompressed stream, which ends with an error where a small file has turned into a very large one."""

    def __init__(self, stream: IO[bytes], file: str, size: int) -> None:
        """Wrap a stream.

        Args:
            stream: yields decompressed bytes.
            file: for the message.
            size: of the compressed file, in bytes.
        """
        self._stream, self._file = stream, file
        self._remaining = _decompressed_limit(size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; see `io.RawIOBase`."""
        block = self._stream.read(len(buffer))
        self._remaining -= len(block)
        if self._remaining < 0:
            raise _decompression_error(self._file)
        buffer[: len(block)] = block
        return len(block)


def walk_files(folder: str, parents: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the files below a folder, sorted, relative to it; without hidden ones.

    Args:
        folder: path or URL.
        parents: device and inode of the local folders that it is in, as far as they are walked.

    Raises:
        InputError: a folder cannot be read, or is a link to one that it is in.
    """
    if "://" not in folder:
        with contextlib.suppress(OSError):  # `list_folder` reports it
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in parents:
                raise InputError(f"{folder} is a link to a folder that it is in; remove the link")
            parents = (*parents, (status.st_dev, status.st_ino))
    folders, names = list_folder(folder)
    yield from names
    for inner in folders:
        for file in walk_files(f"{folder}/{inner}", parents):
            yield f"{inner}/{file}"


def list_folder(location: str) -> tuple[list[str], list[str]]:
    """List the names of the folders and of the files in a folder, sorted; without hidden ones.

    Raises:
        InputError: the folder cannot be read.
    """
    folders: list[str] = []
    names: list[str] = []
    try:
        if "://" not in location:
            with os.scandir(location) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else names).append(entry.name)
        else:
            system, folder = file_system(location)
            for info in system.ls(folder, detail=True):
                name = PurePosixPath(info["name"]).name
                if not name.startswith("."):
                    (folders if info["type"] == "directory" else names).append(name)
    except OSError as error:
        raise InputError(f"cannot read the folder {location}: {error.strerror or error}") from error
    return sorted(folders), sorted(names)
