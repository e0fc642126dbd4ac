"""Errors of a command as one message on stderr and an exit code."""

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from config import output_paths, search_path
from config.errors import InputError, first_line, is_hydra_error
from config.files import PROJECT
from config.masking import MaskedStream, register_command, register_environment
from config.system_errors import to_expected_error
from config.terminal import fold

_INSTALLED = (sys.prefix, sys.base_prefix, "<")  # packages and frozen modules


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turn an exception into one message on stderr and an exit code, and mask secrets in all that is printed.

    An exception with an `exit_code` is expected: only its message is printed. Any other one is a bug and is printed with
    its traceback. ISOTRAIN_DEBUG=1 adds the traceback to expected ones, too.

    Raises:
        SystemExit: Replaces the exception.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its own message and exits with 1
    with masked_output(), _exit_codes():
        output_paths.refuse_hydra_urls(sys.argv[1:])  # before Hydra makes a folder of that name
        search_path.adopt(sys.argv[1:])
        yield


@contextlib.contextmanager
def masked_output() -> Iterator[None]:
    """Mask secrets in all that Python prints: those of the command line and the environment, and what is registered."""
    register_environment()
    register_command(sys.orig_argv)
    stdout, stderr = sys.stdout, sys.stderr
    if isinstance(stdout, MaskedStream):
        yield
        return
    sys.stdout, sys.stderr = MaskedStream(stdout), MaskedStream(stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        try:
            yield
        except SystemExit as request:
            if request.code in (None, 0):
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # at exit, Python would end with 120 where it cannot
    except (SystemExit, GeneratorExit):
        raise
    except KeyboardInterrupt:
        _exit("interrupted", 128 + signal.SIGINT)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and (error.errno is None or _is_stdout_closed()):
            _discard(sys.stdout)
            sys.exit(0)
        expected: Any = explain_input_error(to_expected_error(error))
        if isinstance(getattr(expected, "exit_code", None), int):
            _exit(str(expected), expected.exit_code)
        if not _debug():
            with contextlib.suppress(OSError):
                traceback.print_exc()
        file = _custom_file(error)
        cause = f"the code in {file} failed" if file else "a bug in isotrain"
        _exit(f"{cause}: {type(error).__name__}: {error}", 1)


def explain_input_error(error: BaseException) -> BaseException:
    """Return an error of Hydra as an InputError with a message for people; other errors as they are."""
    if isinstance(getattr(error, "exit_code", None), int) or not is_hydra_error(error):
        return error
    from config.messages import explain_error

    try:
        explanation = InputError(explain_error(error, [word for word in sys.argv[1:] if not word.startswith("-")]))
    except InputError as invalid_folders:
        explanation = invalid_folders
    explanation.__cause__ = error
    return explanation


@contextlib.contextmanager
def library_errors(description: str) -> Iterator[None]:
    """Turn an exception that an installed package raises on a user's files into an InputError.

    An exception that isotrain's own code raises stays a bug, and one that has an exit code keeps it.

    Args:
        description: What cannot be used, and why perhaps: `the model a cannot be used; are its files damaged?`
    """
    try:
        yield
    except Exception as error:
        if _is_expected(error) or is_hydra_error(error):
            raise
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(_INSTALLED):
            raise
        raise InputError(f"{description} ({type(error).__name__}: {first_line(error)})") from error


def _is_expected(error: BaseException) -> bool:
    """Whether an exception has an exit code, or stands for one that has."""
    return isinstance(getattr(to_expected_error(error), "exit_code", None), int)


def _debug() -> bool:
    return os.environ.get("ISOTRAIN_DEBUG", "0") not in ("", "0")


def _is_stdout_closed() -> bool:
    """Whether the reader of stdout has closed it (`| head`), rather than that of another pipe or socket."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


def _discard(stream: TextIO) -> None:
    """Send what a stream that failed still holds nowhere: Python would fail again at exit, with an exit code of its own."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _custom_file(error: BaseException) -> str:
    """The user's own file that raised an error; "" if isotrain or an installed package raised it."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    for name in reversed(files):
        if not name.startswith(_INSTALLED):
            return "" if Path(name).is_relative_to(PROJECT) else name
    return ""


def _exit(message: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard(sys.stdout)
    try:
        if _debug():
            traceback.print_exc()
        if message:
            print(fold(f"isotrain: {message}", sys.stderr), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)
    sys.exit(code)
