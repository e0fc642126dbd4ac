"""A double of a disk that loses what was not synced: it records what a test writes, and builds the folder after a power cut.

POSIX promises little: of a file's content, what was written before its last fsync; of a folder's entries, those made before
the last fsync of the folder. `Disk.power_cuts` builds the least that a disk may have kept, and three common mixtures
with what was not synced. Files that a library writes in C, such as SQLite's, are not seen.
"""

import builtins
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# What is on the disk beside all that was synced: nothing; entries without content (zeros); entries with half of the content
# that was written last; all of it, as after SIGKILL.
LOSSES = ("all", "content", "half", "none")


@dataclass
class _File:
    content: bytes = b""
    synced: bytes = b""
    previous: bytes = b""  # before the last write


@dataclass
class _Folder:
    entries: "dict[str, _File | _Folder]" = field(default_factory=dict)
    synced: "dict[str, _File | _Folder]" = field(default_factory=dict)


@dataclass
class Disk:
    """What was written below a folder.

    Attributes:
        root: the folder.
        operations: (name, arguments) in their order, with the marks of the test among them.
    """

    root: Path
    operations: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)  # number of a file here, by its inode
    descriptors: dict[int, str] = field(default_factory=dict)  # names of open folders

    def mark(self, name: str) -> None:
        """Note that what was written until now has been reported as written."""
        self.operations.append(("mark", (name,)))

    def power_cuts(self, folder: Path) -> Iterator[tuple[Path, list[str]]]:
        """Every power cut that leaves something else: the folder as it is after it, and the marks before it."""
        last: dict[str, Any] = {}
        for count in range(len(self.operations) + 1):
            marks = [arguments[0] for name, arguments in self.operations[:count] if name == "mark"]
            for losses in LOSSES:
                content = self._after_power_cut(count, losses)
                if last.get(losses) != (content, marks):
                    last[losses] = content, marks
                    target = folder / f"{count}-{losses}"
                    _build(content, target)
                    yield target, marks

    def _after_power_cut(self, count: int, losses: str) -> dict[str, Any]:
        """The entries of the folder after a power cut, by name: the content of a file, the entries of a folder.

        Args:
            count: number of operations before it.
            losses: one of `LOSSES`.
        """
        root, files = _Folder(), dict[int, _File]()
        for name, arguments in self.operations[:count]:
            if name == "create":
                path, number = arguments
                folder, entry = _find(root, path)
                folder.entries[entry] = files[number] = _File()
            elif name == "write":
                number, start, data = arguments
                file = files[number]
                file.previous = file.content
                file.content = file.content[:start].ljust(start, b"\0") + data + file.content[start + len(data) :]
            elif name == "truncate":
                number, size = arguments
                files[number].previous, files[number].content = files[number].content, files[number].content[:size]
            elif name == "sync":
                file = files[arguments[0]]
                file.synced = file.content
            elif name == "mkdir":
                folder, entry = _find(root, arguments[0])
                folder.entries[entry] = _Folder()
            elif name in ("link", "rename"):
                (source, old), (folder, entry) = _find(root, arguments[0]), _find(root, arguments[1])
                folder.entries[entry] = source.entries[old]
                if name == "rename":
                    del source.entries[old]
            elif name in ("unlink", "rmdir"):
                folder, entry = _find(root, arguments[0])
                folder.entries.pop(entry, None)  # a lock file is made in C
            elif name == "sync folder":
                folder, entry = _find(root, arguments[0])
                synced = folder.entries[entry] if entry else root
                assert isinstance(synced, _Folder)
                synced.synced = dict(synced.entries)
        return _entries(root, losses)

    def _name(self, path: Any) -> str | None:
        """The name of a path below the root; None for others."""
        text = "" if isinstance(path, int) else str(Path(os.fsdecode(path)).absolute())
        if text == str(self.root):
            return ""
        return text.removeprefix(f"{self.root}/") if text.startswith(f"{self.root}/") else None


def _find(root: _Folder, path: str) -> tuple[_Folder, str]:
    """The folder of a path, and the name in it."""
    folder, *names = root, *path.split("/")
    for name in names[:-1]:
        child = folder.entries[name]
        assert isinstance(child, _Folder)
        folder = child
    return folder, names[-1]


