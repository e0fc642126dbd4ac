"""A ResNet's first convolution for 64-pixel images, and its export as timm's own architecture.

timm's ResNets begin with a 7x7 convolution of stride 2, made for 224 pixels. The small stem is a 3x3 convolution
without stride (the pooling after it is unchanged), so that a 64-pixel image has twice the resolution inside.

A 7x7 convolution of stride 2 over an image enlarged twice by repeating pixels covers, at output i, the pixels
i-2, i-1, i-1, i, i, i+1, i+1 along each axis. A 3x3 kernel over the small image is therefore exactly a 7x7 kernel over
the enlarged one that has half of each weight, along each axis, on both taps of a pair. A small stem is exported that
way: as timm's own ResNet with an input of twice the size and the filter "box".

Pillow's box filter repeats the pixels of an image of the training size, so that timm's predictions are the same. Of
another size, it averages pixels, and the pairs of taps average again: the network sees what the box filter makes of the
image at the training size. Training used another filter (bicubic, unless configured), which no transform of timm's
applies before it enlarges an image: there, timm's predictions are close, not equal.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from config import networks
from config.errors import InputError

_PAIRS = [(1, 2), (3, 4), (5, 6)]  # taps, of seven, for the pixels i-1, i and i+1


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
    full[:, :, 1:, 1:] = small.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    return {**state, "conv1.weight": full}


def has_small_stem(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of a network with a small stem, exported for images of twice the size.

    Exports of earlier versions are recognised by the filter "nearest", which no model of timm's has.
    """
    if networks.is_exported(config):  # of any architecture
        return False
    return "small_stem" in config or (config.get("pretrained_cfg") or {}).get("interpolation") == "nearest"


def _fold(weight: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.stack([weight.select(axis, a) + weight.select(axis, b) for a, b in _PAIRS], dim=axis)
