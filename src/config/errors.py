"""Exceptions that end a command, each with its exit code (docs/exit_codes.md)."""

import contextlib
import traceback
from collections.abc import Callable, Iterator


class InputError(Exception):
    """Invalid configuration or input. The message says what is wrong, where, and what to do."""

    exit_code = 2


class InUseError(InputError):
    """A folder that another process has locked. The message says which process, and how to wait."""


class DivergenceError(Exception):
    """A training loss that is not finite."""

    exit_code = 3


class ContractError(Exception):
    """Data that violates its contract, or a contract that could not be verified."""

    exit_code = 4


class ExplanationError(Exception):
    """A model whose explanations are no better than chance, or could not be judged."""

    exit_code = 5


class EquivalenceError(Exception):
    """A served or exported model whose answers are not those of the model that was trained."""

    exit_code = 5


class ExecutionError(Exception):
    """A search, a pipeline or a step that failed.

    Args:
        message: The message.
        exit_code: Exit code of a command that was called and failed.
    """

    def __init__(self, message: str, exit_code: int = 6) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnreachableError(Exception):
    """A cluster or server that does not answer, or not in time."""

    exit_code = 7


class ResourceError(Exception):
    """No disk space or memory left."""

    exit_code = 8


class ProcessLostError(Exception):
    """Another process of this training was killed, does not answer or never came. Starting all of them again may help.

    The code is above 127, which the training operator's `restartPolicy: ExitCode` retries.
    """

    exit_code = 138


class SignalInterrupt(BaseException):
    """A signal that ended the run, after a checkpoint was written.

    A BaseException, as KeyboardInterrupt is, so that no `except Exception` catches it.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


def exception_chain(error: BaseException | None) -> list[BaseException]:
    """Return an exception and its causes, the outermost first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def is_hydra_error(error: BaseException) -> bool:
    """Return whether an exception is of Hydra or OmegaConf, or of Python, raised by Hydra while it composes.

    `config.messages.explain_error` explains both. `optim=[2]` is a TypeError of Hydra.
    """
    if type(error).__module__.startswith(("hydra.", "omegaconf.", "antlr4.")):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    in_hydra = bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("hydra._internal.")
    return in_hydra and isinstance(error, Exception)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message; the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def input_errors(describe: Callable[[Exception], str]) -> Iterator[None]:
    """Turn the exceptions of a library that reads a user's input into an InputError; a lack of memory stays one.

    Args:
        describe: Returns the message for an exception.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(describe(error)) from error
