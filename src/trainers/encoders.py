"""Transformers encoders with a task's head: from a checkpoint, or from an architecture with random weights."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from config.errors import InputError, input_errors
from datamodules.storage import cache
from datamodules.text import tokenizer
from datamodules.text.windows import Limits, PairEncoder
from runs import digests
from trainers import fast_dropout, onnx_network, padding_masks, positions, weights
from trainers.inference import declare_inputs

logger = logging.getLogger(__name__)

# Types of models that cannot be trained on batches of texts, and why.
UNSUITABLE = {
    "layoutlmv2": "needs the image of a page besides text",
    "lxmert": "needs the regions of an image besides text",
    "reformer": "is trained only on texts whose length is a multiple of its chunks",
}
# Settings of those whose head for questions finds the end of a question by a token.
QUESTION_ENDS = {"big_bird": "sep_token_id", "longformer": "sep_token_id", "splinter": "question_token_id"}


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
    trust_remote_code: bool = False,
    **settings: Any,
) -> tuple[Any, tuple[str, ...]]:
    """Build an encoder with a head, for training.

    Args:
        head: kind of the head.
        data: data module with the vocabulary's size, the padding token and the longest input.
        pretrained: Hub name or folder; None for random weights of `architecture`.
        revision: revision of a Hub name.
        architecture: `model_type` and settings of a transformers configuration.
        dropout: dropout of hidden states; None for the checkpoint's.
        attention_dropout: dropout of attention weights; None for the checkpoint's.
        trust_remote_code: whether code that the checkpoint contains or names may be executed.
        settings: further settings of the configuration, such as the classes' names.

    Returns:
        The encoder, and the names of the parameters of its head that the checkpoint lacks, which are random; empty
        without a checkpoint.

    Raises:
        InputError: a checkpoint that is unavailable, of another architecture or not such an encoder, or an unknown
            architecture.
    """
    auto_class = getattr(_transformers(), head.auto_class)
    if pretrained is None:
        config = _new_config(head, dict(architecture or {}), data.vocab_size, data.pad_id, data.max_length)
        _update_config(config, dropout, attention_dropout, settings)
        if head is SPAN_HEAD:
            _set_question_end(config, data)
        with _architecture_errors(head, config.model_type):
            return auto_class.from_config(config, trust_remote_code=False, attn_implementation=None), ()
    config = _read_config(head, pretrained, revision, trust_remote_code)
    _update_config(config, dropout, attention_dropout, settings)
    if onnx_network.is_onnx(pretrained):
        return _load_onnx(head, Path(pretrained), config), ()
    if head is SPAN_HEAD:
        _set_question_end(config, data)
    with _checkpoint_errors(head, pretrained):
        model, new_parameters = weights.load_transformers(
            auto_class,
            pretrained,
            f"model.pretrained={pretrained}",
            revision=revision,
            config=config,
            trust_remote_code=trust_remote_code,
            attn_implementation=None,  # SDPA if the model has it
            dtype=torch.float32,
        )
    if model.config.vocab_size < data.vocab_size:
        raise InputError(
            f"model.tokenizer has {data.vocab_size} tokens, the checkpoint's vocabulary {model.config.vocab_size}"
        )
    return model, new_parameters


def load_encoder(head: Head, folder: Path, trust_remote_code: bool = False) -> Any:
    """Load a saved model's network as training built it, in float32.

    Args:
        head: kind of the head.
        folder: the model folder.
        trust_remote_code: whether code that the folder contains or names may be executed.

    Raises:
        InputError: the weights are unreadable, incomplete or of another architecture.
    """
    auto_class = getattr(_transformers(), head.auto_class)
    if onnx_network.is_onnx(folder):
        return _load_onnx(head, folder, _read_config(head, str(folder), None, trust_remote_code))
    with input_errors(lambda error: f"run={folder}: cannot load the model: {weights.describe_read_error(error)}"):
        model, new_parameters = weights.load_transformers(
            auto_class,
            str(folder),
            f"run={folder}",
            trust_remote_code=trust_remote_code,
            attn_implementation=None,
            dtype=torch.float32,
        )
    weights.check_complete(f"run={folder}", new_parameters)
    return model


def _load_onnx(head: Head, folder: Path, config: Any) -> Any:
    """Load the network of a model folder in ONNX, with the configuration and the positions of the exported one."""
    network = onnx_network.load(folder)
    with _architecture_errors(head, config.model_type):
        network.longest_input = positions.longest_input_of(config, getattr(_transformers(), head.auto_class))
    network.config = config
    return network


def architecture(config: Any) -> Any:
    """Return the class of transformers that a configuration names, without code of its folder.

    Raises:
        InputError: it names none.
    """
    transformers = _transformers()
    name = str((config.architectures or ["none"])[0])
    kind = getattr(transformers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise InputError(f"config.json declares the architecture {name[:80]}, which transformers does not have")
    return kind


def read_state(network: Any, folder: Path, source: str) -> dict[str, torch.Tensor]:
    """Read the weights of a model folder for a LightningModule with such a network.

    Args:
        network: a transformers model of the same architecture.
        folder: the model folder.
        source: for messages.

    Raises:
        InputError: the weights are unreadable, incomplete or of another architecture.
    """
    with input_errors(lambda error: f"{source}: cannot read the weights: {weights.describe_read_error(error)}"):
        loaded, new_parameters = weights.load_transformers(
            type(network), str(folder), source, config=network.config, attn_implementation=None, dtype=torch.float32
        )
    weights.check_body(source, new_parameters, (), {})
    return {f"model.{name}": tensor for name, tensor in loaded.state_dict().items()}


def export_encoder(model: Any, data: Any, folder: str) -> None:
    """Write a transformers folder: safetensors, configuration, tokenizer.

    Args:
        model: the transformers model.
        data: data module with the tokenizer and the longest input.
        folder: the folder.
    """
    model.save_pretrained(folder, safe_serialization=True)
    export_tokenizer(model, data, folder)


def export_tokenizer(network: Any, data: Any, folder: str) -> None:
    """Write the tokenizer of a network into its model folder.

    The tokenizer neither truncates nor pads by itself, as those of some checkpoints do, whose setting may be of another
    length than the model was trained with; data.max_length is the limit of its `truncation=True`.

    Args:
        network: a network of transformers, or another one.
        data: data module with the tokenizer and the longest input.
        folder: the folder.
    """
    exported = data.tokenizer()
    exported.backend_tokenizer.no_truncation()
    exported.backend_tokenizer.no_padding()
    for setting in ("max_length", "stride", "pad_to_multiple_of", "truncation_strategy"):
        exported.init_kwargs.pop(setting, None)  # copies of those
    exported.model_max_length = data.max_length
    declare_inputs(exported, network, data.type_count)
    exported.save_pretrained(folder)


def check_max_length(head: Head, config: DictConfig, limits: Limits | None) -> None:
    """Check that the model of a configuration has positions for the data's longest input, before data is prepared.

    Args:
        head: kind of the head.
        config: the composed configuration: `model.pretrained`, `revision`, `architecture`, and `data`.
        limits: sizes of windows; None for texts without windows.

    Raises:
        InputError: a checkpoint that is unavailable or not such an encoder, an unknown architecture, or too few positions.
    """
    model, data = config.model, config.data
    auto_class = getattr(_transformers(), head.auto_class)
    trust_remote_code = False
    if model.pretrained is not None:
        trust_remote_code = bool(model.get("trust_remote_code"))
        network_config = _read_config(head, model.pretrained, model.get("revision"), trust_remote_code)
    else:
        pad_id = (
            tokenizer.prepare(cache.root(data.cache_dir), tokenizer=model.tokenizer).pad_id if model.tokenizer else 0
        )
        architecture = OmegaConf.to_container(model.architecture, resolve=True) if model.architecture else {}
        vocab_size = max(data.vocab_size or 0, 100, pad_id + 1)
        network_config = _new_config(head, architecture, vocab_size, pad_id, data.max_length)
    with _architecture_errors(head, network_config.model_type):
        longest = positions.longest_input_of(network_config, auto_class, trust_remote_code)
    positions.check_max_length(longest, data.max_length, limits)


def choose_attention(network: Any, device: torch.device) -> None:
    """Replace a network's attention, and on CPUs its dropout, by what is fastest on a device. Weights are unchanged."""
    if device.type == "cpu":
        fast_dropout.enable(network)
    elif device.type == "cuda":
        padding_masks.enable(network)


