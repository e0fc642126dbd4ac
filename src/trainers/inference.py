"""Forward passes, one function for each task: validation, `evaluate`, `predict`, explanations and drift call them.

Batches are on the network's device; the caller decides about gradients and autocast.
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
    """Return start and end logits for question answering, float32 [B, L]; minus infinity on padding.

    Args:
        network: a transformers model with a question-answering head.
        batch: `attention_mask` int64 [B, L] and the network's other inputs; other entries are ignored.
    """
    output = network(**text_inputs(network, batch))
    padding = batch["attention_mask"] == 0
    return (
        output.start_logits.float().masked_fill(padding, -torch.inf),
        output.end_logits.float().masked_fill(padding, -torch.inf),
    )


def top_candidates(start: Tensor, end: Tensor, n_best: int) -> Candidates:
    """Return the `n_best` starts and ends of each window, and its "no answer" score, from `span_logits`."""
    k = min(n_best, start.shape[1])
    starts, ends = start.topk(k), end.topk(k)
    fields = (starts.values, starts.indices, ends.values, ends.indices, start[:, 0] + end[:, 0])
    return Candidates(*(tensor.detach().cpu().numpy() for tensor in fields))


def text_logits(network: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return logits for text classification, float32 [B, C].

    Args:
        network: a transformers model with a sequence-classification head.
        batch: `attention_mask` int64 [B, L] and the network's other inputs; other entries are ignored.
    """
    return network(**text_inputs(network, batch)).logits.float()  # type: ignore[no-any-return]


def image_logits(network: Any, images: Tensor) -> Tensor:
    """Return logits for image classification, float32 [B, C].

    Args:
        network: a timm model.
        images: [B, 3, H, W], normalised.
    """
    return network(images).float()  # type: ignore[no-any-return]


def text_inputs(network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a batch that a transformers network takes. (DistilBERT takes no token types.)

    All take `inputs_embeds` instead of `input_ids`, some of them as a keyword argument without a name (ModernBERT).
    """
    names = {"inputs_embeds", *_parameters(type(network).forward)}
    return {name: batch[name] for name in TEXT_INPUTS if name in batch and name in names}


@lru_cache
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
