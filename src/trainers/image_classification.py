"""Image classification: any timm model."""

import difflib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

from config.errors import InputError
from config.parsing import read_json
from config.ranges import Range
from datamodules.image_classification import ImageClassificationData
from datamodules.images import augmentation
from runs import digests
from trainers import classification, image_sizes, initial_weights, onnx_network, weights
from trainers.image_preprocessing import read_arguments
from trainers.inference import image_logits
from trainers.pointwise_maps import guard_strides
from trainers.stem import enlarge_stem, use_small_stem
from trainers.task import Result, Task

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
LARGE_IMAGE = 128  # pixels, from which on the small stem is warned of
LATE_IMPORTS = ("timm",)  # of functions, for trials that are forked
WEIGHT_ALTERNATIVES = "model.pretrained=false for random weights, or model.pretrained=<timm model folder>"


class ImageClassification(Task):
    """LightningModule that learns the class of an image from uint8 pixels, augmented in batches on the device."""

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
        """Build the network.

        Args:
            data: data module with the classes, the image size, mean and standard deviation, and the augmentation.
            optim: conf/optim.
            name: name of a timm model.
            pretrained: True for timm's own weights, a timm model folder for those, False or None for random weights.
            stem: "small" for a 3x3 first convolution without stride, "standard" for timm's own.
            dropout: dropout before the classifier.
            drop_path: stochastic depth.
            arguments: further arguments of timm.create_model.

        Raises:
            InputError: an unknown name, unavailable weights, or arguments that timm does not take.
        """
        super().__init__(optim)
        self.data = data
        self.stem = stem
        self.arguments = dict(arguments or {})
        if dropout:
            self.arguments["drop_rate"] = dropout
        if drop_path:
            self.arguments["drop_path_rate"] = drop_path
        self.arguments = network_arguments(name, pretrained, self.arguments, data.image_size)
        self.model, self.new_parameters = build_network(name, pretrained, self.arguments, data.num_classes)
        if onnx_network.is_onnx_network(self.model):
            return
        if stem == "small":
            use_small_stem(self.model)
        self.model.to(memory_format=torch.channels_last)
        guard_strides(self.model)

    @staticmethod
    def check_config(config: DictConfig) -> None:
        """Check that timm has the network and its weights, and that it takes images of the data's size.

        Weights that `init_from` or a population replaces are not needed.

        Raises:
            InputError: it does not, or its weights are not on this machine and the Hub cannot be reached.
        """
        model = config.model
        arguments: Any = OmegaConf.to_container(model.arguments, resolve=True) if model.arguments else {}
        image_sizes.check_arguments(arguments)
        network_arguments(model.name, model.pretrained, arguments, config.data.image_size)
        if model.pretrained is True and not initial_weights.has_source(config):
            _check_weights(str(model.name))
        if model.stem == "small" and config.data.image_size >= LARGE_IMAGE:
            logger.warning(
                "model.stem=small is for images of about 64 pixels: at data.image_size=%d each step takes four times the "
                "time and memory of model.stem=standard",
                config.data.image_size,
            )

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Return the mean loss of the augmented batch."""
        data = self.data
        images, targets = augmentation.augment_batch(batch["pixels"], batch["labels"], data.num_classes, data.augment)
        return self.training_loss(image_logits(self.model, images), targets)

    def training_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits [B, C]; targets are classes, int64 [B], or probabilities, float32 [B, C]."""
        return cross_entropy(logits, targets)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the loss and the best classes of each image."""
        images = augmentation.normalise_batch(batch["pixels"], self.data.augment)
        self.collected.append(classification.batch_outputs(batch, image_logits(self.model, images)))

    def score(self, collected: list[Any]) -> Result:
        """Compute top-1 and top-5 accuracy and the mean loss; a row for each image; accuracy and confusions by class."""
        return image_result(classification.merge_outputs(collected), self.data)

    def export(self, folder: str) -> None:
        """Write a timm folder (`timm.create_model("local-dir:<folder>", pretrained=True)`): safetensors, config.json."""
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.model.state_dict().items()}
        small = self.stem == "small"
        save_file(enlarge_stem(state) if small else state, path / "model.safetensors")
        size = self.data.image_size * (2 if small else 1)
        classes, resizing = self.data.classes, self.data.resizing
        timm_config = self.model.pretrained_cfg
        config = {
            "architecture": timm_config["architecture"],
            "num_classes": self.data.num_classes,
            "num_features": self.model.num_features,
            "model_args": self.arguments,
            **({"small_stem": {"interpolation": resizing.interpolation}} if small else {}),
            "label_names": [entry["id"] for entry in classes],
            "label_descriptions": {entry["id"]: entry["name"] for entry in classes},
            "pretrained_cfg": {
                **{key: timm_config.get(key) for key in ("tag", "first_conv", "classifier")},
                "input_size": [3, size, size],
                "fixed_input_size": self.arguments.get("img_size") == size,
                "interpolation": "box" if small else resizing.interpolation,
                "crop_pct": resizing.crop_pct,
                "crop_mode": resizing.crop_mode,
                "mean": list(self.data.mean),
                "std": list(self.data.std),
                "num_classes": self.data.num_classes,
            },
        }
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if small:
            logger.info(
                "model.stem=small: plain timm's predictions of model/ are the same for images of %d x %d pixels; it prepares "
                "others with a box filter instead of %s, so that predictions may differ slightly (docs/runs.md)",
                *(self.data.image_size, self.data.image_size, resizing.interpolation),
            )


def image_result(outputs: classification.ClassOutputs, data: ImageClassificationData) -> Result:
    """Return metrics, rows of predictions.jsonl and details of a validation."""
    names = [entry["id"] for entry in data.classes]
    metrics = {**classification.loss_and_accuracy(outputs), "val_top5_accuracy": classification.top_accuracy(outputs)}
    rows = list(classification.prediction_rows(outputs, data.names, names, "top5"))
    details = classification.class_details(classification.confusion_matrix(outputs, len(names)), names)
    return metrics, rows, details


def _check_weights(name: str) -> None:
    """Say which weights are fine-tuned.

    Raises:
        InputError: timm has none, or they are not on this machine and the Hub cannot be reached.
    """
    import timm

    from datamodules.sources import hub, hub_errors

    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        raise InputError(f"model.name={name}: timm has no weights for it; use {WEIGHT_ALTERNATIVES}")
    repository = settings.hf_hub_id
    files = ("model.safetensors", "pytorch_model.bin")
    is_cached = not repository or any(hub.cached_path(repository, "main", file, "model") for file in files)
    if not is_cached and hub_errors.work_offline_if_unreachable():
        reason = hub_errors.offline_reason() or "no network"
        subject = f"the weights {repository} (model.pretrained=true)"
        raise InputError(hub_errors.unreachable_message(subject, WEIGHT_ALTERNATIVES, reason))
    logger.info(
        "fine-tuning the weights %s (model.pretrained=false: random weights)", repository or settings.url or name
    )


def build_network(
    name: str, pretrained: str | bool | None, arguments: Mapping[str, Any], num_classes: int
) -> tuple[Any, tuple[str, ...]]:
    """Build a timm model.

    Args:
        name: name of a timm model.
        pretrained: True for timm's own weights, a timm model folder for those, False or None for random weights.
        arguments: arguments of timm.create_model, from `network_arguments`.
        num_classes: number of classes.

    Returns:
        The network, and the names of the parameters of its classifier that the checkpoint lacks, which are random; empty
        without a checkpoint.

    Raises:
        InputError: unavailable weights, or weights of another architecture.
    """
    import timm

    from datamodules.sources.hub_errors import explain_hub_error, work_offline_if_unreachable

    if pretrained is True:
        work_offline_if_unreachable()
        logger.info("loading the pretrained weights of %s from the Hub, or its cache", name)
    try:
        if not pretrained:
            return timm.create_model(name, num_classes=num_classes, **arguments), ()
        folder = Path(pretrained) if isinstance(pretrained, str) else None
        if folder is not None and onnx_network.is_onnx(folder):
            return onnx_network.load(folder), ()
        return weights.load_timm(name, folder, num_classes, **arguments)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if message := explain_hub_error(error, f"model.name={name} model.pretrained=true", WEIGHT_ALTERNATIVES):
            raise InputError(message) from error
        raise InputError(f"model.name={name}: timm cannot build it: {weights.describe_mismatch(error)}") from error


def network_arguments(
    name: str, pretrained: str | bool | None, arguments: Mapping[str, Any], image_size: int
) -> dict[str, Any]:
    """Return the arguments of timm.create_model: those of a model folder, the configured ones and the image size.

    The folder's image size is left out: a network for other images has another one.

    Args:
        name: name of a timm model.
        pretrained: a timm model folder, whose architecture replaces `name`; anything else has no arguments.
        arguments: the configured ones.
        image_size: side of the images, in pixels.

    Raises:
        InputError: timm has no such model, the folder is none of timm's, or the network does not take the arguments or
            images of the size.
    """
    import timm

    folder_arguments: dict[str, Any] = {}
    if isinstance(pretrained, str):
        path = Path(pretrained) / "config.json"
        if not path.is_file():
            raise InputError(f"model.pretrained={pretrained}: not a timm model folder (it has no config.json)")
        digests.check_model(path.parent)
        config = read_json(path)
        name = config["architecture"]
        stored = read_arguments(config)
        folder_arguments = {key: value for key, value in stored.items() if key not in ("img_size", "num_classes")}
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        hint = (
            f"similar: {', '.join(similar)}"
            if similar
            else "python -c 'import timm; print(timm.list_models())' lists all"
        )
        raise InputError(f"model.name={name}: timm has no such model; {hint}")
    merged = {**folder_arguments, **arguments}
    return merged | image_sizes.size_arguments(architecture, merged, image_size)
