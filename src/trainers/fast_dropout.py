"""Dropout, and attention with dropout, that are fast on CPUs.

On a CPU, torch draws dropout's random numbers one after another from a Mersenne twister, and scaled-dot-product attention
with dropout falls back to separate steps. Together they can cost more than all matrix products. Here the numbers come
from numpy's SFC64, 16 bits for each element, and one pass compares and drops. The distribution is the same: each element
is dropped independently with probability p (to within 1/131072), and the others are scaled so that the expectation is
exact.

Each call draws one key from torch's CPU generator, so that `torch.manual_seed`, a restored generator state and activation
checkpointing reproduce its masks; they do not depend on the number of threads. On other devices, in compiled code, in
eval mode and for p = 0 torch's own kernels run, except for attention where SDPA's kernel is slower (`_flash_is_slow`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.hardware import cpu_flags

# Name of `attention` in transformers' registry.
ATTENTION_NAME = "isotrain_dropout"
# 16 random bits for each element.
NOISE_LEVELS = 1 << 16
# Words of 64 bits from one stream: enough to amortise its seeding, few enough to divide among threads.
STREAM_WORDS = 1 << 17


def enable(model: nn.Module) -> None:
    """Replace dropout and attention of a model by those of this module, which apply on CPUs.

    Every `nn.Dropout` becomes a `Dropout`, and transformers models with plain SDPA use `attention`. Weights, their names
    and the model's saved configuration are unchanged. Calling it twice is harmless.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                fast = Dropout(child.p, child.inplace)
                fast.train(child.training)
                setattr(parent, name, fast)
    if getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa":
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(ATTENTION_NAME, attention)
        AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
        model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]


class Dropout(nn.Dropout):
    """`nn.Dropout` with a fast mask on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements at random in training."""
        if not (self.training and _applies(input, self.p)):
            return super().forward(input)
        noise, threshold, scale = draw_noise(input.shape, self.p, input.dtype)
        mask = _apply_threshold(torch.full((), scale, dtype=input.dtype).expand(input.shape), noise, threshold, noise)
        return input.mul_(mask) if self.inplace else input * mask


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers: fast with dropout on CPUs, otherwise the library's SDPA.

    Args:
        module: the attention layer.
        query: [B, H, Q, D].
        key: [B, H, K, D].
        value: [B, H, K, D].
        attention_mask: bool [B, 1, Q, K], True for keys that a query attends to; or an additive mask; or None.
        dropout: probability; 0 in eval mode.
        scaling: scale of the scores; None for D**-0.5.
        is_causal: as in SDPA.
        kwargs: further arguments of the model.

    Returns:
        [B, Q, H, D], and None for the weights.
    """
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    plain = (
        (attention_mask is not None or not causal or query.shape[2] == 1)
        and query.dtype == key.dtype == value.dtype
        and query.shape[1] == key.shape[1]
        and not any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap", "s_aux"))
    )
    drops = dropout > 0 and _applies(query, dropout)
    slow = dropout == 0 and _flash_is_slow(query)
    if not (plain and (drops or slow)):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return out, None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return Attention.apply(query, key, value, _additive(attention_mask, query.dtype), scale, dropout), None


class Attention(torch.autograd.Function):
    """Compute dropout(softmax(Q K^T scale + bias)) V in the dtype of its inputs, in few passes over [B, H, Q, K].

    With P the probabilities, M the mask over 1 - p, and dO the gradient, the softmax's gradient is
    P * (M * dO V^T - rowsum(dO * O)): the row sums need no pass over [Q, K] (FlashAttention, Dao et al. 2022,
    section 3.1).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, p: float
    ) -> Tensor:
        batch, heads, length, _ = query.shape
        with torch.autocast("cpu", enabled=False):
            q, k, v = (_rows(x) for x in (query, key, value))
            q = q * scale
            rescale = 1.0
            if p:
                noise, threshold, rescale = draw_noise((q.shape[0], length, k.shape[1]), p, q.dtype)
                v = v * rescale
            scores = torch.bmm(q, k.transpose(1, 2))
            if bias is not None:
                scores.view(batch, heads, length, -1).add_(bias)
            weights = torch.softmax(scores, -1)
            # In place: `scores` is no longer needed.
            dropped = _apply_threshold(weights, noise, threshold, scores) if p else weights
            out = torch.bmm(dropped, v)
        ctx.save_for_backward(q, k, v, weights, dropped, out)
        ctx.scale, ctx.rescale = scale, rescale
        return out.view(batch, heads, length, -1).transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, dropped, out = ctx.saved_tensors
        batch, _, heads, _ = grad.shape
        with torch.autocast("cpu", enabled=False):
            grad = _rows(grad.transpose(1, 2))
            row = (grad * out).sum(-1, keepdim=True)
            scores = torch.bmm(grad, v.transpose(1, 2))
            scores.mul_(dropped).addcmul_(weights, row, value=-1)
            grads = (
                torch.bmm(scores, k).mul_(ctx.scale),
                torch.bmm(scores.transpose(1, 2), q),
                torch.bmm(dropped.transpose(1, 2), grad).mul_(ctx.rescale),
            )
        return *(x.view(batch, heads, x.shape[1], -1) for x in grads), None, None, None


