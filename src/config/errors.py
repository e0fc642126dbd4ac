"""What can end a command, as exceptions with an exit code.

The codes are documented once, in docs/exit_codes.md.
"""


class InputError(Exception):
    """Configuration or input that cannot be used. The message says what, where, and what to do."""

    exit_code = 2


class DivergenceError(Exception):
    """Training whose loss is no longer finite."""

    exit_code = 3


class ContractError(Exception):
    """Data that is not what its contract says, or a contract that could not be verified."""

    exit_code = 4


class ExplanationError(Exception):
    """A model whose explanations are no better than chance, or could not be judged."""

    exit_code = 5


class ExecutionError(Exception):
    """A search, a pipeline or one of its steps that ended failed.

    Args:
        message: for people.
        exit_code: of a command that it called and that failed, where there is one.
    """

    def __init__(self, message: str, exit_code: int = 6) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnreachableError(Exception):
    """A cluster or server that does not answer, or not in time."""

    exit_code = 7


class ResourceError(Exception):
    """No disk or memory left."""

    exit_code = 8


class SignalInterrupt(BaseException):
    """A signal ended the run; its checkpoint is written.

    A BaseException, as KeyboardInterrupt is, so that no `except Exception` on the way keeps the process alive.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
