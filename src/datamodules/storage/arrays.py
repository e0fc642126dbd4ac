"""Flat arrays and texts on disk: appended to while a cache entry is built, memory-mapped when it is read."""

import math
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError, first_line
from datamodules.storage.manifest import DamagedError

Array = npt.NDArray[Any]
CHUNK = 1 << 20  # numbers that are checked at a time


def ragged_indices(starts: Array, lengths: Array) -> npt.NDArray[np.int64]:
    """Concatenate the indices of many ranges: starts[0], starts[0] + 1, ..., then those from starts[1], ...

    Args:
        starts: [N] first index of each range.
        lengths: [N] length of each range, 0 or more.

    Returns:
        [sum(lengths)] indices.
    """
    lengths = np.asarray(lengths, np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths) + np.arange(total)


def load(path: Path) -> Array:
    """Open a .npy file as a read-only memory map (an empty one cannot be mapped).

    Raises:
        DamagedError: it has no header, or not the size that the header implies. Nothing is allocated before that.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
        except Exception as error:  # the header is a literal of Python, whose parser raises exceptions of many classes
            raise DamagedError(path, f"it has no header of an array ({first_line(error)})") from error
        start, size = file.tell(), os.fstat(file.fileno()).st_size
    if dtype.hasobject or fortran_order or min(shape, default=0) < 0:
        raise DamagedError(path, "its header is not that of an array of numbers")
    if start + math.prod(shape) * dtype.itemsize != size:
        raise DamagedError(path, f"it has {size} bytes, which is not the size of an array {shape} of {dtype}")
    if size == start:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape)


def check_offsets(offsets: Array, length: int, path: Path) -> None:
    """Check that offsets divide an array into consecutive parts.

    Args:
        offsets: [N + 1].
        length: of the array.
        path: of the offsets, for messages.

    Raises:
        DamagedError: they do not.
    """
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        raise DamagedError(path, "it has no offsets")
    if offsets[0] != 0 or offsets[-1] != length:
        raise DamagedError(path, f"its offsets are {offsets[0]} to {offsets[-1]} instead of 0 to {length}")
    for first in range(0, len(offsets) - 1, CHUNK):
        part = offsets[first : first + CHUNK + 1]
        if (part[1:] < part[:-1]).any():
            raise DamagedError(path, "its offsets do not increase")


def check_range(values: Array, low: int, high: int, path: Path) -> None:
    """Check that all values are at least `low` and less than `high`.

    Raises:
        DamagedError: they are not.
    """
    for first in range(0, len(values), CHUNK):
        part = values[first : first + CHUNK]
        if (part < low).any() or (part >= high).any():
            raise DamagedError(path, f"it has numbers that are not from {low} to {high - 1}")


class ArrayWriter:
    """A .npy file written in pieces, of which nothing stays in memory."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, columns: int | None = None) -> None:
        """Open the file.

        Args:
            path: ends with .npy.
            dtype: of the elements.
            columns: second dimension; None for a flat array.
        """
        self.dtype = np.dtype(dtype)
        self.tail = () if columns is None else (columns,)
        self.rows = 0
        self.stream = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header for a longer first dimension, so that it can be overwritten in the end.
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.tail),
        }
        np.lib.format.write_array_header_1_0(self.stream, header)

    def append(self, rows: npt.ArrayLike) -> None:
        """Append rows."""
        piece = np.ascontiguousarray(rows, self.dtype).reshape(-1, *self.tail)
        self.stream.write(piece.data if piece.size else b"")
        self.rows += len(piece)

    def close(self) -> None:
        """Write the final number of rows; without it the file is an empty array."""
        data_start = self.stream.tell() - self.rows * self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))
        self.stream.seek(0)
        self._write_header()
        assert self.stream.tell() == data_start
        self.stream.close()


class TextWriter:
    """Many texts in two files: their UTF-8 bytes, concatenated, and the offset of each."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open the files `name.utf8.npy` and `name.offsets.npy` in a folder."""
        self.bytes = ArrayWriter(folder / f"{name}.utf8.npy", np.uint8)
        self.offsets = ArrayWriter(folder / f"{name}.offsets.npy", np.int64)
        self.offsets.append([0])

    def append(self, text: str) -> None:
        """Append a text."""
        self.bytes.append(np.frombuffer(text.encode(), np.uint8))
        self.offsets.append([self.bytes.rows])

    def close(self) -> None:
        """Complete both files."""
        self.bytes.close()
        self.offsets.close()


class TextArray:
    """Sequence of the texts that a TextWriter wrote, read one at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open the files of a TextWriter.

        Raises:
            DamagedError: they do not fit together.
        """
        self.bytes = load(folder / f"{name}.utf8.npy")
        self.offsets = load(folder / f"{name}.offsets.npy")
        self._path = folder / f"{name}.utf8.npy"
        if self.bytes.ndim != 1 or self.bytes.dtype != np.uint8:
            raise DamagedError(self._path, "it is not an array of bytes")
        check_offsets(self.offsets, len(self.bytes), folder / f"{name}.offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        try:
            return self.bytes[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()
        except UnicodeDecodeError as error:
            raise DamagedError(self._path, f"text {index} is not UTF-8") from error

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


def check_ids(ids: TextArray, hashes: "array[int]", source: str, kind: str, hint: str = "") -> None:
    """Check that there are examples, and that their ids are unique.

    Args:
        ids: [N].
        hashes: [N] of the ids: eight bytes each in memory, instead of the ids.
        source: the split's files, for messages.
        kind: of the examples, for messages: "questions".
        hint: appended to the message of an id that occurs twice.

    Raises:
        InputError: no examples, or an id that occurs twice.
    """
    if not hashes:
        raise InputError(f"{source}: there are no {kind}")
    values = np.frombuffer(hashes, np.int64)
    order = np.argsort(values, kind="stable")
    for index in np.flatnonzero(values[order][1:] == values[order][:-1]):
        first, second = int(order[index]), int(order[index + 1])
        if ids[first] == ids[second]:
            raise InputError(
                f"{source}: the id {ids[first]!r} occurs twice, at {kind} {first + 1} and {second + 1}; ids must be "
                f"unique in a split{hint}"
            )


@contextmanager
def completing(writers: Iterable[ArrayWriter | TextWriter]) -> Iterator[None]:
    """Close writers after the block, unless it fails."""
    yield
    for writer in writers:
        writer.close()
