"""Image classification: any timm model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch.nn.functional import cross_entropy

from config.errors import InputError
from config.ranges import Range
from datamodules.image_classification import ImageClassificationData
from datamodules.images import augmentation
from trainers import classification
from trainers import stem as stems
from trainers.inference import image_logits
from trainers.task import Result, Task

Batch = dict[str, torch.Tensor]


class ImageClassification(Task):
    """Learns the class of an image from uint8 pixels, augmented in batches on the device."""

    def __init__(
        self,
        data: ImageClassificationData,
        optim: Mapping[str, Any],
        name: str,
        pretrained: str | bool | None = False,
        stem: Literal["standard", "small"] = "standard",
        dropout: Annotated[float, Range(low=0, below=1)] | None = 0.0,
        drop_path: Annotated[float, Range(low=0, below=1)] = 0.0,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Builds the network.

        Args:
            data: gives the classes, the image size, mean and standard deviation, and the augmentation.
            optim: conf/optim.
            name: of a timm model.
            pretrained: True for timm's own weights, a timm model folder for those, False or None for random weights.
            stem: "small" for a 3x3 first convolution without stride, "standard" for timm's own.
            dropout: before the classifier.
            drop_path: stochastic depth.
            arguments: further arguments of timm.create_model.

        Raises:
            InputError: a name that timm does not know, weights that cannot be had, or arguments it does not take.
        """
        super().__init__(optim)
        self.data = data
        self.stem = stem
        self.arguments = {**dict(arguments or {})}
        if dropout:
            self.arguments["drop_rate"] = dropout
        if drop_path:
            self.arguments["drop_path_rate"] = drop_path
        self.model = build_network(name, pretrained, self.arguments, data)
        if stem == "small":
            stems.use_small_stem(self.model)
        self.model.to(memory_format=torch.channels_last)

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean loss of the augmented batch."""
        data = self.data
        images, targets = augmentation.augment_batch(batch["pixels"], batch["labels"], data.num_classes, data.augment)
        return cross_entropy(image_logits(self.model, images), targets)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keeps each image's loss and its best classes."""
        images = augmentation.normalise_batch(batch["pixels"], self.data.augment)
        self.collected.append(classification.batch_outputs(batch, image_logits(self.model, images)))

    def score(self, collected: list[Any]) -> Result:
        """Top-1 and top-5 accuracy and the mean loss; a row per image; accuracy and confusions by class."""
        return image_result(classification.merge_outputs(collected), self.data)

    def export(self, folder: str) -> None:
        """A timm folder (`timm.create_model("local-dir:<folder>", pretrained=True)`): safetensors, labels, preprocessing."""
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        small = self.stem == "small"
        save_file(stems.enlarge_stem(state) if small else state, path / "model.safetensors")
        size = self.data.image_size * (2 if small else 1)
        classes = self.data.classes
        preprocessing = {
            "input_size": [3, size, size],
            "interpolation": "nearest" if small else "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(self.data.mean),
            "std": list(self.data.std),
        }
        config = {
            "architecture": self.model.pretrained_cfg["architecture"],
            "num_classes": self.data.num_classes,
            "num_features": self.model.num_features,
            "model_args": self.arguments,
            "label_names": [entry["id"] for entry in classes],
            "label_descriptions": {entry["id"]: entry["name"] for entry in classes},
            "pretrained_cfg": {
                **{key: self.model.pretrained_cfg.get(key) for key in ("tag", "first_conv", "classifier")},
                **preprocessing,
                "num_classes": self.data.num_classes,
            },
        }
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def image_result(found: classification.ClassOutputs, data: ImageClassificationData) -> Result:
    """Metrics, rows of predictions.jsonl and details of a validation."""
    names = [entry["id"] for entry in data.classes]
    metrics = {**classification.loss_and_accuracy(found), "val_top5_accuracy": classification.top_accuracy(found)}
    rows = list(classification.prediction_rows(found, data.names, names, "top5"))
    return metrics, rows, classification.class_details(found.labels, found.classes[:, 0], names)


def build_network(
    name: str, pretrained: str | bool | None, arguments: dict[str, Any], data: ImageClassificationData
) -> Any:
    """A timm model for this data: of its classes, and of its image size where the architecture fixes one.

    Raises:
        InputError: a name that timm does not know, weights that cannot be had, or arguments it does not take.
    """
    import timm

    given = {**arguments, "num_classes": data.num_classes}
    source: str = name
    if isinstance(pretrained, str):
        if not (Path(pretrained) / "config.json").is_file():
            raise InputError(f"model.pretrained={pretrained}: not a timm model folder (it has no config.json)")
        source = f"local-dir:{pretrained}"
        name = json.loads((Path(pretrained) / "config.json").read_text())["architecture"]
    if not timm.is_model(name.split(".")[0]):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        raise InputError(f"model.name={name}: timm has no such model; near it: {', '.join(close) or 'none'}")
    from datamodules.sources.hub_errors import explain_hub_error, work_offline_if_unreachable

    if timm.models.is_model_in_modules(name.split(".")[0], ["vision_transformer", "swin_transformer", "deit", "beit"]):
        given.setdefault("img_size", data.image_size)
    if pretrained is True:
        work_offline_if_unreachable()
    try:
        return timm.create_model(source, pretrained=bool(pretrained), **given)
    except TypeError as error:
        raise InputError(f"model.arguments: timm's {name} does not take them ({error})") from error
    except Exception as error:
        if message := explain_hub_error(error, f"model.name={name} model.pretrained=true"):
            raise InputError(message) from error
        raise InputError(f"model.name={name}: timm cannot make it: {str(error).strip().splitlines()[0]}") from error
