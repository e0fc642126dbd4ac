"""How a command ends: one message on stderr, and an exit code."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from config.errors import InputError, ResourceError

PROJECT = Path(__file__).resolve().parents[2]


def debug() -> bool:
    """Whether tracebacks were asked for (ISOTRAIN_DEBUG=1)."""
    return os.environ.get("ISOTRAIN_DEBUG", "0") not in ("", "0")


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turns what ends a command into one message on stderr and an exit code.

    Anything with an `exit_code` is expected: its message is all that is printed. Anything else is a bug of ours,
    and shows where it happened. ISOTRAIN_DEBUG=1 adds the traceback to both.

    Raises:
        SystemExit: with the exit code, in place of the exception.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own account and exits 1
    try:
        yield
    except (SystemExit, GeneratorExit):
        raise
    except KeyboardInterrupt:
        _leave("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader of our stdout is gone (`| head`). Python would complain again while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except BaseException as error:
        expected = _expected(error)
        if expected is not None:
            _leave(str(expected), expected.exit_code)
        if type(error).__module__.startswith(("hydra.", "omegaconf.", "antlr4.")):
            from config.messages import explain_error

            words = [word for word in sys.argv[1:] if not word.startswith("-")]
            try:
                message = explain_error(error, words)
            except InputError as refused:  # the configuration's folders cannot be used
                message = str(refused)
            _leave(message, InputError.exit_code)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" while writing {error.filename}" if error.filename else ""
            _leave(f"no space left on the disk{where}", ResourceError.exit_code)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            _leave(f"out of memory: {error}; try a smaller data.batch_size", ResourceError.exit_code)
        if not debug():
            traceback.print_exc()
        own = _own_code(error)
        what = f"the code in {own} failed" if own else "a bug in isotrain"
        _leave(f"{what}: {type(error).__name__}: {error}", 1)


def _expected(error: BaseException | None) -> Any:
    """The exception with an exit code that this one is, or wraps (as Hydra's instantiate does)."""
    while error is not None and not isinstance(getattr(error, "exit_code", None), int):
        error = error.__cause__
    return error


def _own_code(error: BaseException) -> str:
    """The file of a user's own in which an error was raised; "" where it was raised in isotrain or below it."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    installed = (sys.prefix, sys.base_prefix, "<")
    for name in reversed(files):
        if not name.startswith(installed):
            return "" if Path(name).is_relative_to(PROJECT) else name
    return ""


def _leave(message: str, code: int) -> NoReturn:
    if debug():
        traceback.print_exc()
    if message:
        print(f"isotrain: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
