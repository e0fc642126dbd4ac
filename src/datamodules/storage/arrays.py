"""Flat arrays and texts on disk: appended to while a cache entry is built, memory-mapped when it is read."""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError

Array = npt.NDArray[Any]


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
    """Open a .npy file as a read-only memory map (an empty one cannot be mapped and is read)."""
    try:
        content: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        content = np.load(path, allow_pickle=False)
        if content.size:
            raise
    return content


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
        """Open the files of a TextWriter."""
        self.bytes = load(folder / f"{name}.utf8.npy")
        self.offsets = load(folder / f"{name}.offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.bytes[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

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
