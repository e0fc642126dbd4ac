"""Networks whose weights and arithmetic are bfloat16, without autocast."""

from typing import Any

import torch

PRECISION = "bf16-true"  # of a saved model, as trainer.precision


def convert(network: Any) -> None:
    """Convert a network's weights to bfloat16, and its floating-point inputs before each forward pass.

    Args:
        network: a network of torch, changed in place. Calling it twice is harmless.
    """
    network.to(torch.bfloat16)
    network.register_forward_pre_hook(_convert_inputs, with_kwargs=True)


def _convert_inputs(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_converted, args)), {name: _converted(value) for name, value in kwargs.items()}


def _converted(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
