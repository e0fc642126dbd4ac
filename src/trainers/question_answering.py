"""Question answering: a transformers encoder with a question-answering head."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from config.ranges import Range
from datamodules.question_answering import QuestionAnsweringData
from datamodules.text.windows import Limits
from trainers import answer_scores, encoders, padding_masks
from trainers.inference import check_token_types, span_logits, top_candidates
from trainers.spans import merge_candidates
from trainers.task import Result, Task

Batch = dict[str, torch.Tensor]
LATE_IMPORTS = ("transformers.modeling_utils",)  # of functions, for trials that are forked


class QuestionAnswering(Task):
    """LightningModule that learns where an answer starts and ends.

    The loss is the mean of the cross-entropies of the start and the end token over the window's own tokens, without
    padding, so that it does not depend on the rest of the batch.
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
        trust_remote_code: bool = False,
        n_best: Annotated[int, Range(low=1)] = 20,
        max_answer_tokens: Annotated[int, Range(low=1)] = 30,
    ) -> None:
        """Build the encoder and its head.

        Args:
            data: data module with the vocabulary and, for scoring, the examples.
            optim: conf/optim.
            pretrained: Hub name or folder; None for random weights of `architecture`.
            revision: revision of a Hub name.
            architecture: `model_type` and settings of a transformers configuration.
            dropout: dropout of hidden states; None for the checkpoint's.
            attention_dropout: dropout of attention weights; None for the checkpoint's.
            trust_remote_code: whether code that the checkpoint contains or names may be executed.
            n_best: candidate starts and ends of a window, and answers of a question.
            max_answer_tokens: longest answer.

        Raises:
            InputError: a checkpoint that is unavailable or not an encoder for question answering.
        """
        super().__init__(optim)
        self.data = data
        self.n_best, self.max_answer_tokens = n_best, max_answer_tokens
        self.model, self.new_parameters = encoders.build_encoder(
            encoders.SPAN_HEAD, data, pretrained, revision, architecture, dropout, attention_dropout, trust_remote_code
        )
        check_token_types(self.model, data.type_count)

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Check that the model has positions for the windows; see `encoders.check_max_length`."""
        data = config.data
        limits = Limits(data.max_length, data.stride, data.max_query_length)
        encoders.check_max_length(encoders.SPAN_HEAD, config, limits)

    def setup(self, stage: str) -> None:
        """Choose attention and dropout for the device."""
        encoders.choose_attention(self.model, self.trainer.strategy.root_device)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Leave out the mask of a batch without padding, before it is copied to a GPU."""
        return padding_masks.remove_full_mask(self.model, batch)

    def on_fit_start(self) -> None:
        """Set train mode: transformers loads checkpoints in eval mode, which Lightning keeps."""
        self.train()

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Return the mean loss of the batch."""
        return self.training_loss(batch, *span_logits(self.model, batch))

    def training_loss(self, batch: Batch, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of start and end logits [B, L], minus infinity on padding."""
        return self._losses(batch, start, end).mean()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the loss and the best starts and ends of each window."""
        start, end = span_logits(self.model, batch)
        losses = self._losses(batch, start, end)
        self.collected.append(
            (batch["window"].cpu().numpy(), losses.cpu().numpy(), top_candidates(start, end, self.n_best))
        )

    @staticmethod
    def _losses(batch: Batch, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        start_losses = cross_entropy(start, batch["start_positions"], reduction="none")
        return (start_losses + cross_entropy(end, batch["end_positions"], reduction="none")) / 2

    def score(self, collected: list[Any]) -> Result:
        """Compute exact match, F1 and the mean loss of a window; a row for each question; SQuAD 2.0's details."""
        windows, candidates = merge_candidates((numbers, best) for numbers, _, best in collected)
        order = np.argsort(np.concatenate([numbers for numbers, _, _ in collected]))
        losses = np.concatenate([losses for _, losses, _ in collected])[order]
        return answer_scores.score_answers(
            self.data, windows, losses, candidates, n_best=self.n_best, max_answer_tokens=self.max_answer_tokens
        )

    def export(self, folder: str) -> None:
        """Write a transformers folder: safetensors, configuration, tokenizer."""
        encoders.export_encoder(self.model, self.data, folder)
