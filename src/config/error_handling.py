"""Errors of a command as one message on stderr and an exit code."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from config.errors import InputError, ResourceError, is_hydra_error
from config.files import PROJECT


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turn an exception into one message on stderr and an exit code.

    An exception with an `exit_code` is expected: only its message is printed. Any other one is a bug and is printed with
    its traceback. ISOTRAIN_DEBUG=1 adds the traceback to expected ones, too.

    Raises:
        SystemExit: Replaces the exception.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its own message and exits with 1
    try:
        yield
    except (SystemExit, GeneratorExit):
        raise
    except KeyboardInterrupt:
        _exit("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader of stdout has closed it (`| head`). Without this Python would fail again while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except BaseException as error:
        expected = _expected_error(error)
        if expected is not None:
            _exit(str(expected), expected.exit_code)
        if is_hydra_error(error):
            from config.messages import explain_error

            try:
                message = explain_error(error, [word for word in sys.argv[1:] if not word.startswith("-")])
            except InputError as invalid_folders:
                message = str(invalid_folders)
            _exit(message, InputError.exit_code)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            file = f" while writing {error.filename}" if error.filename else ""
            _exit(f"no space left on the disk{file}", ResourceError.exit_code)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            _exit(f"out of memory: {error}; try a smaller data.batch_size", ResourceError.exit_code)
        if not _debug():
            traceback.print_exc()
        file = _custom_file(error)
        cause = f"the code in {file} failed" if file else "a bug in isotrain"
        _exit(f"{cause}: {type(error).__name__}: {error}", 1)


def _debug() -> bool:
    return os.environ.get("ISOTRAIN_DEBUG", "0") not in ("", "0")


def _expected_error(error: BaseException | None) -> Any:
    """The exception with an exit code that this one is, or wraps (as Hydra's `instantiate` does)."""
    while error is not None and not isinstance(getattr(error, "exit_code", None), int):
        error = error.__cause__
    return error


def _custom_file(error: BaseException) -> str:
    """The user's own file that raised an error; "" if isotrain or an installed package raised it."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    installed = (sys.prefix, sys.base_prefix, "<")
    for name in reversed(files):
        if not name.startswith(installed):
            return "" if Path(name).is_relative_to(PROJECT) else name
    return ""


def _exit(message: str, code: int) -> NoReturn:
    if _debug():
        traceback.print_exc()
    if message:
        print(f"isotrain: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
