"""Data module of image classification: the images of both splits as memory maps of pixels, in batches."""

import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from config.ranges import Keys, Range
from datamodules.base import PreparedData
from datamodules.images import augmentation, decoder, image_splits, near_duplicates
from datamodules.images.decoder import Images
from datamodules.images.image_splits import Boxes, Survey
from datamodules.images.listing import Listing, Problem
from datamodules.images.tables import read_groups, read_images
from datamodules.sources import splitting
from datamodules.sources.files import read_bytes
from datamodules.sources.locations import Names
from datamodules.sources.source import SPLITS, Source
from datamodules.sources.splitting import Key, Pairs, Splitting
from datamodules.storage import cache, fingerprint
from datamodules.storage.arrays import TextArray

logger = logging.getLogger(__name__)


class ImageClassificationData(PreparedData):
    """Data module of Tiny ImageNet, or of any folder of class folders: from files, from the Hub or generated.

    `prepare_data` decodes each split once (one process does the work, others wait), `setup` opens the memory maps.
    A batch is a dict: pixels uint8 [B, H, W, 3], labels int64 [B], index int64 [B] (positions in the split).
    `datamodules.images.augmentation` turns it into a network's input, on its device.

    Attributes:
        val: the validation split's images.
        train: the training split's images, after `setup("fit")`.
        train_batches: the training order; the trainer sets its epoch and start.
        augment: augmentation of training batches, with mean and standard deviation.
        mean: of pixels from 0 to 1, for each channel.
        std: standard deviation of pixels from 0 to 1, for each channel.
        image_size: side of the images, in pixels.
        resizing: how images of another size become square.
    """

    val: Images
    train: Images

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        test_file: str | None = None,
        split: Annotated[float, Range(above=0, below=1)] | None = None,
        test_split: Annotated[float, Range(above=0, below=1)] | None = None,
        split_seed: Annotated[int, Range(low=0)] = 0,
        group: str | None = None,
        group_near_duplicates: bool = True,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Shapes")] = None,
        max_train: Annotated[int, Range(low=1)] | None = None,
        max_val: Annotated[int, Range(low=1)] | None = None,
        image_size: Annotated[int, Range(low=8, high=4096)] = 64,
        augment: Annotated[Mapping[str, Any], Keys("datamodules.images.augmentation.configure")] = MappingProxyType({}),
        mean: Sequence[float] = augmentation.Settings.mean,
        std: Sequence[float] = augmentation.Settings.std,
        crop_pct: Annotated[float, Range(above=0)] = 1.0,
        crop_mode: Literal["center", "squash", "border"] = "center",
        interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic",
        batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 64,
        eval_batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 128,
        workers: Annotated[int, Range(low=0, high=1024)] = 0,
        cache_dir: str | None = None,
        verify: Literal["fast", "full"] = "fast",
        seed: Annotated[int, Range(low=0)] = 0,
    ) -> None:
        """Store the settings of conf/data; nothing is read yet.

        Args:
            path: folder with both splits, local or an fsspec URL, see `image_splits.locate`. It, or the files, take
                precedence over `sample`, which takes precedence over `hub`.
            train_file: the training folder or Parquet file, relative to `path` or by its own path.
            val_file: the same for validation.
            test_file: the test file, likewise a folder or a Parquet file; it is read by `python -m trainers evaluate --split test` only.
            split: share of the training images that is the validation part, if that has no file of its own.
            test_split: share of the training images that is the test part.
            split_seed: of the choice of these parts; see `sources.splitting`.
            group: what is in the same part: images in whose paths below their class folders this regular expression's group
                has the same value; of Parquet files the name of a column.
            group_near_duplicates: whether near-duplicates are, too; see `images.near_duplicates`.
            hub: `repo`, `revision`, and the Parquet files of `train` and `val` in it.
            sample: `seed`, `train`, `val`, `classes`, `size` of `datamodules.samples.shapes.write`.
            max_train: maximum number of training images, spread evenly over the classes; None: all.
            max_val: maximum number of validation images, likewise.
            image_size: side of the stored images in pixels; others are resized and cropped to it, once.
            augment: see `augmentation.Settings`.
            mean: of pixels from 0 to 1, for each channel.
            std: standard deviation of pixels from 0 to 1, for each channel.
            crop_pct: how images of another size become square, see `decoder.Resizing`.
            crop_mode: the same.
            interpolation: the same.
            batch_size: images per step, over all processes.
            eval_batch_size: images per forward pass of one process.
            workers: processes that load batches; 0: the main process.
            cache_dir: see `datamodules.storage.cache.root`.
            verify: "full" reads local files and cache entries again even if they look unchanged.
            seed: of the training order.

        Raises:
            InputError: an invalid value.
        """
        source = Source(
            names=Names(path, train_file, val_file, test_file),
            hub=hub,
            sample=sample,
            generator="shapes",
            limits={"train": max_train, "val": max_val},
            selection="balanced",
            layout=image_splits.locate,
            root=cache.root(cache_dir),
            verify=verify,
            content=self._file_content,
            splitting=Splitting(split, test_split, split_seed, group, group_near_duplicates),
        )
        super().__init__(source, batch_size, eval_batch_size, workers, seed)
        self.image_size = image_size
        self.augment = augmentation.make_settings(augment, mean, std)
        self.mean, self.std = self.augment.mean, self.augment.std
        self.resizing = decoder.make_resizing(crop_pct, crop_mode, interpolation, self.mean)
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
        """Number of classes."""
        return len(self.val.classes)

    @property
    def names(self) -> TextArray:
        """[N] ids of the validation images: paths in the data set."""
        return self.val.names

    @property
    def boxes(self) -> Boxes:
        """float32 [N, 4] x0, y0, x1, y1 of the validation images, see `decoder.Images`."""
        return self.val.boxes

    def _describe_data(self) -> dict[str, Any]:
        return {"classes": self.num_classes, "image_size": self.image_size}

    def _describe_split(self, split: str) -> dict[str, Any]:
        return dict(getattr(self, split).counts)

    def _file_content(self, split: str) -> str:
        """Fingerprint of a split of files: of images, labels and boxes."""
        classes, images = self.survey.classes, self.survey.splits[split]
        # A class may be the name of a folder above those that `hash_files` includes.
        rows = zip(images.names, images.labels.tolist(), strict=True)
        labels = hashlib.sha256(repr((classes, list(rows))).encode("utf-8", "surrogateescape")).hexdigest()
        files = fingerprint.hash_files(images.files, self.root, self.verify)
        return hashlib.sha256(f"{files} {labels}".encode()).hexdigest()

    @cached_property
    def survey(self) -> Survey:
        """All images of both splits, and the problems of their files; nothing is decoded."""
        files = {split: self.files(split) for split in SPLITS}
        limits = {split: self.limit(split) for split in SPLITS}
        masks = {split: partial(self._part_mask, split) for split in SPLITS if self._is_taken(split)}
        return image_splits.survey(files, limits, self.source.folder, masks)

    def _part_mask(self, split: str, listing: Listing) -> npt.NDArray[np.bool_]:
        """Which images of the training files are a split, bool [N]; see `_split_keys`."""
        source, groups = self.source, self._groups(listing)

        def images() -> Iterable[str | bytes]:
            if listing.tables:
                return read_images(listing.tables, np.arange(len(listing.names)))
            return listing.paths

        @functools.cache
        def digests() -> list[str]:
            if not listing.tables and not any("://" in path for path in listing.paths):
                paths = [os.path.abspath(path) for path in listing.paths]  # noqa: PTH100
                by_path = fingerprint.digest_files(paths, self.root)
                return [by_path[path] for path in paths]
            contents = (read_bytes(image) if isinstance(image, str) else image for image in images())
            return [hashlib.sha256(content).hexdigest() for content in contents]

        def keys() -> Iterator[Key]:
            """What keeps images together: equal files, and `data.group`; each class gets its share."""
            for digest, group, label in zip(digests(), groups, listing.classes, strict=True):
                yield Key((digest, *([] if group is None else [f"group {group}"])), label)

        def pairs(_: Sequence[Key]) -> Pairs:
            return near_duplicates.near_pairs(images(), digests(), listing.location)

        files = fingerprint.hash_files(listing.tables or listing.paths, self.root, self.verify)
        rows = repr((listing.names, listing.classes, groups)).encode("utf-8", "surrogateescape")
        content = f"{files}-{hashlib.sha256(rows).hexdigest()}"
        return splitting.mask(
            self.root, source.splitting, source.part(split), content, source.variant, keys, pairs, self.verify
        )

    def _groups(self, listing: Listing) -> Sequence[str | None]:
        """The value of `data.group` for each image of the training files.

        Raises:
            InputError: a table lacks the column, or a file's path does not match the regular expression.
        """
        group = self.source.splitting.group
        if group is None:
            return [None] * len(listing.names)
        if listing.tables:
            return read_groups(listing.tables, group)
        return listing.match_groups(group)

    @property
    def problems(self) -> list[Problem]:
        """Problems of local or remote files; generated data and the Hub's have none."""
        return self.survey.problems if self.source.kind == "path" else []

    def _prepare(self, split: str) -> Path:
        if self.source.kind == "path":
            self.survey.valid_split(split)
        key = {
            "source": self.fingerprint(split),
            "split": split,
            "size": self.image_size,
            "resizing": asdict(self.resizing),
            "policy": decoder.POLICY,
        }

        def build(folder: Path) -> None:
            images = self.survey.valid_split(split)
            logger.info("decoding %d images of %s", len(images), images.location)
            decoder.write(images, self.survey.classes, self.image_size, folder, self.resizing)

        return cache.entry(self.root, "images", key, build, self.verify, Images)

    def _open(self, split: str) -> Images:
        images = Images(self.folder(split))
        setattr(self, split, images)
        return images
