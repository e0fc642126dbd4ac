"""Text classification: any transformers encoder with a sequence-classification head."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch.nn.functional import cross_entropy

from config.ranges import Range
from trainers import classification, encoders
from trainers import fast_dropout as fast_dropout
from trainers.inference import text_logits
from trainers.task import Result, Task

Batch = dict[str, torch.Tensor]
EXCERPT = 500  # characters of a text in predictions.jsonl


class TextClassification(Task):
    """Learns the class of a text, or of a pair of texts."""

    def __init__(
        self,
        data: Any,
        optim: Mapping[str, Any],
        pretrained: str | None,
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        attention_dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        label_smoothing: Annotated[float, Range(low=0, below=1)] = 0.0,
    ) -> None:
        """Builds the encoder and its head.

        Args:
            data: a TextClassificationData: gives the classes, the vocabulary's size and, for scoring, the examples.
            optim: conf/optim.
            pretrained: Hub name or folder; None for random weights of `architecture`.
            revision: of a Hub name.
            architecture: `model_type` and settings of a transformers configuration.
            dropout: of hidden states; None leaves the checkpoint's.
            attention_dropout: of attention weights; None leaves the checkpoint's.
            label_smoothing: probability mass that is spread over all classes while training.

        Raises:
            InputError: a checkpoint that cannot be had or is not an encoder for text classification.
        """
        super().__init__(optim)
        self.data = data
        self.label_smoothing = label_smoothing
        names = [entry["id"] for entry in data.classes]
        self.model = encoders.build_encoder(
            encoders.CLASS_HEAD, data, pretrained, revision, architecture, dropout, attention_dropout,
            num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)},
            problem_type="single_label_classification",
        )  # fmt: skip

    def setup(self, stage: str) -> None:
        """Puts in the quick dropout and attention where torch's own are slow."""
        if self.trainer.strategy.root_device.type == "cpu":
            fast_dropout.enable(self.model)

    def on_fit_start(self) -> None:
        """Trains all of it: transformers loads checkpoints in eval mode, and Lightning leaves modes as they are."""
        self.train()

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean loss of the batch."""
        return cross_entropy(text_logits(self.model, batch), batch["labels"], label_smoothing=self.label_smoothing)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keeps each text's loss and its best classes."""
        self.collected.append(classification.batch_outputs(batch, text_logits(self.model, batch)))

    def score(self, collected: list[Any]) -> Result:
        """Accuracy, macro-F1 and the mean loss; a row per text; results and confusions by class."""
        return text_result(classification.merge_outputs(collected), self.data)

    def export(self, folder: str) -> None:
        """A transformers folder: safetensors, configuration with the classes' names, tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        tokenizer = self.data.tokenizer()
        tokenizer.model_max_length = self.data.max_length  # what `truncation=True` cuts to
        tokenizer.save_pretrained(folder)


def text_result(found: classification.ClassOutputs, data: Any) -> Result:
    """Metrics, rows of predictions.jsonl and details of a validation."""
    names = [entry["id"] for entry in data.classes]
    best = found.classes[:, 0]
    metrics = classification.loss_and_accuracy(found)
    metrics["val_macro_f1"] = classification.macro_f1(found.labels, best, len(names))
    details = classification.class_details(found.labels, best, names)
    details["class_f1"] = classification.class_f1(found.labels, best, names)
    if len(names) > classification.TOP_CLASSES:
        details["top5_accuracy"] = round(classification.top_accuracy(found), 4)
    texts = data.texts("val")
    rows = []
    for index, row in zip(
        found.positions, classification.prediction_rows(found, data.names, names, "top"), strict=True
    ):
        rows.append({"id": row["id"], "text": texts.text(int(index))[:EXCERPT], **row})
    return metrics, rows, details
