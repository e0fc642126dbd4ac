"""Lightning and transformers in half the time.

Lightning imports torchmetrics, which imports torchvision, transformers and scipy for metrics that nobody here computes:
half of the time from a process's start to its first step. It asks lightning_utilities whether they are there; while it
is imported, the answer is no. Likewise transformers' models import the losses of its object detectors, and those scipy
and torchvision.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What torchmetrics has optional code for, and is slow to import.
_SLOW = ("torchvision", "transformers", "scipy", "matplotlib", "timm", "pandas", "torch_fidelity", "piq", "pycocotools")


def quick() -> None:
    """Imports torchmetrics without its optional parts. Does nothing where it is imported already."""
    if "torchmetrics" not in sys.modules:
        with _absent():
            import torchmetrics  # noqa: F401


def quick_transformers() -> None:
    """Imports transformers' losses and processing without what images alone need, unless they are imported."""
    if "transformers.loss.loss_utils" in sys.modules:
        return
    from transformers import utils

    names = ("is_scipy_available", "is_torchvision_available")
    before = {name: getattr(utils, name) for name in names if hasattr(utils, name)}
    for name in before:
        setattr(utils, name, lambda: False)
    try:
        import transformers.loss.loss_utils
        import transformers.processing_utils  # noqa: F401
    finally:
        for name, function in before.items():
            setattr(utils, name, function)


@contextmanager
def _absent() -> Iterator[None]:
    from lightning_utilities.core import imports

    module: Any = imports  # its functions are replaced
    available, check = module.package_available, module.RequirementCache._check_available

    def package_available(name: str) -> bool:
        return not name.startswith(_SLOW) and bool(available(name))

    def check_available(self: Any) -> None:
        if str(self.requirement or self.module).startswith(_SLOW):
            self.available, self.message = False, "left out while torchmetrics is imported"
        else:
            check(self)

    module.package_available, module.RequirementCache._check_available = package_available, check_available
    try:
        yield
    finally:
        module.package_available, module.RequirementCache._check_available = available, check
