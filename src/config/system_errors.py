"""Errors of the operating system, the network and the memory, as errors with an exit code."""

import errno
import re
import socket

from config.errors import InputError, ResourceError, UnreachableError, exception_chain, first_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_DEVICE = (errno.ENODEV, errno.ENXIO)  # opening a socket, or a device that does not exist; or storage that has gone
# Storage that fails, and limits of the process or the machine.
_EXHAUSTED = (
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)
_PATH = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.ETXTBSY, errno.EXDEV, errno.EINVAL, errno.EILSEQ),
)
_NETWORK = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
_UNREACHABLE_CLASSES = ("DistNetworkError", "DistStoreError", "ConnectTimeout", "ReadTimeout", "ConnectError")
# Libraries in other languages raise an error without errno: Rust's "os error 28", SQLite, numpy's tofile, torch's writer.
_FULL_TEXT = re.compile(
    r"no space left on device|disk quota exceeded|file too large|(?:os error|errno) (?:27|28|122)\b|"
    r"database or disk is full|\d+ requested and \d+ written",
    re.IGNORECASE,
)
# torch's writer fails on its own count of bytes while an error of the file is handled.
_WRITER_TEXT = re.compile(r"PytorchStreamWriter failed|inline_container\.cc:\d+\] \. unexpected pos")
_EXHAUSTED_TEXT = re.compile(
    r"(?:os error|errno) (?:5|12|23|24|116)\b|disk i/o error|out of shared memory|can't start new thread|"
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed|exited)",
    re.IGNORECASE,
)
_MEMORY_TEXT = re.compile(
    r"DefaultCPUAllocator|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|bad_alloc|cannot allocate memory", re.IGNORECASE
)
_PATH_TEXT = re.compile(
    r"unable to open database file|attempt to write a readonly database|(?:os error|errno) (?:13|30)\b"
)
# SQLite does not name the file.
_DAMAGED_TEXT = re.compile(
    r"database disk image is malformed|file is not a database|malformed database schema|unsupported file format|"
    r"\(sqlite3\.OperationalError\) no such (?:table|column)"
)


def is_damaged_database(error: BaseException) -> bool:
    """Return whether an error says that a file of SQLite is damaged, incomplete, or none at all."""
    of_database = type(error).__module__.startswith(("sqlite3", "sqlalchemy", "mlflow"))
    return of_database and _DAMAGED_TEXT.search(str(error)) is not None


def to_expected_error(error: BaseException) -> BaseException:
    """Return the error with an exit code that an exception is, wraps or stands for; otherwise the exception itself.

    Exhausted resources are looked for in the whole chain, with the implicit contexts: torch's writer, for example, raises
    an error of its own while the one of the full disk is handled. An error of a path or the network counts only if
    nothing else happened while it was handled, except that torch's writer failed, too.
    """
    causes = _causes(error)
    coded = next((link for link in causes if isinstance(getattr(link, "exit_code", None), int)), None)
    if coded is not None and not (isinstance(coded, InputError) and _is_exhausted(coded.__cause__)):
        return coded
    if not isinstance(error, Exception):  # an interrupt
        return error
    expected = _resource_error(error, str(coded or "")) or next(filter(None, map(_path_or_network_error, causes)), None)
    if expected is None:
        return error
    expected.__cause__ = error
    return expected


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in causes:
        causes.append(link)
        link = link.__cause__ or (link.__context__ if _WRITER_TEXT.search(str(link)) else None)
    return causes


def _is_exhausted(error: BaseException | None) -> bool:
    """Whether the machine refused, not the path: an input that is a device or a socket stays a wrong input."""
    return isinstance(error, OSError) and error.errno in {*_FULL, *_EXHAUSTED}


def _is_writer_alone(error: RuntimeError) -> bool:
    """Whether torch's writer failed without an error of the file."""
    return "PytorchStreamWriter failed writing" in str(error) and not isinstance(error.__context__, OSError)


def _resource_error(error: BaseException, message: str) -> BaseException | None:
    for link in exception_chain(error):
        text = str(link)
        number = link.errno if isinstance(link, OSError) else None
        file = f" while writing {link.filename}" if isinstance(link, OSError) and link.filename else ""
        if number in _FULL or _FULL_TEXT.search(text) or (isinstance(link, RuntimeError) and _is_writer_alone(link)):
            return ResourceError(message or f"no space left on the disk{file}")
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError" or _MEMORY_TEXT.search(text):
            return ResourceError(f"out of memory: {text}; try a smaller data.batch_size")
        is_gone = number in _NO_DEVICE and not (isinstance(link, OSError) and link.filename)
        if is_gone or number in _EXHAUSTED or (number is None and _EXHAUSTED_TEXT.search(text)):
            text = message or f"the system refused a file, a process or memory: {text}"
            return ResourceError(f"{text}; then repeat the command")
    return None


def _path_or_network_error(error: BaseException) -> BaseException | None:
    if isinstance(error, BlockingIOError):  # of fork; a lock that is held is handled where it is taken
        return ResourceError(f"the system refused a process: {error}; then repeat the command")
    if isinstance(error, BrokenPipeError):
        return UnreachableError(f"another process closed the connection: {error}")
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or (
        (isinstance(error, OSError) and error.errno in _NETWORK) or type(error).__name__ in _UNREACHABLE_CLASSES
    ):
        return UnreachableError(f"no connection: {type(error).__name__}: {error}; then repeat the command")
    if isinstance(error, OSError) and error.errno in (*_PATH, *_NO_DEVICE) and error.filename is not None:
        return InputError(
            f"cannot use {error.filename}: {str(error.strerror).lower()}; check the path and its permissions, or set another"
        )
    if (isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)) or _PATH_TEXT.search(
        str(error)
    ):
        return InputError(f"cannot write: {error}; check the path and its permissions, or set another")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of Path.resolve before Python 3.13
        return InputError(
            f"cannot use {str(error).partition(' from ')[2]}: a symbolic link leads to itself; set another path"
        )
    if isinstance(error, UnicodeEncodeError) and "surrogates not allowed" in error.reason:
        text = error.object[max(0, error.start - 40) : error.end + 40]
        return InputError(f"a name or text is not Unicode: {text!a}; rename the file, or write the text in UTF-8")
    if is_damaged_database(error):
        return InputError(f"a SQLite database is damaged: {first_line(error)}; restore it, or use another")
    return None
