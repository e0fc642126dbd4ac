"""The data of image classification: both splits' images as a memory map of pixels, in batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from config.errors import InputError
from config.ranges import Keys, Range
from datamodules.base import PreparedData
from datamodules.images import augmentation as augmentation
from datamodules.images import decoder, image_splits
from datamodules.images.decoder import Images
from datamodules.images.image_splits import Boxes, Survey
from datamodules.images.listing import Problem
from datamodules.sources.source import SPLITS, Source
from datamodules.storage import cache, fingerprint
from datamodules.storage.arrays import Texts

logger = logging.getLogger(__name__)


class ImageClassificationData(PreparedData):
    """Tiny ImageNet, or any folder of class folders, from a folder, from the Hub or generated.

    `prepare_data` decodes each split once (one process does it, others wait); `setup` opens the memory maps.
    A batch is a dict: pixels uint8 [B, H, W, 3], labels int64 [B], index int64 [B] (positions in the split).
    `datamodules.images.augmentation` makes a network's input of it, on its device.

    Attributes:
        val: the validation split's images.
        train: the training split's images, after `setup("fit")`.
        train_batches: the training order; the trainer sets its epoch and start.
        augment: what is done to training batches, mean and standard deviation included.
        mean: of the pixels from 0 to 1, for each channel.
        std: standard deviation of them.
        image_size: side of the images, in pixels.
    """

    val: Images
    train: Images

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Shapes")] = None,
        max_train: Annotated[int, Range(low=1)] | None = None,
        max_val: Annotated[int, Range(low=1)] | None = None,
        image_size: Annotated[int, Range(low=8, high=4096)] = 64,
        augment: Annotated[Mapping[str, Any], Keys("datamodules.images.augmentation.configure")] = MappingProxyType({}),
        mean: Sequence[float] = augmentation.Settings.mean,
        std: Sequence[float] = augmentation.Settings.std,
        batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 64,
        eval_batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 128,
        workers: Annotated[int, Range(low=0, high=1024)] = 0,
        cache_dir: str | None = None,
        verify: Literal["fast", "full"] = "fast",
        seed: Annotated[int, Range(low=0)] = 0,
    ) -> None:
        """Takes conf/data; nothing is read yet.

        Args:
            path: folder with both splits, local or an fsspec URL, see `image_folder.locate`. It, or the
                files, come before `sample`, that before `hub`.
            train_file: the training folder or Parquet file, by name in `path` or outright.
            val_file: the same for validation.
            hub: `repo`, `revision`, and the Parquet files of `train` and `val` there.
            sample: `seed`, `train`, `val`, `classes` of `datamodules.samples.shapes.write`.
            max_train: at most so many training images, evenly over the classes; None for all.
            max_val: the same for validation.
            image_size: side of the stored images in pixels; others are resized and cropped to it, once.
            augment: see `augment.Settings`.
            mean: of the pixels from 0 to 1, for each channel.
            std: standard deviation of them.
            batch_size: images per step, over all processes.
            eval_batch_size: images per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is decoded by then).
            cache_dir: see `datamodules.storage.cache.root`.
            verify: "full" reads local files again even if they look unchanged.
            seed: of the training order.

        Raises:
            InputError: a value that cannot be.
        """
        source = Source(
            path=path,
            train_file=train_file,
            val_file=val_file,
            hub=hub,
            sample=sample,
            generator="shapes",
            limits={"train": max_train, "val": max_val},
            selection="balanced",
            layout=image_splits.layout,
            root=cache.root(cache_dir),
            verify=verify,
            content=self._content,
        )
        super().__init__(source, batch_size, eval_batch_size, workers, seed)
        self.image_size = image_size
        self.augment = augmentation.make_settings(augment, mean, std)
        self.mean, self.std = self.augment.mean, self.augment.std
        if self.augment.crop_padding >= image_size:
            raise InputError(
                f"data.augment.crop_padding={self.augment.crop_padding} must be less than data.image_size={image_size}"
            )

    @property
    def classes(self) -> list[dict[str, str]]:
        """[{"id", "name"}, ...] in the order of the labels."""
        return self.val.classes

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.val.classes)

    @property
    def names(self) -> Texts:
        """[N] ids of the validation images: paths in the data set."""
        return self.val.names

    @property
    def boxes(self) -> Boxes:
        """float32 [N, 4] x0, y0, x1, y1 of the validation images, see `pixels.Images`."""
        return self.val.boxes

    def _facts(self) -> dict[str, Any]:
        return {"classes": self.num_classes, "image_size": self.image_size}

    def _counts(self, split: str) -> dict[str, Any]:
        return dict(getattr(self, split).about)

    def _content(self, split: str) -> str:
        """The fingerprint of a split of local files: of images, labels and boxes."""
        classes, images = self.survey.classes, self.survey.splits[split]
        # A file's class may stand in a folder's name above what `of_files` sees.
        rows = zip(images.names, images.labels.tolist(), strict=True)
        labels = hashlib.sha256(repr((classes, list(rows))).encode("utf-8", "surrogateescape")).hexdigest()
        files = fingerprint.hash_files(images.files, self.root, self.source.verify)
        return hashlib.sha256(f"{files} {labels}".encode()).hexdigest()

    @cached_property
    def survey(self) -> Survey:
        """All images there are, and what is wrong with their files; nothing is decoded yet."""
        files = {split: self.files(split) for split in SPLITS}
        return image_splits.survey(files, self.source.limits, self.source.folder)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with files of a folder; what is generated or from the Hub has no such files."""
        return self.survey.problems if self.source.kind == "path" else []

    def _prepare(self, split: str) -> Path:
        if self.source.kind == "path":
            self.survey.sound(split)
        key = {
            "source": self.fingerprint(split),
            "split": split,
            "size": self.image_size,
            "policy": decoder.POLICY,
        }

        def build(folder: Path) -> None:
            images = self.survey.sound(split)
            logger.info("decoding %d images of %s", len(images), images.place)
            decoder.write(images, self.survey.classes, self.image_size, folder)

        return cache.entry(self.root, "images", key, build)

    def _open(self, split: str) -> Images:
        images = Images(self.folder(split))
        setattr(self, split, images)
        return images
