"""Jobs of a Hydra sweep (`train.py -m`): one that fails does not end the others."""

import contextlib
from collections.abc import Iterator

from config.errors import ExecutionError

_STOP_CODES = (130, 143)  # exit codes after which no further job starts: Ctrl-C and SIGTERM
_failures: list[str] = []  # of this process


class SweepError(ExecutionError):
    """Jobs of a sweep failed. Hydra raises the error of the first one after the last job; the message has all."""

    def __str__(self) -> str:
        return f"jobs of the sweep failed, whose messages are above: {'; '.join(_failures or map(str, self.args))}"


@contextlib.contextmanager
def continue_sweep() -> Iterator[None]:
    """In a sweep, turn the exit of a failed job into an exception, after which Hydra starts the next job.

    Raises:
        SweepError: The block ended with an exit code, unless it was interrupted or is the only job.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    try:
        yield
    except SystemExit as end:
        config = HydraConfig.get()
        if config.mode != RunMode.MULTIRUN or not end.code or end.code in _STOP_CODES:
            raise
        settings = " ".join(config.overrides.task) or "no overrides"
        _failures.append(f"#{config.job.num} ({settings}) with exit code {end.code}")
        raise SweepError(_failures[-1]) from end
