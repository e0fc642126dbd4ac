"""SIGTERM and Ctrl-C: finish the step, write a checkpoint, leave."""

import signal
from types import FrameType
from typing import Any

import torch

from config.errors import SignalInterrupt
from trainers import distributed

# How many steps several processes go between two agreements about leaving.
_AGREE_EVERY = 8


class Signals:
    """Remembers a signal until training can act on it; outside training, acts at once.

    Attributes:
        received: the signal's number, or 0.
        training: whether signals wait for the next step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.training = False
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        """Takes SIGTERM and SIGINT. Called again once Lightning has put in handlers of its own."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before.setdefault(number, signal.getsignal(number))
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Puts back the handlers that were there."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.training and not self.received:
            self.received = number
            return
        raise SignalInterrupt(number, "interrupted")

    def agreed(self, step: int | None, device: torch.device) -> int:
        """The signal, once every process knows of it; 0 otherwise. A collective when there are several processes.

        Args:
            step: the optimiser step, or None where all processes agree in any case.
            device: where the processes' collectives run.
        """
        if not torch.distributed.is_initialized():
            return self.received
        if step is not None and step % _AGREE_EVERY:
            return 0
        if distributed.any_rank(bool(self.received), device):
            self.received = max(distributed.gather(self.received))
            return self.received
        return 0
