"""DuckDB for the SQL of a contract: the tables of the data set and nothing else, one SELECT at a time, with limits.

A contract may come from somebody else. Its SQL reads no file, writes none, loads no extension and changes no setting; its
statements share a limit of time, of memory and of disk space.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from config.errors import ContractError, first_line
from config.numbers import format_number
from config.process import available_cores
from quality import tables

SECONDS = 60.0  # default of quality.time_limit
GRACE = 20.0  # seconds until a statement that was interrupted must have ended
ALLOCATIONS = 1 << 30  # bytes: strings and lists of a statement are outside DuckDB's own limit
DISK = "8GB"  # of data that exceeds the memory limit
THREADS = 4
# https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview. The last one makes all of them final.
_SETTINGS = (
    ("python_enable_replacements", "false"),  # Python variables as tables
    ("allow_persistent_secrets", "false"),
    ("autoload_known_extensions", "false"),
    ("autoinstall_known_extensions", "false"),
    ("allow_community_extensions", "false"),
    ("max_temp_directory_size", tables.sql_string(DISK)),
    ("enable_external_access", "false"),
    ("lock_configuration", "true"),
)

Result = TypeVar("Result")


class RefusedStatementError(Exception):
    """A statement that is not one SELECT, reaches a limit, or comes after the time limit."""


class Sandbox:
    """A locked connection, with the methods of a DB-API cursor that Soda uses.

    Attributes:
        connection: of duckdb.
        limit_error: the message if a limit was reached; "" before.
        failure: the error after which the connection cannot be used, nor closed; Soda continues after each error.
    """

    def __init__(self, connection: Any, seconds: float = SECONDS) -> None:
        """Lock a connection, for good.

        Args:
            connection: of duckdb, with all tables.
            seconds: limit of the time of all statements together.
        """
        self.limit_error = ""
        self.failure: ContractError | None = None
        self.connection, self._seconds, self._remaining = connection, seconds, seconds
        (is_locked,) = connection.execute("select current_setting('lock_configuration')").fetchone()
        if not is_locked:
            connection.execute(f"set threads = {max(1, min(THREADS, available_cores()))}")
            for name, value in _SETTINGS:
                connection.execute(f"set {name} = {value}")

    def execute(self, query: str) -> "Sandbox":
        """Run one SELECT statement.

        Raises:
            RefusedStatementError: any other text, or a statement that reaches a limit, which `limit_error` tells, too.
            duckdb.Error: the statement failed.
            ContractError: the statement does not end although it was interrupted.
        """
        import duckdb

        statements = duckdb.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            names = ", ".join(statement.type.name for statement in statements) or "none"
            raise RefusedStatementError(f"a contract's SQL must be one SELECT statement, not {names}")
        self._run(lambda: self.connection.execute(statements[0]))
        return self

    def fetchall(self) -> list[Any]:
        """Return the remaining rows of the last statement."""
        return self._run(lambda: list(self.connection.fetchall()))

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows of the last statement."""
        return self._run(lambda: list(self.connection.fetchmany(size)))

    def fetchone(self) -> Any:
        """Return the next row of the last statement; None at the end."""
        return self._run(lambda: self.connection.fetchone())

    @property
    def description(self) -> Any:
        """The columns of the last statement."""
        return self.connection.description

    def close(self) -> None:
        """Do nothing: the connection is closed by `load`."""

    def commit(self) -> None:
        """Do nothing: there are SELECT statements only."""

    rollback = commit

    def _run(self, call: Callable[[], Result]) -> Result:
        """Call a method of the connection in a thread, which is interrupted at the time limit.

        Some functions of DuckDB look for an interrupt only between blocks of rows: `levenshtein` of two long strings runs
        for hours. Such a thread is left alone, and the command ends.
        """
        if self._remaining <= 0:
            self._set_time_error()
            raise RefusedStatementError(self.limit_error)
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="contract", daemon=True)
        start = time.monotonic()
        thread.start()
        try:
            thread.join(self._remaining)
        except BaseException:  # of a signal
            self.connection.interrupt()
            raise
        self._remaining -= time.monotonic() - start
        if thread.is_alive():
            self._remaining = 0
            self._set_time_error()
            self.connection.interrupt()
            thread.join(GRACE)
        if thread.is_alive():
            atexit.register(_silence_exit)
            self.failure = ContractError(f"the data contract could not be verified: {self.limit_error}")
            raise self.failure
        if errors:
            if isinstance(errors[0], MemoryError) or type(errors[0]).__name__ == "OutOfMemoryException":
                detail = first_line(errors[0])
                self.limit_error = self.limit_error or f"a query needs too much memory or disk space: {detail}"
                raise RefusedStatementError(self.limit_error) from errors[0]
            raise errors[0]
        return results[0]

    def _set_time_error(self) -> None:
        seconds = format_number(self._seconds)
        self.limit_error = f"its queries took longer than {seconds} s; simplify them, or raise quality.time_limit"


def _silence_exit() -> None:
    """Drop what the bindings of DuckDB print at the end of Python about a connection in use."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextlib.contextmanager
def load(facts: Path, spill: Path) -> Iterator[Any]:
    """Load facts into the table `facts` of a connection, which can be locked: it needs the file no longer.

    Args:
        facts: Parquet file.
        spill: folder for data that exceeds the memory limit.
    """
    connection = tables.connect(facts, spill)
    connection.execute("alter view facts rename to file")
    connection.execute("create table facts as select * from file")
    connection.execute("drop view file")
    yield connection
    connection.close()  # not after an error: closing would wait for a statement that does not end


@contextlib.contextmanager
def limit_memory() -> Iterator[None]:
    """Limit what this process may allocate in addition to what it has, as far as the system can."""
    try:
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        (size,) = (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    except (ImportError, OSError, ValueError):
        yield
        return
    limits = [limit for limit in (size + ALLOCATIONS, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
