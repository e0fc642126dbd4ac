"""A ResNet's first convolution for 64-pixel images, and the same network in timm's own shape.

timm's ResNets begin with a 7x7 convolution of stride 2, made for 224 pixels. The small stem is a 3x3 convolution
without stride (the pooling after it stays), so that a 64-pixel image keeps twice the resolution.

A 7x7 convolution of stride 2 over an image enlarged twice by repeating pixels sees, at output i, the pixels
i-2, i-1, i-1, i, i, i+1, i+1 along each axis. So a 3x3 kernel over the small image is exactly a 7x7 kernel over the
enlarged one whose taps are zero but for one of each pair. That is how a small stem is exported: as timm's own
ResNet with an input of twice the size and nearest-neighbour interpolation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from config.errors import InputError

# Of the seven taps, those that stand for the pixels i-1, i and i+1.
_TAPS = torch.tensor([2, 4, 6])


def use_small_stem(model: nn.Module) -> None:
    """Replaces a ResNet's 7x7 convolution by a 3x3 one, in place.

    Weights are the folded ones of the 7x7: taps on the same pixel added, those on i-2 left out, so that pretrained
    weights see about what they would on the enlarged image.

    Raises:
        InputError: the model does not begin with such a convolution.
    """
    first = getattr(model, "conv1", None)
    if not isinstance(first, nn.Conv2d) or first.kernel_size != (7, 7) or first.stride != (2, 2):
        raise InputError("model.stem=small is for timm's ResNets with a 7x7 first convolution; use model.stem=standard")
    small = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    with torch.no_grad():
        small.weight.copy_(_fold(_fold(first.weight, 2), 3))
    model.conv1 = small


def enlarge_stem(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a network with a small stem as the state of timm's own, for inputs of twice the size."""
    small = state["conv1.weight"]
    full = small.new_zeros(*small.shape[:2], 7, 7)
    full[:, :, _TAPS[:, None], _TAPS] = small
    return {**state, "conv1.weight": full}


def has_small_stem(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of a network with a small stem, exported for images of twice the size."""
    return (config.get("pretrained_cfg") or {}).get("interpolation") == "nearest"


def _fold(weight: torch.Tensor, axis: int) -> torch.Tensor:
    pairs = [(1, 2), (3, 4), (5, 6)]
    return torch.stack([weight.select(axis, a) + weight.select(axis, b) for a, b in pairs], dim=axis)
