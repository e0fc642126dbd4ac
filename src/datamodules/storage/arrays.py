"""Flat arrays and texts on disk: appended to while a cache entry is built, memory-mapped when it is read."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def ragged(starts: Array, lengths: Array) -> npt.NDArray[np.int64]:
    """Indices of many runs, one after the other: starts[0], starts[0]+1, ... then those of starts[1], ...

    Args:
        starts: [N] first index of each run.
        lengths: [N] length of each run, 0 or more.

    Returns:
        [sum(lengths)] indices.
    """
    lengths = np.asarray(lengths, np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths) + np.arange(total)


def load(path: Path) -> Array:
    """A .npy file as a read-only memory map (an empty one cannot be mapped and is read)."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
    return array


class ArrayWriter:
    """A .npy file written piece by piece. Nothing of it stays in memory."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, columns: int | None = None) -> None:
        """Opens the file.

        Args:
            path: ends with .npy.
            dtype: of the elements.
            columns: second dimension; None for a flat array.
        """
        self.dtype = np.dtype(dtype)
        self.tail = () if columns is None else (columns,)
        self.rows = 0
        self.stream = path.open("wb")
        self._header()

    def _header(self) -> None:
        # numpy leaves room in the header for a longer first dimension, so that it can be written again at the
        # end.
        about = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.tail),
        }
        np.lib.format.write_array_header_1_0(self.stream, about)

    def append(self, rows: npt.ArrayLike) -> None:
        """Adds rows at the end."""
        array = np.ascontiguousarray(rows, self.dtype).reshape(-1, *self.tail)
        self.stream.write(array.data if array.size else b"")
        self.rows += len(array)

    def close(self) -> None:
        """Writes the final number of rows. Without it the file says that it is empty."""
        begin = self.stream.tell() - self.rows * self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))
        self.stream.seek(0)
        self._header()
        assert self.stream.tell() == begin
        self.stream.close()


class TextWriter:
    """Many texts in two files: their UTF-8 bytes one after the other, and where each begins."""

    def __init__(self, folder: Path, name: str) -> None:
        self.bytes = ArrayWriter(folder / f"{name}.utf8.npy", np.uint8)
        self.offsets = ArrayWriter(folder / f"{name}.offsets.npy", np.int64)
        self.offsets.append([0])

    def append(self, text: str) -> None:
        """Adds one text."""
        self.bytes.append(np.frombuffer(text.encode(), np.uint8))
        self.offsets.append([self.bytes.rows])

    def close(self) -> None:
        """Completes both files."""
        self.bytes.close()
        self.offsets.close()


class Texts:
    """Reads what a TextWriter wrote, one text at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.bytes = load(folder / f"{name}.utf8.npy")
        self.offsets = load(folder / f"{name}.offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.bytes[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()


def duplicate(hashes: Array, texts: Texts) -> tuple[str, int, int] | None:
    """A text that occurs twice, and where; None if there is none.

    Args:
        hashes: int64 [N] of the texts: eight bytes each in memory, not the texts themselves.
        texts: N of them.
    """
    order = np.argsort(hashes, kind="stable")
    for at in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]):
        first, second = int(order[at]), int(order[at + 1])
        if texts[first] == texts[second]:
            return texts[first], first, second
    return None


class Writers:
    """Several writers that are completed together, unless the block they are used in fails."""

    def __init__(self, writers: Iterable[ArrayWriter | TextWriter]) -> None:
        self.writers = list(writers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for writer in self.writers:
                writer.close()
