"""A transformers encoder with a head for a task: from a checkpoint, or from a description with random weights."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from config.errors import InputError
from datamodules.imports import quick_transformers


@dataclass(frozen=True)
class Head:
    """A kind of head of transformers.

    Attributes:
        purpose: what it is for, for messages.
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
    """The encoder and its head.

    Args:
        head: what it is for.
        data: gives the vocabulary's size, the padding token and the longest input.
        pretrained: Hub name or folder; None for random weights of `architecture`.
        revision: of a Hub name.
        architecture: `model_type` and settings of a transformers configuration.
        dropout: of hidden states; None leaves the checkpoint's.
        attention_dropout: of attention weights; None leaves the checkpoint's.
        settings: further settings of the configuration, such as the classes' names.

    Raises:
        InputError: a checkpoint that cannot be had or is not such an encoder, or an architecture that there is not.
    """
    transformers = _transformers()
    auto_class = getattr(transformers, head.auto_class)
    dropouts = _dropouts(dropout, attention_dropout)
    if pretrained is None:
        config = _described(head, dict(architecture or {}), data)
        _set(config, dropouts)
        config.update(settings)
        try:
            return auto_class.from_config(config, attn_implementation="sdpa")
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise _no_such_model(head, config.model_type) from error
    folder = Path(pretrained).is_dir()
    if not folder and pretrained.startswith((".", "/", "~")):
        raise InputError(f"model.pretrained={pretrained}: no such folder")
    from datamodules.sources.hub_errors import explain_hub_error, work_offline_if_unreachable

    if not folder:
        work_offline_if_unreachable()
    try:
        config = transformers.AutoConfig.from_pretrained(pretrained, revision=revision)
        _set(config, dropouts)
        config.update(settings)
        model = auto_class.from_pretrained(
            pretrained,
            revision=revision,
            config=config,
            attn_implementation="sdpa",
            dtype=torch.float32,
            # A head for other classes than the checkpoint's begins with random weights.
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
    """A saved model's network, float32, as training built it."""
    return getattr(_transformers(), head.auto_class).from_pretrained(
        str(folder), attn_implementation="sdpa", dtype=torch.float32
    )


def _transformers() -> Any:
    """transformers, imported quickly and quiet: that a head is new is known, and progress is for terminals."""
    quick_transformers()
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    return transformers


def _dropouts(hidden: float | None, attention: float | None) -> dict[str, float]:
    """The settings under the names that transformers' configurations use for them."""
    settings: dict[str, float] = {}
    if hidden is not None:
        names = ("hidden_dropout_prob", "dropout", "hidden_dropout", "embedding_dropout", "mlp_dropout")
        settings |= dict.fromkeys(names, hidden)
    if attention is not None:
        settings |= {"attention_probs_dropout_prob": attention, "attention_dropout": attention}
    return settings


def _described(head: Head, architecture: dict[str, Any], data: Any) -> Any:
    """A transformers configuration from `architecture`, for this data's vocabulary and windows.

    Raises:
        InputError: no such kind of model, or a setting that it does not have.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = architecture.pop("model_type", "bert")
    if model_type not in CONFIG_MAPPING:
        raise _no_such_model(head, model_type)
    plain = AutoConfig.for_model(model_type)
    if unknown := sorted(set(architecture) - set(plain.to_dict()) - set(plain.attribute_map)):
        raise InputError(
            f"model.architecture.{unknown[0]}: transformers' {model_type} has no such setting; to describe another "
            "model, give ~model.architecture '+model.architecture={model_type: ..., ...}'"
        )
    length = {"max_position_embeddings": max(512, data.max_length)}
    given = {**length, **architecture, "vocab_size": data.vocab_size, "pad_token_id": data.pad_id}
    # A configuration's other special tokens may be those of a larger vocabulary.
    for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if (getattr(plain, name, None) or 0) >= data.vocab_size:
            given[name] = None
    return AutoConfig.for_model(model_type, **given)


def _no_such_model(head: Head, model_type: str) -> InputError:
    return InputError(f"model.architecture.model_type={model_type}: transformers has no such model for {head.purpose}")


def _set(config: Any, settings: dict[str, float]) -> None:
    for name, value in settings.items():
        if hasattr(config, name):
            setattr(config, name, value)
