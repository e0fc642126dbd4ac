"""Fingerprints of source files, which are part of the keys of cache entries.

A file's SHA-256 is stored with its path, size, modification time and inode, so that a warm start reads no file. The
fingerprint of an unchanged list of files is one row, so that 110,000 images cost 110,000 calls of stat only.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from config.errors import InputError

logger = logging.getLogger(__name__)

# Seconds. A file modified more recently may change again within the clock's resolution: its digest is not stored.
SETTLING_TIME = 2.0
# Metadata of remote files that identifies their content.
CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "sha256")

Verify = Literal["fast", "full"]
Stat = tuple[int, int, int]  # size, mtime_ns, inode


def hash_files(files: Sequence[str], root: Path, verify: Verify = "fast") -> str:
    """Hash the files' contents and their names relative to their common folder, independent of their order.

    Args:
        files: local paths or fsspec URLs. A remote file counts by the checksum of its store, else by its content.
        root: the cache folder, in which `digests.sqlite` stores digests.
        verify: "full" reads all files again.

    Returns:
        SHA-256 in hex digits.

    Raises:
        InputError: no files, or one that cannot be read.
    """
    if not files:
        raise InputError("there are no files to fingerprint")
    remote = sorted(file for file in files if "://" in file)
    local = sorted(str(Path(file).absolute()) for file in files if "://" not in file)
    stats = [_stat(file) for file in local]
    with _Index(root) as index:
        signature = hashlib.sha256(repr(list(zip(local, stats, strict=True))).encode()).hexdigest()
        stored = index.listing(signature) if verify == "fast" and not remote else None
        if stored:
            return stored
        digests = _local_digests(local, stats, index, verify)
        digests |= {file: _remote_digest(file, verify) for file in remote}
        total = hashlib.sha256()
        folder = _common_folder(list(digests))
        for name, digest in sorted((os.path.relpath(file, folder), digest) for file, digest in digests.items()):
            total.update(f"{name}\0{digest}\n".encode())
        if not remote and not any(_unsettled(stat) for stat in stats):
            index.store_listing(signature, total.hexdigest())
    return total.hexdigest()


def _common_folder(files: list[str]) -> str:
    # Strings: a Path for each of 110,000 files takes seconds.
    return os.path.commonpath([os.path.dirname(file) for file in files])  # noqa: PTH120


def _stat(file: str) -> Stat:
    try:
        stat = os.stat(file)  # noqa: PTH116 -- a Path for each of 110,000 files doubles the time
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _unsettled(stat: Stat) -> bool:
    return abs(time.time() - stat[1] / 1e9) < SETTLING_TIME


def _local_digests(files: list[str], stats: list[Stat], index: "_Index", verify: str) -> dict[str, str]:
    digests = index.digests(files, stats) if verify == "fast" else {}
    missing = [(file, stat) for file, stat in zip(files, stats, strict=True) if file not in digests]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests |= pool.map(lambda item: (item[0], _digest(item[0])), missing, chunksize=64)
    index.store([(file, stat, digests[file]) for file, stat in missing if not _unsettled(stat)])
    return digests


def _digest(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error


def _remote_digest(url: str, verify: str) -> str:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        info = system.info(path)
        for key in CHECKSUMS:
            if verify == "fast" and info.get(key):
                return f"{key}:{info[key]}:{info.get('size')}"
        with system.open(path, "rb") as stream:
            total = hashlib.sha256()
            while block := stream.read(1 << 20):
                total.update(block)
            return total.hexdigest()
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"cannot read {url}: {error}") from error


class _Index:
    """Database of digests. Without it fingerprints are the same, only slower."""

    def __init__(self, root: Path) -> None:
        self.path = root / "digests.sqlite"
        self.connection: sqlite3.Connection | None = None

    def __enter__(self) -> "_Index":
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                # A damaged database, or somebody's file: create a new one.
                self.__exit__()
                self.path.rename(self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.damaged"))
                self._open()
        except (sqlite3.Error, OSError) as error:
            logger.warning("file digests are not stored in %s: %s", self.path, error)
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(self.path, timeout=60)
        with self.connection as connection:
            connection.execute(
                "create table if not exists files (path text primary key, size integer, mtime_ns integer,"
                " inode text, sha256 text) without rowid"
            )
            connection.execute(
                "create table if not exists listings (signature text primary key, fingerprint text) without rowid"
            )

    def listing(self, signature: str) -> str | None:
        rows = self._rows("select fingerprint from listings where signature = ?", (signature,))
        return str(rows[0][0]) if rows else None

    def digests(self, files: list[str], stats: list[Stat]) -> dict[str, str]:
        digests: dict[str, str] = {}
        current = dict(zip(files, stats, strict=True))
        for start in range(0, len(files), 500):
            chunk = files[start : start + 500]
            placeholders = ",".join("?" * len(chunk))
            query = f"select path, size, mtime_ns, inode, sha256 from files where path in ({placeholders})"
            for path, size, mtime_ns, inode, sha256 in self._rows(query, tuple(chunk)):
                if current[path] == (size, mtime_ns, int(inode)):
                    digests[path] = sha256
        return digests

    def store(self, rows: list[tuple[str, Stat, str]]) -> None:
        # As text: an inode can be larger than SQLite's signed 64 bits.
        self._write(
            "insert or replace into files values (?, ?, ?, ?, ?)",
            [(path, size, mtime_ns, str(inode), digest) for path, (size, mtime_ns, inode), digest in rows],
        )

    def store_listing(self, signature: str, fingerprint: str) -> None:
        self._write("insert or replace into listings values (?, ?)", [(signature, fingerprint)])

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        if self.connection is not None:
            with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):  # names that are not UTF-8 are not stored
                return self.connection.execute(query, values).fetchall()
        return []

    def _write(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if self.connection is not None and rows:
            try:
                with self.connection as connection:
                    connection.executemany(query, rows)
            except (sqlite3.Error, UnicodeEncodeError) as error:
                logger.warning("file digests are not stored in %s: %s", self.path, error)
