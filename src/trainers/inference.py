"""Forward passes, one function for each task: validation, `evaluate`, `predict`, explanations and drift call them.

Batches are on the network's device; the caller decides about gradients and autocast.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from config.errors import InputError
from trainers.spans import Candidates

TEXT_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids")
# Types of models that compare the token types of two positions, and have no embedding of them.
RELATIVE_TYPES = ("funnel", "xlnet")


def span_logits(network: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return start and end logits for question answering, float32 [B, L]; minus infinity on padding.

    Args:
        network: a transformers model with a question-answering head, or a network that returns start and end logits.
        batch: `attention_mask` int64 [B, L], unless there is no padding, and the network's other inputs; other entries
            are ignored.
    """
    output = network(**text_inputs(network, batch))
    start, end = output if isinstance(output, tuple | list) else (output.start_logits, output.end_logits)
    if "attention_mask" not in batch:
        return start.float(), end.float()
    padding = batch["attention_mask"] == 0
    return start.float().masked_fill(padding, -torch.inf), end.float().masked_fill(padding, -torch.inf)


def top_candidates(start: Tensor, end: Tensor, n_best: int) -> Candidates:
    """Return the `n_best` starts and ends of each window, and its "no answer" score, from `span_logits`."""
    k = min(n_best, start.shape[1])
    starts, ends = start.topk(k), end.topk(k)
    fields = (starts.values, starts.indices, ends.values, ends.indices, start[:, 0] + end[:, 0])
    return Candidates(*(tensor.detach().cpu().numpy() for tensor in fields))


def text_logits(network: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return logits for text classification, float32 [B, C].

    Args:
        network: a transformers model with a sequence-classification head, or a network that returns logits.
        batch: `attention_mask` int64 [B, L], unless there is no padding, and the network's other inputs; other entries
            are ignored.
    """
    output = network(**text_inputs(network, batch))
    return (output if isinstance(output, Tensor) else output.logits).float()  # type: ignore[no-any-return]


def image_logits(network: Any, images: Tensor) -> Tensor:
    """Return logits for image classification, float32 [B, C].

    Args:
        network: a timm model, or another that returns logits.
        images: [B, 3, H, W], normalised.
    """
    return network(images).float()  # type: ignore[no-any-return]


def text_inputs(network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a batch that a network takes.

    All of transformers take `inputs_embeds` instead of `input_ids`, some of them as a keyword argument without a name (ModernBERT).
    """
    names = {"inputs_embeds", *_parameters(type(network).forward)}
    if not takes_token_types(network):
        names.discard("token_type_ids")
    return {name: batch[name] for name in TEXT_INPUTS if name in batch and name in names}


def takes_token_types(network: Any) -> bool:
    """Whether a network distinguishes token types; one that is not of transformers does if its `forward` takes them.

    Those with an embedding of one type only (RoBERTa's checkpoints) or of none (DeBERTa's) do not. Others without such an
    embedding take the ids for those of tokens (GPT-2, XLM) or of images (Gemma 3).
    """
    if "token_type_ids" not in _parameters(type(network).forward):
        return False
    config: Any = getattr(network, "config", None)
    if not hasattr(config, "model_type"):
        return True
    return config.model_type in RELATIVE_TYPES or (getattr(config, "type_vocab_size", None) or 0) > 1


def check_token_types(network: Any, type_count: int) -> None:
    """Check that a network which distinguishes token types has all that a tokenizer returns.

    Args:
        network: a transformers network.
        type_count: number of token types in the tokenizer's format of a pair.

    Raises:
        InputError: it has fewer.
    """
    size = getattr(getattr(network, "config", None), "type_vocab_size", None) or 0
    if takes_token_types(network) and size and type_count > size:
        raise InputError(
            f"the tokenizer distinguishes {type_count} token types (segments), the model has type_vocab_size={size}: "
            "use the model's own tokenizer"
        )


def declare_inputs(tokenizer: Any, network: Any, type_count: int) -> None:
    """Make a transformers tokenizer return by default what validation passes to a network, for export.

    Args:
        tokenizer: a tokenizer, changed in place.
        network: a transformers network.
        type_count: number of token types in the tokenizer's format of a pair.
    """
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    if type_count > 1 and takes_token_types(network):
        names.insert(1, "token_type_ids")
    if set(names) != set(tokenizer.model_input_names):
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


@lru_cache
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
