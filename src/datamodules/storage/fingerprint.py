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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from config import parsing
from config.errors import InputError

logger = logging.getLogger(__name__)

# Seconds. A file modified more recently may change again within the clock's resolution: its digest is not stored.
SETTLING_TIME = 2.0
# Metadata of remote files that identifies their content.
CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "sha256")

TABLES = {
    "files": "path text primary key, size integer, mtime_ns integer, inode text, sha256 text",
    "listings": "signature text primary key, fingerprint text",
}

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


def digest_files(files: Sequence[str], root: Path) -> dict[str, str]:
    """Return the SHA-256 of local files; those that look unchanged since they were last read are not read.

    A file looks unchanged if its path, size, inode, and its times of modification and of change are the same. Programs
    can set the former time, but not the latter.

    Args:
        files: absolute paths.
        root: the cache folder, in which `digests.sqlite` stores digests.

    Raises:
        InputError: a file cannot be read.
    """
    stats = []
    for file in files:
        size, modified, inode = _stat(file)
        changed = os.stat(file).st_ctime_ns  # noqa: PTH116
        stats.append((size, max(modified, changed), inode))
    with _Index(root) as index:
        return _local_digests(list(files), stats, index, "fast")


def read_digests(files: Sequence[str]) -> dict[str, str]:
    """Read local files, and return their SHA-256 in hex digits.

    Raises:
        InputError: a file cannot be read.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(files, pool.map(_digest, files), strict=True))


def _common_folder(files: list[str]) -> str:
    # Strings: a Path for each of 110,000 files takes seconds.
    return os.path.commonpath([os.path.dirname(file) for file in files])  # noqa: PTH120


def _stat(file: str) -> Stat:
    try:
        stat = parsing.check_regular(file)  # a Path for each of 110,000 files would double the time
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _unsettled(stat: Stat) -> bool:
    return abs(time.time() - stat[1] / 1e9) < SETTLING_TIME


def _local_digests(files: list[str], stats: list[Stat], index: "_Index", verify: str) -> dict[str, str]:
    digests = index.digests(files, stats) if verify == "fast" else {}
    missing = [(file, stat) for file, stat in zip(files, stats, strict=True) if file not in digests]
    digests |= read_digests([file for file, _ in missing])
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
    """Database of digests. Without it fingerprints are the same, only slower.

    Each row has a checksum: a damaged one is ignored, and written again. Rows of earlier versions have none.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "digests.sqlite"
        self.connection: sqlite3.Connection | None = None

    def __enter__(self) -> "_Index":
        with self._warnings():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._replace()
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        if all("checksum" in self._columns(table) for table in TABLES):  # also of a database that is read only
            return
        with self._transaction() as connection:
            for table, columns in TABLES.items():
                connection.execute(f"create table if not exists {table} ({columns}, checksum text) without rowid")
                if "checksum" not in self._columns(table):  # of an earlier version
                    connection.execute(f"alter table {table} add column checksum text")

    def _columns(self, table: str) -> list[str]:
        assert self.connection is not None
        return [str(row[1]) for row in self.connection.execute(f"pragma table_info({table})")]

    def _replace(self) -> None:
        """Move a damaged database, or somebody's file, aside, and create a new one."""
        self.__exit__()
        damaged = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.damaged")
        logger.warning("%s is damaged: it was set aside as %s, and files are read again", self.path, damaged.name)
        self.path.rename(damaged)
        self._open()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Lock the database for a block; undo what the block wrote if it fails."""
        assert self.connection is not None
        self.connection.execute("begin immediate")
        with self.connection as connection:
            yield connection

    @contextlib.contextmanager
    def _warnings(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeEncodeError) as error:  # names that are not UTF-8 are not stored
            logger.warning("file digests are not stored in %s: %s", self.path, error)
            self.__exit__()

    def listing(self, signature: str) -> str | None:
        rows = self._rows("select signature, fingerprint, checksum from listings where signature = ?", (signature,))
        return str(rows[0][1]) if rows and rows[0][0] == signature else None

    def digests(self, files: list[str], stats: list[Stat]) -> dict[str, str]:
        digests: dict[str, str] = {}
        current = dict(zip(files, stats, strict=True))
        for start in range(0, len(files), 500):
            chunk = files[start : start + 500]
            placeholders = ",".join("?" * len(chunk))
            query = f"select path, size, mtime_ns, inode, sha256, checksum from files where path in ({placeholders})"
            for path, size, mtime_ns, inode, sha256, _ in self._rows(query, tuple(chunk)):
                if current.get(path) == (size, mtime_ns, int(inode)):
                    digests[path] = sha256
        return digests

    def store(self, rows: list[tuple[str, Stat, str]]) -> None:
        # As text: an inode can be larger than SQLite's signed 64 bits.
        self._write(
            "insert or replace into files (path, size, mtime_ns, inode, sha256, checksum) values (?, ?, ?, ?, ?, ?)",
            [(path, size, mtime_ns, str(inode), digest) for path, (size, mtime_ns, inode), digest in rows],
        )

    def store_listing(self, signature: str, fingerprint: str) -> None:
        self._write(
            "insert or replace into listings (signature, fingerprint, checksum) values (?, ?, ?)",
            [(signature, fingerprint)],
        )

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        """Return the rows of a query whose last column is their checksum, and is right."""
        if self.connection is None:
            return []
        try:
            rows = self.connection.execute(query, values).fetchall()
        except UnicodeEncodeError:  # names that are not UTF-8 are not stored
            return []
        except sqlite3.Error as error:
            if _is_damage(error):
                with self._warnings():
                    self._replace()
            return []
        return [row for row in rows if row[-1] == _checksum(row[:-1])]

    def _write(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if self.connection is None or not rows:
            return

        def execute() -> None:
            with self._transaction() as connection:
                connection.executemany(query, [(*row, _checksum(row)) for row in rows])

        with self._warnings():
            try:
                execute()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._replace()
                execute()


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is damaged or no database, instead of locked, full or not writable."""
    if isinstance(error, sqlite3.OperationalError):
        # Tables that cannot be read or have other columns, and text that is not UTF-8.
        return str(error).startswith(("malformed", "no such", "table ", "Could not decode", "unsupported file format"))
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError)


def _checksum(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).hexdigest()[:16]
