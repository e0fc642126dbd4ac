"""Transformers encoders with a task's head: from a checkpoint, or from an architecture with random weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from config.errors import InputError


@dataclass(frozen=True)
class Head:
    """A kind of head of transformers.

    Attributes:
        purpose: its purpose, for messages.
        auto_class: transformers' class that loads it.
    """

    purpose: str
    auto_class: str


SPAN_HEAD = Head("question answering", "AutoModelForQuestionAnswering")
CLASS_HEAD = Head("text classification", "AutoModelForSequenceClassification")


def build_encoder(
    head: Head,
    data: Any,
    pretrained: str | None,
    revision: str | None,
    architecture: Mapping[str, Any] | None,
    dropout: float | None,
    attention_dropout: float | None,
    **settings: Any,
) -> Any:
    """Build an encoder with a head, for training.

    Args:
        head: kind of the head.
        data: data module with the vocabulary's size, the padding token and the longest input.
        pretrained: Hub name or folder; None for random weights of `architecture`.
        revision: revision of a Hub name.
        architecture: `model_type` and settings of a transformers configuration.
        dropout: dropout of hidden states; None for the checkpoint's.
        attention_dropout: dropout of attention weights; None for the checkpoint's.
        settings: further settings of the configuration, such as the classes' names.

    Raises:
        InputError: a checkpoint that is unavailable or not such an encoder, or an unknown architecture.
    """
    transformers = _transformers()
    auto_class = getattr(transformers, head.auto_class)
    if pretrained is None:
        config = _new_config(head, dict(architecture or {}), data)
        _update_config(config, dropout, attention_dropout, settings)
        try:
            return auto_class.from_config(config, attn_implementation="sdpa")
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise _unknown_model(head, config.model_type) from error
    is_folder = Path(pretrained).is_dir()
    if not is_folder and pretrained.startswith((".", "/", "~")):
        raise InputError(f"model.pretrained={pretrained}: no such folder")
    from datamodules.sources.hub_errors import explain_hub_error, work_offline_if_unreachable

    if not is_folder:
        work_offline_if_unreachable()
    try:
        config = transformers.AutoConfig.from_pretrained(pretrained, revision=revision)
        _update_config(config, dropout, attention_dropout, settings)
        model = auto_class.from_pretrained(
            pretrained,
            revision=revision,
            config=config,
            attn_implementation="sdpa",
            dtype=torch.float32,
            # A head for other classes than the checkpoint's starts with random weights.
            ignore_mismatched_sizes=bool(settings),
        )
    except Exception as error:
        if message := explain_hub_error(error, f"model.pretrained={pretrained}"):
            raise InputError(message) from error
        raise InputError(
            f"model.pretrained={pretrained} is not a transformers encoder for {head.purpose}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if model.config.vocab_size < data.vocab_size:
        raise InputError(
            f"model.tokenizer has {data.vocab_size} tokens, the checkpoint's vocabulary {model.config.vocab_size}"
        )
    return model


def load_encoder(head: Head, folder: Path) -> Any:
    """Load a saved model's network as training built it, in float32."""
    return getattr(_transformers(), head.auto_class).from_pretrained(
        str(folder), attn_implementation="sdpa", dtype=torch.float32
    )


def load_tokenizer(folder: Path) -> Any:
    """Load a saved model's tokenizer through the cache, as `datamodules.text.tokenizer.prepare` returns it."""
    from datamodules.storage import cache
    from datamodules.text import tokenizer

    return tokenizer.prepare(cache.root(), tokenizer=str(folder))


def _transformers() -> Any:
    """Import transformers without its warnings of new heads."""
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    return transformers


def _update_config(
    config: Any, dropout: float | None, attention_dropout: float | None, settings: dict[str, Any]
) -> None:
    """Set dropout, under the names that the configuration has for it, and further settings."""
    hidden = ("hidden_dropout_prob", "dropout", "hidden_dropout", "embedding_dropout", "mlp_dropout")
    for names, value in ((hidden, dropout), (("attention_probs_dropout_prob", "attention_dropout"), attention_dropout)):
        if value is not None:
            config.update({name: value for name in names if hasattr(config, name)})
    config.update(settings)


def _new_config(head: Head, architecture: dict[str, Any], data: Any) -> Any:
    """Return a transformers configuration of `architecture`, for the data's vocabulary and windows.

    Raises:
        InputError: an unknown `model_type`, or a setting that it does not have.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = architecture.pop("model_type", "bert")
    if model_type not in CONFIG_MAPPING:
        raise _unknown_model(head, model_type)
    default = AutoConfig.for_model(model_type)
    if unknown := sorted(set(architecture) - set(default.to_dict()) - set(default.attribute_map)):
        raise InputError(
            f"model.architecture.{unknown[0]}: transformers' {model_type} has no such setting; to describe another "
            "model, give ~model.architecture '+model.architecture={model_type: ..., ...}'"
        )
    length = {"max_position_embeddings": max(512, data.max_length)}
    settings = {**length, **architecture, "vocab_size": data.vocab_size, "pad_token_id": data.pad_id}
    # The default special tokens may be those of a larger vocabulary.
    for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if (getattr(default, name, None) or 0) >= data.vocab_size:
            settings[name] = None
    return AutoConfig.for_model(model_type, **settings)


def _unknown_model(head: Head, model_type: str) -> InputError:
    return InputError(f"model.architecture.model_type={model_type}: transformers has no such model for {head.purpose}")
