"""MLflow's SQLite file: of the registry, and of logger=mlflow."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from config.syncing import make_folder, sync_directory
from config.temporary_files import remove_temporary_files, temporary_folder

_SCHEME = "sqlite:///"
_LOCK_SECONDS = 300


def database_path(address: str) -> Path | None:
    """Return the absolute path of the SQLite file at an address of MLflow; None for a server or another database."""
    name = address.removeprefix(_SCHEME).partition("?")[0]  # options of SQLAlchemy follow
    return Path(name).absolute() if address.startswith(_SCHEME) and name not in ("", ":memory:") else None


def artifact_location(path: Path) -> str:
    """Return the URI of the artifacts of a SQLite file, beside it. MLflow's default is ./mlruns of the first process."""
    return (path.parent / "artifacts").as_uri()


@contextlib.contextmanager
def lock_database(path: Path) -> Iterator[None]:
    """Lock a SQLite file against other processes of isotrain. Storage without locks is used without."""
    import filelock

    lock = filelock.FileLock(f"{path}.lock", timeout=_LOCK_SECONDS)
    with contextlib.suppress(NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def create_database(path: Path) -> None:
    """Create MLflow's SQLite file if there is none.

    MLflow makes its tables in hundreds of statements that are no transaction: if the process is killed meanwhile, or
    another one begins, too, no process can use the file any more. The file is therefore made in a temporary folder, under
    a lock, and renamed when it is complete.

    Args:
        path: The file. Its folder is created. A file with content is left as it is.
    """
    remove_temporary_files(path.parent, path.name)
    if _has_content(path):
        return
    make_folder(path.parent)
    with lock_database(path):
        if _has_content(path):  # another process has made it
            return
        with temporary_folder(path) as folder:
            database = folder / path.name
            _initialize(database, artifact_location(path))
            with database.open("rb") as file:
                os.fsync(file.fileno())
            _remove_journal(path)
            _rename(database, path)
            sync_directory(path.parent)


def is_database_error(error: Exception) -> bool:
    """Return whether an error comes from the database itself: MLflow cannot create or read its tables."""
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, CommandError | SQLAlchemyError | sqlite3.Error)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _initialize(database: Path, artifacts: str) -> None:
    """Make the tables and the default experiment."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"{_SCHEME}{database}", artifacts)
    store.engine.dispose()


def _remove_journal(path: Path) -> None:
    """Let SQLite remove the journal of a killed process, which it would otherwise apply to the new file."""
    if any(Path(f"{path}{suffix}").exists() for suffix in ("-journal", "-wal")):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("select count(*) from sqlite_master")


def _rename(database: Path, path: Path) -> None:
    """Give a new file its name. A file that another program has made meanwhile is not replaced."""
    if path.exists() and not _has_content(path):  # SQLite creates an empty file first
        database.replace(path)
        return
    try:
        os.link(database, path)
    except FileExistsError:
        return
    except OSError:  # storage without hard links
        if not path.exists():
            database.replace(path)
