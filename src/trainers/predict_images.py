"""Prediction for image classification: labels of images."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from config.errors import InputError, input_errors
from datamodules.images import augmentation, decoder, folders
from datamodules.sources.files import read_bytes
from trainers import classification, onnx_network, predict, stem, weights
from trainers.evaluate import load_network
from trainers.image_classification import network_arguments
from trainers.inference import image_logits
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)

SUFFIXES = (*folders.SUFFIXES, ".gif")


class ImagePredictor:
    """A saved image classifier with its weights; it classifies as validation does.

    Attributes:
        network: of timm, or one of the user's own.
        required: keys of the rows of `predict` besides id that may not be missing.
        columns: names of the columns of its inputs, by key of the rows of `predict`.
        names: [C] ids of the classes.
        prepare: function from an encoded image to uint8 [H, W, 3].
    """

    required = ("image",)

    def __init__(self, model: SavedModel) -> None:
        """Load the model."""
        self.model = model
        self.columns = {"image": "image"}
        self.device = predict.default_device()
        settings = model.module.data_config(model)
        network = load_network(model) if model.is_network else _load_timm(model, settings["image_size"])
        preprocessing = model.config.get("pretrained_cfg") or {}
        self.names: list[str] = (
            model.config.get("label_names")
            or preprocessing.get("label_names")
            or [str(number) for number in range(network.num_classes)]
        )
        self.normalisation = augmentation.make_settings(None, settings["mean"], settings["std"])
        self.prepare = _make_prepare(settings)
        network.to(memory_format=torch.channels_last)
        self.network = predict.prepare_network(network, self.device, model.precision)

    def logits(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits, float32 [B, C], of images returned by `prepare`."""
        batch = torch.stack(list(images)).to(self.device)
        if batch.dtype == torch.uint8:
            batch = augmentation.normalise_batch(batch, self.normalisation)
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            return image_logits(self.network, batch)

    def predict(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Return a row for each image, as `predict_images`.

        Args:
            rows: id, and image, the content of a file.
            batch_size: images in a forward pass.

        Raises:
            InputError: an image cannot be read.
        """
        predictions = []
        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            top = classification.top_classes(self.logits([self._prepare(row["id"], row["image"]) for row in chunk]))
            for row, probabilities, classes in zip(chunk, top.values.tolist(), top.indices.tolist(), strict=True):
                fields = classification.prediction_fields(probabilities, classes, self.names, "top5")
                predictions.append({"id": row["id"], **fields, "probabilities": probabilities})
        return predictions

    def _prepare(self, name: str, content: bytes) -> torch.Tensor:
        # Pillow raises many kinds of exceptions on broken content.
        with input_errors(lambda error: f"{name} cannot be read as an image: {decoder.describe_error(error)}"):
            return self.prepare(content)


def _load_timm(model: SavedModel, image_size: int) -> Any:
    if onnx_network.is_onnx(model.folder):
        return onnx_network.load(model.folder)
    name = str(model.config["architecture"])
    arguments = network_arguments(name, None, model.module.model_config(model)["arguments"], image_size)
    with input_errors(lambda error: f"run={model.folder}: cannot load the model: {weights.describe_mismatch(error)}"):
        network, _ = weights.load_timm(name, model.folder, None, **arguments)
    if stem.has_small_stem(model.config):
        stem.use_small_stem(network)
    return network


def predict_images(
    model: SavedModel, files: Sequence[str], stdin: TextIO, batch_size: int, offset: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield a row for each image: id (its path), prediction, probability, top5, probabilities.

    Args:
        model: the saved model.
        files: images, or folders of images; empty to read one path a line from standard input.
        stdin: standard input.
        batch_size: images in a forward pass.
        offset: number of the first inputs whose predictions are there: their rows may have nothing but the id.

    Raises:
        InputError: an image cannot be read.
    """
    predictor = ImagePredictor(model)
    for chunk, is_new in predict.chunks_after(image_paths(files, stdin), batch_size, offset):
        if not is_new:
            yield from ({"id": str(path)} for path in chunk)
            continue
        yield from predictor.predict([{"id": str(path), "image": _read(path)} for path in chunk], batch_size)


def image_paths(files: Sequence[str], stdin: TextIO) -> Iterator[Path]:
    """Yield the named images, and the images in named folders. A warning counts the other files of a folder."""
    for name in files or (line.strip() for line in stdin if line.strip()):
        folder = Path(name)
        if not folder.is_dir():
            yield folder
            continue
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        images = [path for path in paths if path.suffix.lower() in SUFFIXES]
        if not images:
            raise InputError(f"{name}: there are no images in this folder ({', '.join(SUFFIXES)})")
        if skipped := [path for path in paths if path.suffix.lower() not in SUFFIXES]:
            logger.warning("%s: skipped %d file(s) that are not images, such as %s", name, len(skipped), skipped[0])
        yield from images


def _make_prepare(settings: Mapping[str, Any]) -> Callable[[bytes], torch.Tensor]:
    """Return a function that prepares an encoded image as validation does, with settings of conf/data."""
    names = ("crop_pct", "crop_mode", "interpolation", "mean")
    resizing = decoder.make_resizing(**{name: settings[name] for name in names})
    return lambda content: torch.from_numpy(np.array(decoder.decode(content, settings["image_size"], resizing)[0]))


def _read(path: Path) -> bytes:
    with input_errors(lambda error: f"{path} cannot be read as an image: {decoder.describe_error(error)}"):
        return read_bytes(str(path))
