"""Attention masks of padded batches, made without waiting for a GPU.

transformers reads each mask back from the device, to leave it out if no token is padding: the host waits at every forward
pass, and the device then waits for the host. Here the host looks at the mask before it is copied: a batch without padding
has none, so that attention uses its fastest kernels, and every other mask is used as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainers.hardware import avoid_plans_for_widths

# Name of the attention function in transformers' registry.
ATTENTION_NAME = "isotrain_padding"


def enable(model: nn.Module) -> None:
    """Make a transformers model with plain SDPA use masks as they are. Weights and the saved configuration are unchanged."""
    if getattr(getattr(model, "config", None), "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(ATTENTION_NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(ATTENTION_NAME, make_mask)
    model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
    avoid_plans_for_widths()


def is_enabled(model: Any) -> bool:
    """Whether `enable` changed a model."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None) == ATTENTION_NAME


def make_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Make the mask of an attention layer as transformers' `sdpa_mask` does, but without reading `attention_mask` back.

    Args:
        args: of `sdpa_mask`.
        attention_mask: bool [B, K], False for padding; None if there is none.
        kwargs: of `sdpa_mask`.

    Returns:
        Bool [B, 1, Q, K], True for keys that a query attends to, at least one for each query; None: all.
    """
    from transformers.masking_utils import sdpa_mask

    if attention_mask is not None:
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    if mask is None or mask.dtype != torch.bool or mask.stride(2) == 0:  # one row for all queries
        return mask
    # With local attention, padding far from all tokens attends to nothing, and its gradient would be NaN on a GPU. What it
    # attends to has no effect: nothing attends to it.
    return mask | ~mask.any(-1, keepdim=True)


def remove_full_mask(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch without `attention_mask` if no token of it is padding.

    Args:
        model: the network, which is changed by `enable` or gets its batches unchanged.
        batch: on the CPU, with `attention_mask` [B, L].
    """
    if not is_enabled(model) or not bool(torch.all(batch["attention_mask"])):
        return batch
    return {name: tensor for name, tensor in batch.items() if name != "attention_mask"}
