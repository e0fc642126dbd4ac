"""An AdamW that says when it has made its first step, and ends the process: for `benchmarks.startup`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch


class FirstStep(torch.optim.AdamW):
    """`optim.optimizer._target_=benchmarks.first_step.FirstStep`."""

    def step(self, closure: Any = None) -> None:
        """Steps, prints the time, and leaves."""
        super().step(closure)
        sys.stdout.write(f"\nfirst_step={time.time()}\n")
        sys.stdout.flush()
        os._exit(0)