def draw_noise(shape: Sequence[int], p: float, dtype: torch.dtype) -> tuple[Tensor, float, float]:
    """Draw noise for a dropout mask.

    Args:
        shape: shape of the noise.
        p: probability to drop, above 0 and below 1.
        dtype: floating dtype of the noise.

    Returns:
        The noise; the threshold at or below which an element is dropped; and the scale of the others.
        noise <= threshold has probability round(p * 65536) / 65536; the scale is 1 / (1 - that probability).
    """
    count = min(max(round(p * NOISE_LEVELS), 1), NOISE_LEVELS - 1)
    scale = NOISE_LEVELS / (NOISE_LEVELS - count)
    bits = _random(math.prod(shape)).view(tuple(shape))
    if dtype is torch.bfloat16 and (threshold := _bfloat16_threshold(count)) is not None:
        return bits.view(torch.bfloat16), threshold, scale
    if dtype in (torch.bfloat16, torch.float16):
        # Neither represents all 16-bit integers: compare here.
        return (bits >= count - NOISE_LEVELS // 2).to(dtype), 0.5, scale
    return bits.to(dtype), count - NOISE_LEVELS // 2 - 1.0, scale


def _random(count: int) -> Tensor:
    """Return [count] uniform int16. Each block has its own stream, so that the result does not depend on threads."""
    # numpy seeds from non-negative integers.
    key = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
    words = -(-count // 4)
    out = torch.empty(words, dtype=torch.int64)
    array = out.numpy().view(np.uint64)

    def fill(block: int) -> None:
        part = array[block * STREAM_WORDS : (block + 1) * STREAM_WORDS]
        stream = np.random.Generator(np.random.SFC64([key, block]))
        part[:] = stream.integers(0, 2**64 - 1, size=len(part), dtype=np.uint64, endpoint=True)

    blocks = range(-(-words // STREAM_WORDS))
    if len(blocks) > 1 and torch.get_num_threads() > 1:
        list(_pool(torch.get_num_threads()).map(fill, blocks))
    else:
        for block in blocks:
            fill(block)
    return out.view(torch.int16)[:count]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dropout")


@functools.cache
def _bfloat16_threshold(count: int) -> float | None:
    """Return the bfloat16 at or below which exactly `count` of the 65,536 bit patterns lie.

    With it random bits are noise without a conversion. None if there is no such normal number: NaNs compare as false, the
    zeros as equal, and denormals may be flushed.
    """
    patterns = torch.arange(-NOISE_LEVELS // 2, NOISE_LEVELS // 2).to(torch.int16).view(torch.bfloat16).double()
    ordered = patterns[~patterns.isnan()].sort().values
    if count > len(ordered):
        return None
    threshold = ordered[count - 1].item()
    exact = int((ordered <= threshold).sum()) == count
    return threshold if exact and abs(threshold) >= torch.finfo(torch.bfloat16).tiny else None


def _apply_threshold(x: Tensor, noise: Tensor, threshold: float, out: Tensor) -> Tensor:
    """Return `x` where noise > threshold, else 0, in one vectorised pass; torch.where is far slower.

    Elements whose noise is NaN are not dropped, as `_bfloat16_threshold` assumes.
    """
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(x, noise, threshold, grad_input=out)
    return result


def _applies(x: Tensor, p: float) -> bool:
    return 0 < p < 1 and x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()


def _flash_is_slow(x: Tensor) -> bool:
    """Whether SDPA's own kernel takes longer than separate products on this CPU.

    Its tiles are small: with oneDNN's float32 products (`hardware.enable_onednn_float32`) it is 5 times slower. In
    bfloat16 without AMX, its backward pass takes 3 times as long.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if x.dtype is torch.float32:
        return bool(torch.backends.mkldnn.matmul.fp32_precision == "bf16")  # type: ignore[attr-defined]
    return x.dtype is torch.bfloat16 and x.requires_grad and "amx_bf16" not in cpu_flags()


def _rows(x: Tensor) -> Tensor:
    """Reshape [B, H, L, D] to contiguous [B*H, L, D]."""
    return x.reshape(-1, *x.shape[2:]).contiguous()


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Convert a mask to one that is added to the scores. A mask of padding only has one row for all queries."""
    if mask is None:
        return None
    if mask.shape[2] > 1 and mask.stride(2) == 0:
        mask = mask[:, :, :1]
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
