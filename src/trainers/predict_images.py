"""`python -m trainers predict` of image classification: labels of images."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from config.errors import InputError
from datamodules.images import augmentation, decoder, folders
from datamodules.sources.files import read_bytes
from trainers import classification, predict
from trainers import stem as stems
from trainers.inference import image_logits
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)

SUFFIXES = (*folders.SUFFIXES, ".gif")
Prepare = Callable[[bytes], torch.Tensor]


class ImagePredictor:
    """A saved model that classifies images, as its validation does.

    Attributes:
        names: [C] ids of the classes.
        prepare: an encoded image to uint8 [H, W, 3], or, of a timm folder that is not ours, to what timm makes of it.
    """

    def __init__(self, model: SavedModel) -> None:
        """Loads the model."""
        import timm

        self.model = model
        self.device = predict.default_device()
        network = timm.create_model(f"local-dir:{model.folder}", pretrained=True)
        about = model.config.get("pretrained_cfg") or {}
        self.names: list[str] = (
            model.config.get("label_names")
            or about.get("label_names")
            or [str(number) for number in range(network.num_classes)]
        )
        settings = model.module.data_config(model)
        self.normalisation = augmentation.make_settings(
            None, *(settings[key] for key in ("mean", "std") if key in settings)
        )
        self.prepare = _prepare(network, about, settings["image_size"])
        if stems.has_small_stem(model.config):
            stems.use_small_stem(network)
        network.to(memory_format=torch.channels_last)
        self.network = predict.prepare_network(network, self.device)

    def logits(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits, float32 [B, C], of what `prepare` gives."""
        batch = torch.stack(list(images)).to(self.device)
        if batch.dtype == torch.uint8:
            batch = augmentation.normalise_batch(batch, self.normalisation)
        with torch.inference_mode(), predict.autocast(self.model, self.device):
            return image_logits(self.network, batch)


def predict_images(model: SavedModel, files: Sequence[str], stdin: TextIO, batch_size: int) -> Iterator[dict[str, Any]]:
    """A row for each image: id (its path), prediction, probability, top5, probabilities.

    Args:
        model: the saved one.
        files: images, or folders of images; none reads one path a line from standard input.
        stdin: standard input.
        batch_size: images in a forward pass.

    Raises:
        InputError: an image that cannot be read.
    """
    classifier = ImagePredictor(model)
    for chunk in predict.chunks(paths(files, stdin), batch_size):
        best = classification.top_classes(classifier.logits([_read(path, classifier.prepare) for path in chunk]))
        for path, probabilities, classes in zip(chunk, best.values.tolist(), best.indices.tolist(), strict=True):
            row = classification.prediction_fields(probabilities, classes, classifier.names, "top5")
            yield {"id": str(path), **row, "probabilities": probabilities}


def paths(files: Sequence[str], stdin: TextIO) -> Iterator[Path]:
    """The images that are named, and those in the folders that are named; what is left out of a folder is said."""
    for name in files or (line.strip() for line in stdin if line.strip()):
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        images = [file for file in inside if file.suffix.lower() in SUFFIXES]
        if not images:
            raise InputError(f"{name}: there are no images in this folder ({', '.join(SUFFIXES)})")
        if left_out := [file for file in inside if file.suffix.lower() not in SUFFIXES]:
            logger.warning(
                "%s: %d file(s) are not images and are left out, such as %s", name, len(left_out), left_out[0]
            )
        yield from images


def _prepare(network: Any, about: dict[str, Any], size: int) -> Prepare:
    """What makes a network's input of an encoded image."""
    if about.get("crop_pct") == 1.0 and about.get("crop_mode") == "center":  # as training prepares images
        return lambda content: torch.from_numpy(np.array(decoder.decode(content, size)[0]))
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, model=network), is_training=False)

    def prepare(content: bytes) -> torch.Tensor:
        with decoder.open_image(content) as image:
            return transform(decoder.to_rgb(image))  # type: ignore[no-any-return]

    return prepare


def _read(path: Path, prepare: Prepare) -> torch.Tensor:
    try:
        return prepare(read_bytes(str(path)))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise of all kinds on broken content
        raise InputError(f"{path} cannot be read as an image: {decoder.describe_error(error)}") from error
