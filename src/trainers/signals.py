"""SIGTERM and Ctrl-C during training: finish the step, write a checkpoint, exit."""

import signal
from typing import Any

import torch

from config import interrupts
from trainers import distributed

_AGREEMENT_STEPS = 8  # optimiser steps between two agreements of several processes


class Signals:
    """Signals that wait for the end of a training step, and raise at once outside training."""

    def __init__(self) -> None:
        """Use the handlers of this process."""
        self._interrupts = interrupts.current()
        self._previous_handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Handle SIGTERM and SIGINT. May be called again after Lightning has installed its handlers."""
        for number in interrupts.SIGNALS:
            self._previous_handlers.setdefault(number, signal.getsignal(number))
            signal.signal(number, self._interrupts.handle)

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def begin_training(self) -> None:
        """Defer signals to the end of the step from now on."""
        self._interrupts.deferred = True

    def stop_deferring(self) -> None:
        """Raise signals at once from now on."""
        self._interrupts.deferred = False

    def end_training(self) -> None:
        """Raise a signal that came after the last step.

        Raises:
            SignalInterrupt: there is one.
        """
        self._interrupts.end_deferral()

    def agreed(self, step: int | None, device: torch.device) -> int:
        """Return the signal once all processes agree on it, else 0. A collective if there are several processes.

        Args:
            step: the optimiser step; None to agree regardless of the step.
            device: device of the processes' collectives.
        """
        received = self._interrupts.received
        if not torch.distributed.is_initialized():
            return received
        if step is not None and step % _AGREEMENT_STEPS:
            return 0
        if distributed.any_rank(bool(received), device):
            return max(distributed.gather(received))
        return 0
