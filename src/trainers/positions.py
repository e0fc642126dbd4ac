"""The longest input that a transformers model takes, and windows that fit it."""

import copy
from typing import Any

import torch

from config.errors import InputError
from datamodules.text.windows import Limits
from trainers.onnx_network import is_onnx_network

# Names of tables with a row for each position.
_TABLES = ("position_embeddings", "char_position_embeddings", "embed_positions", "wpe")


def longest_input(network: Any) -> int | None:
    """Return the maximum number of tokens of a transformers model; None if it has no table of positions, or is another one.

    Models like RoBERTa number the tokens from the id of the padding token + 1, so that the first rows are not used.

    Args:
        network: the model; its weights may be on the meta device.
    """
    if is_onnx_network(network):
        return int(network.longest_input) if network.longest_input is not None else None
    config: Any = getattr(network, "config", None)
    if not hasattr(config, "model_type"):
        return None
    declared = getattr(config, "max_position_embeddings", None)
    limits = [config.max_seq_len] if config.model_type == "mpt" else []  # the range of its ALiBi biases
    for name, module in network.named_modules():
        if _is_table(name) and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
            padding = getattr(module, "padding_idx", None)
            unused = 0 if padding is None else padding + 1
            rows = len(module.weight)
            limits.append(min(rows, declared or rows) - unused)
    limits += [len(buffer) for name, buffer in network.named_buffers() if _is_table(name)]
    return min(limits, default=None)


def _is_table(name: str) -> bool:
    return name.removesuffix(".embedding").rpartition(".")[2] in _TABLES


def longest_input_of(config: Any, auto_class: Any, trust_remote_code: bool = False) -> int | None:
    """Return `longest_input` of a configuration of transformers, without memory for its weights.

    Args:
        config: the configuration.
        auto_class: transformers' class that builds the model.
        trust_remote_code: whether code that the checkpoint contains or names may be executed.

    Raises:
        ValueError: the configuration is not of a model of this class, or is inconsistent.
    """
    with torch.device("meta"):
        options = {"trust_remote_code": trust_remote_code, "attn_implementation": None}
        return longest_input(auto_class.from_config(copy.deepcopy(config), **options))


def check_max_length(longest: int | None, max_length: int, limits: Limits | None = None) -> None:
    """Check that the data's windows or texts are not longer than a model's positions.

    Args:
        longest: maximum number of tokens of the model; None for no maximum.
        max_length: data.max_length.
        limits: sizes of windows, of which the others may have to be smaller, too; None for texts without windows.

    Raises:
        InputError: they are longer.
    """
    if longest is None or max_length <= longest:
        return
    message = (
        f"data.max_length={max_length}: the model has positions for {longest} tokens; use data.max_length={longest}"
    )
    if limits is not None:
        fitting = fit_limits(limits, longest, 4)
        changes = [
            f"data.{name}={value}"
            for name in ("stride", "max_query_length")
            if (value := getattr(fitting, name)) != getattr(limits, name)
        ]
        message += "".join(f" {change}" for change in changes)
    raise InputError(message)


def fit_limits(limits: Limits, longest: int | None, special: int) -> Limits:
    """Reduce the sizes of windows to a model's positions, where they are larger.

    Questions get at most a quarter of a shorter window, and windows overlap by at most half of the rest.

    Args:
        limits: sizes of windows, in tokens.
        longest: maximum number of tokens of the model; None for no maximum.
        special: number of special tokens of a window.
    """
    if longest is None or limits.max_length <= longest:
        return limits
    query = min(limits.max_query_length, max(1, longest // 4))
    room = longest - special - query
    return Limits(longest, min(limits.stride, max(0, room // 2)), query)
