"""Forward passes: how a network is asked in validation, `evaluate`, `predict`, explanations and drift alike.

One function for each task. Batches are on the network's device; whoever calls decides about gradients and autocast.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trainers.spans import Candidates

TEXT_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids")


def span_logits(network: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Question answering: start and end logits, float32 [B, L]; minus infinity on padding.

    Args:
        network: of transformers, with a question-answering head.
        batch: `attention_mask` int64 [B, L] and the network's other inputs; what it does not take is left out.
    """
    output = network(**text_inputs(network, batch))
    padding = batch["attention_mask"] == 0
    return (
        output.start_logits.float().masked_fill(padding, -torch.inf),
        output.end_logits.float().masked_fill(padding, -torch.inf),
    )


def top_candidates(start: Tensor, end: Tensor, n_best: int) -> Candidates:
    """The `n_best` starts and ends of each window, and its "no answer" score, from `span_logits`."""
    k = min(n_best, start.shape[1])
    starts, ends = start.topk(k), end.topk(k)
    best = (starts.values, starts.indices, ends.values, ends.indices, start[:, 0] + end[:, 0])
    return Candidates(*(tensor.detach().cpu().numpy() for tensor in best))


def text_logits(network: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Text classification: logits, float32 [B, C].

    Args:
        network: of transformers, with a sequence-classification head.
        batch: `attention_mask` int64 [B, L] and the network's other inputs; what it does not take is left out.
    """
    return network(**text_inputs(network, batch)).logits.float()  # type: ignore[no-any-return]


def image_logits(network: Any, images: Tensor) -> Tensor:
    """Image classification: logits, float32 [B, C].

    Args:
        network: of timm.
        images: [B, 3, H, W], normalised.
    """
    return network(images).float()  # type: ignore[no-any-return]


def text_inputs(network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a batch's tensors that a transformers network takes. (DistilBERT, for one, has no token types.)

    All take `inputs_embeds` in the place of `input_ids`, though some among their keyword arguments only (ModernBERT).
    """
    taken = {"inputs_embeds", *_parameters(type(network).forward)}
    return {name: batch[name] for name in TEXT_INPUTS if name in batch and name in taken}


@lru_cache
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
