"""The data of image classification: both splits' images as a memory map of pixels, in batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from config import process
from config.errors import Refused
from config.ranges import Keys, Range
from datamodules import augment as augmentation
from datamodules import cache, fingerprint, image_folder, pixels, sources
from datamodules.arrays import Texts
from datamodules.batching import EvaluationBatches, LengthBatches, evaluation_batches
from datamodules.image_folder import Boxes, Problem, Survey
from datamodules.pixels import Images

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")


class ImageClassificationData(pl.LightningDataModule):
    """Tiny ImageNet, or any folder of class folders, from a folder, from the Hub or generated.

    `prepare_data` decodes each split once (one process does it, others wait); `setup` opens the memory maps.
    A batch is a dict: pixels uint8 [B, H, W, 3], labels int64 [B], index int64 [B] (positions in the split).
    `datamodules.augment` makes a network's input of it, on its device.

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
    train_batches: LengthBatches

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.shapes.write", ("folder",))] = None,
        max_train: Annotated[int, Range(low=1)] | None = None,
        max_val: Annotated[int, Range(low=1)] | None = None,
        image_size: Annotated[int, Range(low=8, high=4096)] = 64,
        augment: Annotated[Mapping[str, Any], Keys("datamodules.augment.configure")] = MappingProxyType({}),
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
            sample: `seed`, `train`, `val`, `classes` of `datamodules.shapes.write`.
            max_train: at most so many training images, evenly over the classes; None for all.
            max_val: the same for validation.
            image_size: side of the stored images in pixels; others are resized and cropped to it, once.
            augment: see `augment.Settings`.
            mean: of the pixels from 0 to 1, for each channel.
            std: standard deviation of them.
            batch_size: images per step, over all processes.
            eval_batch_size: images per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is decoded by then).
            cache_dir: see `datamodules.cache.root`.
            verify: "full" reads local files again even if they look unchanged.
            seed: of the training order.

        Raises:
            Refused: a value that cannot be.
        """
        super().__init__()
        self._files = {"path": path, "train_file": train_file, "val_file": val_file}
        self._hub, self._sample = hub, sample
        self._limits = {"train": max_train, "val": max_val}
        self.image_size = image_size
        self.augment = augmentation.settings(augment, mean, std)
        self.mean, self.std = self.augment.mean, self.augment.std
        if self.augment.crop_padding >= image_size:
            raise Refused(
                f"data.augment.crop_padding={self.augment.crop_padding} must be less than data.image_size={image_size}"
            )
        self.batch_size, self.eval_batch_size, self.workers = batch_size, eval_batch_size, workers
        self.root = cache.root(cache_dir)
        self._verify = verify
        self.seed = seed
        self._folders: dict[str, Path] = {}

    # -- what there is -----------------------------------------------------------------------------------

    def prepare_data(self, splits: Sequence[str] = SPLITS) -> None:
        """Decodes the splits into the cache, unless they are there.

        Raises:
            Refused: images that no model could be trained on.
        """
        for split in splits:
            self._folder(split)

    def setup(self, stage: str | None = None) -> None:
        """Opens the validation split, and for stages "fit" and None the training split."""
        if not hasattr(self, "val"):
            self.val = Images(self._folder("val"))
        if stage in ("fit", None) and not hasattr(self, "train"):
            self.train = Images(self._folder("train"))
            self.train_batches = LengthBatches(
                len(self.train), self.batch_size, self.seed, process.rank(), process.world_size()
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank in the order of `train_batches`."""
        return self._loader(self.train, self.train_batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank; over all ranks each image once."""
        batches = evaluation_batches(len(self.val), self.eval_batch_size, process.rank(), process.world_size())
        return self._loader(self.val, batches)

    def _loader(self, images: Images, batches: LengthBatches | EvaluationBatches) -> DataLoader[Any]:
        return DataLoader(
            _Batches(images),
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
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

    @property
    def fingerprints(self) -> dict[str, str]:
        """By split."""
        return {split: self.fingerprint(split) for split in SPLITS}

    def fingerprint(self, split: str) -> str:
        """Of images, labels and boxes; `repo@revision` for Hub data; with the limit, if there is one."""
        source = self._source_fingerprints[split] if self._kind != "path" else self._local_fingerprint(split)
        limit = self._limits[split]
        return source if limit is None else f"{source}:balanced-{limit}"

    def describe(self) -> dict[str, Any]:
        """Counts and places of what is open, for run.json."""
        about: dict[str, Any] = {
            "source": self._kind,
            "classes": self.num_classes,
            "image_size": self.image_size,
        }
        for split in SPLITS:
            if hasattr(self, split):
                about[split] = {
                    "fingerprint": self.fingerprint(split),
                    "cache": str(self._folders[split]),
                    **getattr(self, split).about,
                }
        return about

    # -- where it comes from -----------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return sources.kind(self._files, self._sample, self._hub, "shapes")

    @cached_property
    def _source_fingerprints(self) -> dict[str, str]:
        if self._kind == "sample":
            return {split: f"shapes-{self._sample_folder.name}:{split}" for split in SPLITS}
        return {split: sources.fingerprint_of(self._hub or {}, split) for split in SPLITS}

    def _local_fingerprint(self, split: str) -> str:
        cached: dict[str, str] = self.__dict__.setdefault("_fingerprints", {})
        if split not in cached:
            classes, here = self.survey.classes, self.survey.splits[split]
            # A file's class may stand in a folder's name above what `of_files` sees.
            rows = zip(here.names, here.labels.tolist(), strict=True)
            labelled = hashlib.sha256(repr((classes, list(rows))).encode("utf-8", "surrogateescape")).hexdigest()
            files = fingerprint.of_files(here.files, self.root, self._verify)
            cached[split] = hashlib.sha256(f"{files} {labelled}".encode()).hexdigest()
        return cached[split]

    @cached_property
    def survey(self) -> Survey:
        """All images there are, and what is wrong with their files; nothing is decoded yet."""
        if self._kind == "hub":
            hub = dict(self._hub or {})
            places = {split: sources.hub(hub["repo"], hub["revision"], hub[split]) for split in SPLITS}
            return image_folder.survey(places, self._limits)
        given = {"path": str(self._sample_folder)} if self._kind == "sample" else self._files
        return image_folder.survey(image_folder.locate(**given), self._limits, given["path"])

    def limit(self, split: str) -> int | None:
        """How many images of a split count, evenly over the classes; None: all."""
        return self._limits[split]

    @property
    def place(self) -> str:
        """Where it comes from, whatever is there today."""
        return sources.place(self._kind, self._files, self._sample, self._hub)

    def expected(self, split: str) -> int | None:
        """How many images there must be, as far as the configuration says it."""
        return sources.expected(self._sample if self._kind == "sample" else None, self._limits[split], split)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with files of a folder; what is generated or from the Hub has no such files."""
        return self.survey.problems if self._kind == "path" else []

    @cached_property
    def _sample_folder(self) -> Path:
        from datamodules import shapes

        return sources.sample(self.root, shapes, self._sample or {})

    def _folder(self, split: str) -> Path:
        if split not in self._folders:
            if self._kind == "path":
                self.survey.sound(split)
            key = {
                "source": self.fingerprint(split),
                "split": split,
                "size": self.image_size,
                "policy": pixels.POLICY,
            }

            def build(folder: Path) -> None:
                found = self.survey.sound(split)
                logger.info("decoding %d images of %s", len(found), found.place)
                pixels.write(found, self.survey.classes, self.image_size, folder)

            self._folders[split] = cache.entry(self.root, "images", key, build)
        return self._folders[split]


class _Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Lists of images to batches: the loader's sampler yields whole batches."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        index = np.asarray(chosen, np.int64)
        return {
            "pixels": torch.from_numpy(self.images.gather(index)),
            "labels": torch.from_numpy(self.images.labels[index]),
            "index": torch.from_numpy(index),
        }
