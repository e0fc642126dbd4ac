"""Text classification: a transformers encoder with a sequence-classification head."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from config.ranges import Range
from trainers import classification, encoders, padding_masks
from trainers.inference import check_token_types, text_logits
from trainers.task import Result, Task

Batch = dict[str, torch.Tensor]
LATE_IMPORTS = ("transformers.modeling_utils",)  # of functions, for trials that are forked
EXCERPT = 500  # characters of a text in predictions.jsonl


class TextClassification(Task):
    """LightningModule that learns the class of a text, or of a pair of texts."""

    def __init__(
        self,
        data: Any,
        optim: Mapping[str, Any],
        pretrained: str | None,
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        attention_dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        trust_remote_code: bool = False,
        label_smoothing: Annotated[float, Range(low=0, below=1)] = 0.0,
    ) -> None:
        """Build the encoder and its head.

        Args:
            data: a TextClassificationData with the classes, the vocabulary and, for scoring, the examples.
            optim: conf/optim.
            pretrained: Hub name or folder; None for random weights of `architecture`.
            revision: revision of a Hub name.
            architecture: `model_type` and settings of a transformers configuration.
            dropout: dropout of hidden states; None for the checkpoint's.
            attention_dropout: dropout of attention weights; None for the checkpoint's.
            trust_remote_code: whether code that the checkpoint contains or names may be executed.
            label_smoothing: probability mass spread over all classes in training.

        Raises:
            InputError: a checkpoint that is unavailable or not an encoder for text classification.
        """
        super().__init__(optim)
        self.data = data
        self.label_smoothing = label_smoothing
        names = [entry["id"] for entry in data.classes]
        self.model, self.new_parameters = encoders.build_encoder(
            encoders.CLASS_HEAD, data, pretrained, revision, architecture, dropout, attention_dropout, trust_remote_code,
            num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)},
            problem_type="single_label_classification",
        )  # fmt: skip
        check_token_types(self.model, data.type_count)

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Check that the model has positions for the texts; see `encoders.check_max_length`."""
        encoders.check_max_length(encoders.CLASS_HEAD, config, None)

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
        return self.training_loss(text_logits(self.model, batch), batch["labels"])

    def training_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits [B, C]; targets are classes, int64 [B]."""
        return cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the loss and the best classes of each text."""
        self.collected.append(classification.batch_outputs(batch, text_logits(self.model, batch)))

    def score(self, collected: list[Any]) -> Result:
        """Compute accuracy, macro-F1 and the mean loss; a row for each text; scores and confusions by class."""
        return text_result(classification.merge_outputs(collected), self.data)

    def export(self, folder: str) -> None:
        """Write a transformers folder: safetensors, configuration with the classes' names, tokenizer."""
        encoders.export_encoder(self.model, self.data, folder)


def text_result(outputs: classification.ClassOutputs, data: Any) -> Result:
    """Return metrics, rows of predictions.jsonl and details of a validation."""
    names = [entry["id"] for entry in data.classes]
    matrix = classification.confusion_matrix(outputs, len(names))
    metrics = {**classification.loss_and_accuracy(outputs), "val_macro_f1": classification.macro_f1(matrix)}
    details = classification.class_details(matrix, names)
    details["class_f1"] = classification.class_f1(matrix, names)
    if len(names) > classification.TOP_CLASSES:
        details["top5_accuracy"] = round(classification.top_accuracy(outputs), 4)
    texts = data.texts("val")
    rows = [
        {"id": row["id"], "text": texts.text(int(position))[:EXCERPT], **row}
        for position, row in zip(
            outputs.positions, classification.prediction_rows(outputs, data.names, names, "top"), strict=True
        )
    ]
    return metrics, rows, details
