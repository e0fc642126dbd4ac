"""Strided convolutions of maps that have shrunk to one pixel."""

import functools

import torch
from torch import Tensor, nn


def guard_strides(network: nn.Module) -> None:
    """Let convolutions in bfloat16 take an input of one pixel without a stride, which cannot matter there.

    oneDNN's backward pass of a strided convolution of such an input, in bfloat16 with channels last, leaves what the memory
    had before in those gradients of the weights that are zero, because the weights meet padding only (seen with PyTorch
    2.14.1 on a CPU with AMX). Clipping then makes the step zero. With half the kernel as padding, the output has one pixel
    with any stride.

    Args:
        network: the network, whose `nn.Conv2d` get a hook.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1) and _keeps_one_pixel(module):
            module.register_forward_pre_hook(functools.partial(_select_stride, stride=module.stride))


def _select_stride(conv: nn.Conv2d, inputs: tuple[Tensor, ...], stride: tuple[int, ...]) -> None:
    images, selected = inputs[0], stride
    if images.shape[-2:] == (1, 1) and images.device.type == "cpu":
        is_half = images.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        selected = (1, 1) if is_half else stride
    if conv.stride != selected:  # an assignment of the same value would break the graph of torch.compile
        conv.stride = selected


def _keeps_one_pixel(conv: nn.Conv2d) -> bool:
    """Whether a convolution of one pixel has an output of one pixel without a stride, too."""
    if isinstance(conv.padding, str):
        return False
    return all(
        2 * padding == dilation * (kernel - 1)
        for padding, dilation, kernel in zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
    )
