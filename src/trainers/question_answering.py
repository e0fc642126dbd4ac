"""Question answering: any transformers encoder with a question-answering head."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from config.errors import Refused
from config.ranges import Range
from datamodules.imports import quick_transformers
from datamodules.question_answering import QuestionAnsweringData
from trainers import answers
from trainers import dropout as fast_dropout
from trainers.spans import Candidates, collect
from trainers.task import Result, Task

Batch = dict[str, torch.Tensor]


class QuestionAnswering(Task):
    """Learns where an answer starts and ends.

    The loss is the mean of the cross-entropies of the start and the end token over the window's own tokens, padding
    left out, so that it does not depend on what else is in the batch.
    """

    def __init__(
        self,
        data: QuestionAnsweringData,
        optim: Mapping[str, Any],
        pretrained: str | None,
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        attention_dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        n_best: Annotated[int, Range(low=1)] = 20,
        max_answer_tokens: Annotated[int, Range(low=1)] = 30,
    ) -> None:
        """Builds the encoder and its head.

        Args:
            data: gives the vocabulary's size and, for scoring, the examples.
            optim: conf/optim.
            pretrained: Hub name or folder; None for random weights of `architecture`.
            revision: of a Hub name.
            architecture: `model_type` and settings of a transformers configuration.
            dropout: of hidden states; None leaves the checkpoint's.
            attention_dropout: of attention weights; None leaves the checkpoint's.
            n_best: candidate starts and ends of a window, and answers of a question.
            max_answer_tokens: longest answer.

        Raises:
            Refused: a checkpoint that cannot be had or is not an encoder for question answering.
        """
        super().__init__(optim)
        self.data = data
        self.n_best, self.max_answer_tokens = n_best, max_answer_tokens
        settings = _dropouts(dropout, attention_dropout)
        self.model = _encoder(pretrained, revision, dict(architecture or {}), settings, data)
        # DistilBERT takes no token types, whatever its tokenizer makes.
        taken = inspect.signature(self.model.forward).parameters
        self.inputs = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in taken]

    def setup(self, stage: str) -> None:
        """Puts in the quick dropout and attention where torch's own are slow."""
        if self.trainer.strategy.root_device.type == "cpu":
            fast_dropout.enable(self.model)

    def on_fit_start(self) -> None:
        """Trains all of it: transformers loads checkpoints in eval mode, and Lightning leaves modes as they are."""
        self.train()

    def logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits, float32 [B, L]; minus infinity on padding."""
        output = self.model(**{name: batch[name] for name in self.inputs if name in batch})
        padding = batch["attention_mask"] == 0
        start = output.start_logits.float().masked_fill(padding, -torch.inf)
        end = output.end_logits.float().masked_fill(padding, -torch.inf)
        return start, end

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean loss of the batch."""
        return self._losses(batch, *self.logits(batch)).mean()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keeps each window's loss and best starts and ends; the rest of the logits is not needed again."""
        start, end = self.logits(batch)
        k = min(self.n_best, start.shape[1])
        starts, ends = start.topk(k), end.topk(k)
        losses = self._losses(batch, start, end)
        best = (starts.values, starts.indices, ends.values, ends.indices, start[:, 0] + end[:, 0])
        candidates = Candidates(*(tensor.cpu().numpy() for tensor in best))
        self.collected.append((batch["window"].cpu().numpy(), losses.cpu().numpy(), candidates))

    @staticmethod
    def _losses(batch: Batch, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        first = cross_entropy(start, batch["start_positions"], reduction="none")
        return (first + cross_entropy(end, batch["end_positions"], reduction="none")) / 2

    def score(self, collected: list[Any]) -> Result:
        """Exact match, F1 and the mean loss of a window; a row per question; SQuAD 2.0's own details."""
        windows, candidates = collect((numbers, found) for numbers, _, found in collected)
        order = np.argsort(np.concatenate([numbers for numbers, _, _ in collected]))
        losses = np.concatenate([losses for _, losses, _ in collected])[order]
        return answers.score(
            self.data, windows, losses, candidates, n_best=self.n_best, max_answer_tokens=self.max_answer_tokens
        )

    def export(self, folder: str) -> None:
        """A transformers folder: safetensors, configuration, tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.data.tokenizer().save_pretrained(folder)


def _dropouts(hidden: float | None, attention: float | None) -> dict[str, float]:
    """The settings under the names that transformers' configurations use for them."""
    settings: dict[str, float] = {}
    if hidden is not None:
        names = ("hidden_dropout_prob", "dropout", "hidden_dropout", "embedding_dropout", "mlp_dropout")
        settings |= dict.fromkeys(names, hidden)
    if attention is not None:
        settings |= {"attention_probs_dropout_prob": attention, "attention_dropout": attention}
    return settings


def _encoder(
    pretrained: str | None,
    revision: str | None,
    architecture: dict[str, Any],
    settings: dict[str, float],
    data: QuestionAnsweringData,
) -> Any:
    quick_transformers()
    from transformers import AutoConfig, AutoModelForQuestionAnswering
    from transformers.utils import logging as said

    said.set_verbosity_error()  # that the head is new is known
    if not sys.stderr.isatty():
        said.disable_progress_bar()
    if pretrained is None:
        config = _described(architecture, data)
        _set(config, settings)
        return AutoModelForQuestionAnswering.from_config(config, attn_implementation="sdpa")
    folder = Path(pretrained).is_dir()
    if not folder and pretrained.startswith((".", "/", "~")):
        raise Refused(f"model.pretrained={pretrained}: no such folder")
    from datamodules.hub_errors import explain_hub_error, work_offline_if_unreachable

    if not folder:
        work_offline_if_unreachable()
    try:
        config = AutoConfig.from_pretrained(pretrained, revision=revision)
        _set(config, settings)
        model = AutoModelForQuestionAnswering.from_pretrained(
            pretrained, revision=revision, config=config, attn_implementation="sdpa", dtype=torch.float32
        )
    except Exception as error:
        if message := explain_hub_error(error, f"model.pretrained={pretrained}"):
            raise Refused(message) from error
        raise Refused(
            f"model.pretrained={pretrained} is not a transformers encoder for question answering: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if model.config.vocab_size < data.vocab_size:
        raise Refused(
            f"model.tokenizer has {data.vocab_size} tokens, the checkpoint's vocabulary {model.config.vocab_size}"
        )
    return model


def _described(architecture: dict[str, Any], data: QuestionAnsweringData) -> Any:
    """A transformers configuration from `architecture`, for this data's vocabulary and windows.

    Raises:
        Refused: no such kind of model, or a setting that it does not have.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES

    model_type = architecture.pop("model_type", "bert")
    if model_type not in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES:
        raise Refused(
            f"model.architecture.model_type={model_type}: transformers has no such model for question answering"
        )
    plain = AutoConfig.for_model(model_type)
    if unknown := sorted(set(architecture) - set(plain.to_dict()) - set(plain.attribute_map)):
        raise Refused(
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


def _set(config: Any, settings: dict[str, float]) -> None:
    for name, value in settings.items():
        if hasattr(config, name):
            setattr(config, name, value)
