"""A ResNet's first convolution for 64-pixel images, and its export as timm's own architecture.

timm's ResNets begin with a 7x7 convolution of stride 2, made for 224 pixels. The small stem is a 3x3 convolution
without stride (the pooling after it is unchanged), so that a 64-pixel image has twice the resolution inside.

A 7x7 convolution of stride 2 over an image enlarged twice by repeating pixels covers, at output i, the pixels
i-2, i-1, i-1, i, i, i+1, i+1 along each axis. A 3x3 kernel over the small image is therefore exactly a 7x7 kernel over
the enlarged one that has zeros in all taps but one of each pair. A small stem is exported that way: as timm's own ResNet
with an input of twice the size and nearest-neighbour interpolation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from config.errors import InputError

# The taps, of seven, for the pixels i-1, i and i+1.
_TAPS = torch.tensor([2, 4, 6])


def use_small_stem(model: nn.Module) -> None:
    """Replace a ResNet's 7x7 convolution by a 3x3 one, in place.

    Its weights are those of the 7x7 one, folded: taps on the same pixel are added, those on i-2 dropped, so that
    pretrained weights work about as they would on the enlarged image.

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
    """Convert the state of a network with a small stem to that of timm's network for inputs of twice the size."""
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