def load_tokenizer(folder: Path) -> Any:
    """Load a saved model's tokenizer through the cache, as `datamodules.text.tokenizer.prepare` returns it."""
    return tokenizer.prepare(cache.root(), tokenizer=str(folder))


def _transformers() -> Any:
    """Import transformers without its warnings of new heads, and without progress bars."""
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # in a process that imported it before `config.libraries`
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
    if getattr(config, "default_language", "") is None:  # X-MOD has adapters for several
        config.default_language = config.languages[0]
        logger.info("the model's adapters for the language %s are used", config.default_language)


def _new_config(head: Head, architecture: dict[str, Any], vocab_size: int, pad_id: int, max_length: int) -> Any:
    """Return a transformers configuration of `architecture`, for the data's vocabulary and longest input.

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
    has_positions = "max_position_embeddings" in {*default.to_dict(), *default.attribute_map}
    settings: dict[str, Any] = {"max_position_embeddings": max(512, max_length)} if has_positions else {}
    settings |= {**architecture, "vocab_size": vocab_size, "pad_token_id": pad_id}
    # The default special tokens may be those of a larger vocabulary.
    for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if (getattr(default, name, None) or 0) >= vocab_size:
            settings[name] = None
    if getattr(default, "is_encoder_decoder", False) and getattr(default, "decoder_start_token_id", None) is None:
        settings["decoder_start_token_id"] = pad_id
    with _architecture_errors(head, model_type):
        config = AutoConfig.for_model(model_type, **settings)
    names = {"max_position_embeddings", default.attribute_map.get("max_position_embeddings")}
    if (
        has_positions
        and max_length + max(pad_id, 1) + 1 > settings["max_position_embeddings"]
        and not names & set(architecture)
    ):
        auto_class = getattr(_transformers(), head.auto_class)
        with _architecture_errors(head, model_type):
            longest = positions.longest_input_of(config, auto_class)
        if longest is not None and longest < max_length:  # positions that are numbered from pad_id + 1
            settings["max_position_embeddings"] += max_length - longest
            config = AutoConfig.for_model(model_type, **settings)
    _check_suitable(head, config)
    return config


def _read_config(head: Head, pretrained: str, revision: str | None, trust_remote_code: bool) -> Any:
    """Return the transformers configuration of a checkpoint.

    Raises:
        InputError: the checkpoint is unavailable or not such an encoder.
    """
    is_folder = Path(pretrained).is_dir()
    if not is_folder and pretrained.startswith((".", "/", "~")):
        raise InputError(f"model.pretrained={pretrained}: no such folder")
    if is_folder:
        digests.check_model(Path(pretrained))
    from datamodules.sources.hub import cached_path
    from datamodules.sources.hub_errors import work_offline_if_unreachable

    if not is_folder:
        work_offline_if_unreachable()
    auto_config = _transformers().AutoConfig
    with _checkpoint_errors(head, pretrained):
        if not is_folder and not any(
            cached_path(pretrained, revision or "main", name, "model") for name in weights.FILES
        ):
            logger.info("downloading the model %s from the Hub", pretrained)  # the client's own bars are not shown
        config = auto_config.from_pretrained(pretrained, revision=revision, trust_remote_code=trust_remote_code)
    _check_suitable(head, config)
    return config


def _check_suitable(head: Head, config: Any) -> None:
    """Check that a model can be trained on batches of texts.

    Raises:
        InputError: it cannot.
    """
    if reason := UNSUITABLE.get(config.model_type):
        raise InputError(f"a {config.model_type} {reason}: use another model for {head.purpose}")


def _set_question_end(config: Any, data: Any) -> None:
    """Set the token by which some heads find the end of a question to that of the tokenizer's format of a pair.

    By default it is that of the type's first checkpoint, which is an ordinary token of other vocabularies. Longformer's head
    counts three separators.

    Raises:
        InputError: the format has no such token.
    """
    setting = QUESTION_ENDS.get(config.model_type)
    if setting is None:
        return
    pair = PairEncoder(data.prepared_tokenizer.folder / "tokenizer.json")
    between, after = pair.between.tolist(), pair.after.tolist()
    if config.model_type == "longformer" and (len(between) + len(after) != 3 or len({*between, *after}) != 1):
        raise InputError(
            "a longformer for question answering needs a tokenizer with two separators between the question and the "
            "context and one after it, as RoBERTa's: give its folder as model.tokenizer"
        )
    # Splinter's own tokenizer puts [QUESTION], a full stop and [SEP] there.
    token = next(iter(between if setting == "question_token_id" else between[::-1]), None)
    if token is None or token in pair.before:
        raise InputError(
            f"a {config.model_type} for question answering needs a tokenizer with a separator between the question and "
            "the context that is not its first token, as BERT's: give its folder as model.tokenizer"
        )
    setattr(config, setting, token)


def _architecture_errors(head: Head, model_type: str) -> AbstractContextManager[None]:
    """Turn exceptions of transformers into InputErrors about model.architecture."""

    def describe(error: Exception) -> str:
        if "Unrecognized configuration class" in str(error):
            return str(_unknown_model(head, model_type))
        if weights.is_code_refused(error):
            return f"model.pretrained: {weights.describe_read_error(error)}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        return f"model.architecture: transformers cannot build this {model_type}: {reason}"

    return input_errors(describe)


def _checkpoint_errors(head: Head, pretrained: str) -> AbstractContextManager[None]:
    """Turn exceptions of transformers and the Hub into InputErrors about model.pretrained."""
    from datamodules.sources.hub_errors import explain_hub_error

    def describe(error: Exception) -> str:
        source = f"model.pretrained={pretrained}"
        if weights.is_code_refused(error):
            return f"{source}: {weights.describe_read_error(error)}"
        reason = f"{source} is not a transformers encoder for {head.purpose}: {weights.describe_read_error(error)}"
        return explain_hub_error(error, source) or reason

    return input_errors(describe)


def _unknown_model(head: Head, model_type: str) -> InputError:
    return InputError(f"model.architecture.model_type={model_type}: transformers has no such model for {head.purpose}")
