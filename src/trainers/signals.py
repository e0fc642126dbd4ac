"""SIGTERM and Ctrl-C: finish the step, write a checkpoint, exit."""

import signal
from types import FrameType
from typing import Any

import torch

from config.errors import SignalInterrupt
from trainers import distributed

_AGREEMENT_STEPS = 8  # optimiser steps between two agreements of several processes


class Signals:
    """Signal handlers that defer a signal to the end of a training step, and raise at once outside training.

    Attributes:
        received: the signal's number, or 0.
        training: whether signals are deferred to the end of the step.
    """

    def __init__(self) -> None:
        """Start without handlers."""
        self.received = 0
        self.training = False
        self._previous_handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Handle SIGTERM and SIGINT. May be called again after Lightning has installed its handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous_handlers.setdefault(number, signal.getsignal(number))
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.training and not self.received:
            self.received = number
            return
        raise SignalInterrupt(number, "interrupted")

    def agreed(self, step: int | None, device: torch.device) -> int:
        """Return the signal once all processes agree on it, else 0. A collective if there are several processes.

        Args:
            step: the optimiser step; None to agree regardless of the step.
            device: device of the processes' collectives.
        """
        if not torch.distributed.is_initialized():
            return self.received
        if step is not None and step % _AGREEMENT_STEPS:
            return 0
        if distributed.any_rank(bool(self.received), device):
            self.received = max(distributed.gather(self.received))
            return self.received
        return 0