def _entries(folder: _Folder, losses: str) -> dict[str, Any]:
    entries = folder.synced if losses == "all" else folder.entries
    return {
        name: _entries(entry, losses) if isinstance(entry, _Folder) else _content(entry, losses)
        for name, entry in entries.items()
    }


def _build(entries: dict[str, Any], target: Path) -> None:
    target.mkdir()
    for name, entry in entries.items():
        if isinstance(entry, dict):
            _build(entry, target / name)
        else:
            (target / name).write_bytes(entry)


def _content(file: _File, losses: str) -> bytes:
    if losses == "none":
        return file.content
    if losses == "content":
        return file.synced.ljust(len(file.content), b"\0")
    if losses == "half" and file.content != file.synced:
        pairs = enumerate(zip(file.previous, file.content, strict=False))
        common = next((index for index, (old, new) in pairs if old != new), min(len(file.previous), len(file.content)))
        return file.content[: common + (len(file.content) - common) // 2]
    return file.synced


class _Raw(io.FileIO):
    """A file that records what is written to it."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        new = not Path(path).exists()
        emptied = not new and "w" in mode
        super().__init__(path, mode)
        self.disk, self.appends = disk, "a" in mode
        inode = os.fstat(self.fileno()).st_ino
        if new or inode not in disk.numbers:
            disk.numbers[inode] = len(disk.operations)
            disk.operations.append(("create", (disk._name(path), disk.numbers[inode])))
        self.number = disk.numbers[inode]
        if emptied:
            disk.operations.append(("truncate", (self.number, 0)))

    def write(self, data: Any, /) -> int:
        start = os.fstat(self.fileno()).st_size if self.appends else self.tell()
        content = bytes(data)
        written = super().write(content)
        self.disk.operations.append(("write", (self.number, start, content[:written])))
        return written

    def truncate(self, size: int | None = None, /) -> int:
        size = super().truncate(size)
        self.disk.operations.append(("truncate", (self.number, size)))
        return size


@contextmanager
def recording(root: Path) -> Iterator[Disk]:
    """Record everything that is written below a folder in the block, with Python's functions."""
    disk = Disk(root)
    real = {
        name: getattr(os, name)
        for name in ("fsync", "replace", "rename", "unlink", "rmdir", "link", "mkdir", "open", "close")
    }
    real_open = io.open

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        *rest: Any,
    ) -> Any:
        if not isinstance(file, int) and set(mode) & set("wax+") and disk._name(file):
            raw = _Raw(disk, file, mode.replace("b", "").replace("t", ""))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)
        return real_open(file, mode, buffering, encoding, errors, newline, *rest)

    def open_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        descriptor: int = real["open"](path, flags, *rest, **options)
        disk.descriptors.pop(descriptor, None)
        if not options and (name := disk._name(path)) is not None and Path(path).is_dir():
            disk.descriptors[descriptor] = name
        return descriptor

    def close(descriptor: int) -> None:
        disk.descriptors.pop(descriptor, None)
        real["close"](descriptor)

    def fsync(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if descriptor in disk.descriptors:
            disk.operations.append(("sync folder", (disk.descriptors[descriptor],)))
        elif (number := disk.numbers.get(os.fstat(descriptor).st_ino)) is not None:
            disk.operations.append(("sync", (number,)))

    def recorded(function: str, operation: str) -> Any:
        def call(*paths: Any, **options: Any) -> None:
            real[function](*paths, **options)
            names = [disk._name(path) for path in paths if not isinstance(path, int)]
            if not options.get("dir_fd") and all(name is not None for name in names):
                disk.operations.append((operation, tuple(names)))

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", open_file)
        patch.setattr(builtins, "open", open_file)
        patch.setattr(os, "open", open_descriptor)
        patch.setattr(os, "close", close)
        patch.setattr(os, "fsync", fsync)
        for function, operation in (
            ("replace", "rename"),
            ("rename", "rename"),
            ("unlink", "unlink"),
            ("link", "link"),
            ("mkdir", "mkdir"),
            ("rmdir", "rmdir"),
        ):
            patch.setattr(os, function, recorded(function, operation))
        yield disk
