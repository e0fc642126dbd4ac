"""LightningModules that train a network of the user's own, one for each task; `trainers.custom_networks` builds the network."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from config.ranges import Range
from trainers import custom_networks, encoders
from trainers.image_classification import ImageClassification
from trainers.question_answering import Batch, QuestionAnswering
from trainers.task import Task
from trainers.text_classification import TextClassification

# Attributes of the data that the constructor of a network gets, if it has arguments of these names.
DATA_ARGUMENTS = {
    "ImageNetwork": ("num_classes", "image_size"),
    "TextNetwork": ("num_classes", "vocab_size", "pad_id", "type_count", "max_length"),
    "QuestionNetwork": ("vocab_size", "pad_id", "type_count", "max_length"),
}


class ImageNetwork(ImageClassification):
    """LightningModule of a network from images, float32 [B, 3, H, W], to logits [B, C]."""

    def __init__(self, data: Any, optim: Mapping[str, Any], network: nn.Module, loss: Mapping[str, Any] | None = None):
        """Set the network.

        Args:
            data: data module with `classes`, `num_classes` and `image_size`.
            optim: conf/optim.
            network: the network.
            loss: `_target_` and arguments of a class or, with `_partial_`, of a function that returns the mean loss of
                logits and targets; None for cross-entropy.

        Raises:
            InputError: the outputs of the network have another shape.
        """
        Task.__init__(self, optim)
        self.data = data
        self.model = network.to(memory_format=torch.channels_last)
        self.loss_function = custom_networks.build_loss(loss)
        images = torch.zeros(2, 3, data.image_size, data.image_size)
        custom_networks.check_outputs(network, images.shape, [[2, data.num_classes]], lambda: [network(images)])

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Accept every configuration: networks are checked when they are built."""

    def training_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss; see `ImageClassification`."""
        return custom_networks.mean_loss(self.loss_function(logits, targets))

    def export(self, folder: str) -> None:
        """Write safetensors and config.json: classes, and the preprocessing as timm describes it."""
        custom_networks.export(self, folder, DATA_ARGUMENTS["ImageNetwork"], _describe_images(self.data))


class TextNetwork(TextClassification):
    """LightningModule of a network from tokens, int64 [B, L], to logits [B, C]."""

    def __init__(self, data: Any, optim: Mapping[str, Any], network: nn.Module, loss: Mapping[str, Any] | None = None):
        """Set the network; the arguments are those of `ImageNetwork`, of data with `classes`, `num_classes` and a tokenizer."""
        Task.__init__(self, optim)
        self.data = data
        self.model = network
        self.loss_function = custom_networks.build_loss(loss)
        batch = custom_networks.example_batch(network)

        def forward() -> list[Any]:
            output = network(**batch)
            return [getattr(output, "logits", output)]

        custom_networks.check_outputs(network, [2, custom_networks.LENGTH], [[2, data.num_classes]], forward)

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Accept every configuration: networks are checked when they are built."""

    def training_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss; see `TextClassification`."""
        return custom_networks.mean_loss(self.loss_function(logits, targets))

    def export(self, folder: str) -> None:
        """Write safetensors, config.json with the classes, and the tokenizer."""
        names = {str(number): entry["id"] for number, entry in enumerate(self.data.classes)}
        custom_networks.export(self, folder, DATA_ARGUMENTS["TextNetwork"], {"id2label": names})
        encoders.export_tokenizer(self.model, self.data, folder)


class QuestionNetwork(QuestionAnswering):
    """LightningModule of a network from tokens, int64 [B, L], to start and end logits, [B, L] each."""

    def __init__(
        self,
        data: Any,
        optim: Mapping[str, Any],
        network: nn.Module,
        loss: Mapping[str, Any] | None = None,
        n_best: Annotated[int, Range(low=1)] = 20,
        max_answer_tokens: Annotated[int, Range(low=1)] = 30,
    ) -> None:
        """Set the network.

        Args:
            data: data module with a tokenizer.
            optim: conf/optim.
            network: the network.
            loss: as for `ImageNetwork`; called for starts and for ends, whose mean is the loss.
            n_best: candidate starts and ends of a window, and answers of a question.
            max_answer_tokens: longest answer.

        Raises:
            InputError: the outputs of the network have another shape.
        """
        Task.__init__(self, optim)
        self.data = data
        self.n_best, self.max_answer_tokens = n_best, max_answer_tokens
        self.model = network
        self.loss_function = custom_networks.build_loss(loss)
        batch = custom_networks.example_batch(network)

        def forward() -> list[Any]:
            output = network(**batch)
            if isinstance(output, tuple | list):
                return list(output)
            return [getattr(output, name, output) for name in ("start_logits", "end_logits")]

        custom_networks.check_outputs(network, [2, custom_networks.LENGTH], [[2, custom_networks.LENGTH]] * 2, forward)

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Accept every configuration: networks are checked when they are built."""

    def training_loss(self, batch: Batch, start: Tensor, end: Tensor) -> Tensor:
        """Return the mean loss; see `QuestionAnswering`."""
        losses = self.loss_function(start, batch["start_positions"]), self.loss_function(end, batch["end_positions"])
        return custom_networks.mean_loss(sum(losses) / 2)

    def export(self, folder: str) -> None:
        """Write safetensors, config.json and the tokenizer."""
        custom_networks.export(self, folder, DATA_ARGUMENTS["QuestionNetwork"], {})
        encoders.export_tokenizer(self.model, self.data, folder)


def _describe_images(data: Any) -> dict[str, Any]:
    """Return the classes and the preprocessing of images, as in a timm folder's config.json."""
    resizing, classes = data.resizing, data.classes
    return {
        "label_names": [entry["id"] for entry in classes],
        "label_descriptions": {entry["id"]: entry["name"] for entry in classes},
        "pretrained_cfg": {
            "input_size": [3, data.image_size, data.image_size],
            "fixed_input_size": True,
            "interpolation": resizing.interpolation,
            "crop_pct": resizing.crop_pct,
            "crop_mode": resizing.crop_mode,
            "mean": list(data.mean),
            "std": list(data.std),
        },
    }
