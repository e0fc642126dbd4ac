"""Question answering: any transformers encoder with a question-answering head."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from config.ranges import Range
from datamodules.question_answering import QuestionAnsweringData
from trainers import answer_scores, encoders
from trainers import fast_dropout as fast_dropout
from trainers.inference import span_logits, top_candidates
from trainers.spans import merge_candidates
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
            InputError: a checkpoint that cannot be had or is not an encoder for question answering.
        """
        super().__init__(optim)
        self.data = data
        self.n_best, self.max_answer_tokens = n_best, max_answer_tokens
        self.model = encoders.build_encoder(
            encoders.SPAN_HEAD, data, pretrained, revision, architecture, dropout, attention_dropout
        )

    def setup(self, stage: str) -> None:
        """Puts in the quick dropout and attention where torch's own are slow."""
        if self.trainer.strategy.root_device.type == "cpu":
            fast_dropout.enable(self.model)

    def on_fit_start(self) -> None:
        """Trains all of it: transformers loads checkpoints in eval mode, and Lightning leaves modes as they are."""
        self.train()

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean loss of the batch."""
        return self._losses(batch, *span_logits(self.model, batch)).mean()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keeps each window's loss and best starts and ends; the rest of the logits is not needed again."""
        start, end = span_logits(self.model, batch)
        losses = self._losses(batch, start, end)
        self.collected.append(
            (batch["window"].cpu().numpy(), losses.cpu().numpy(), top_candidates(start, end, self.n_best))
        )

    @staticmethod
    def _losses(batch: Batch, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        first = cross_entropy(start, batch["start_positions"], reduction="none")
        return (first + cross_entropy(end, batch["end_positions"], reduction="none")) / 2

    def score(self, collected: list[Any]) -> Result:
        """Exact match, F1 and the mean loss of a window; a row per question; SQuAD 2.0's own details."""
        windows, best = merge_candidates((numbers, found) for numbers, _, found in collected)
        order = np.argsort(np.concatenate([numbers for numbers, _, _ in collected]))
        losses = np.concatenate([losses for _, losses, _ in collected])[order]
        return answer_scores.score_answers(
            self.data, windows, losses, best, n_best=self.n_best, max_answer_tokens=self.max_answer_tokens
        )

    def export(self, folder: str) -> None:
        """A transformers folder: safetensors, configuration, tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.data.tokenizer().save_pretrained(folder)
