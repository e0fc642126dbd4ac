"""Gradients of strided convolutions of one pixel."""

import copy

import pytest
import torch
from torch import nn

from trainers.pointwise_maps import guard_strides


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_in_bfloat16_are_those_of_float32(kernel: int, size: int) -> None:
    """oneDNN leaves what the memory had before in the taps outside of a pixel; it is dirty here."""
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 96, kernel, stride=2, padding=kernel // 2, bias=False).to(memory_format=torch.channels_last)
    images = torch.rand(8, 64, size, size).contiguous(memory_format=torch.channels_last)
    exact = copy.deepcopy(conv)
    expected = exact(images)
    expected.square().sum().backward()
    network = nn.Sequential(conv)
    guard_strides(network)
    for _ in range(5):
        dirty = [torch.full((count,), 3e13) for count in (1000, 20_000, conv.weight.numel(), 2 * conv.weight.numel())]
        del dirty
        conv.weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(images)
        assert output.shape == expected.shape
        output.float().square().sum().backward()
        torch.testing.assert_close(conv.weight.grad, exact.weight.grad, rtol=0.05, atol=0.05 * float(exact.weight.grad.abs().max()))  # fmt: skip
    with torch.no_grad():
        assert torch.equal(conv(images), exact(images))  # float32 keeps its stride
    assert conv.stride == (2, 2)
