"""Images of a few dots, generated."""

from typing import Annotated

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from config import process
from config.ranges import Range
from datamodules.batching import LengthBatches, evaluation_batches
from datamodules.storage import cache


class Dots(pl.LightningDataModule):
    def __init__(
        self,
        *,
        train: Annotated[int, Range(low=1)],
        val: Annotated[int, Range(low=1)],
        side: Annotated[int, Range(low=4, high=64)] = 16,
        batch_size: Annotated[int, Range(low=1)] = 8,
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.counts, self.side, self.batch_size, self.seed = {"train": train, "val": val}, side, batch_size, seed
        self.root = cache.root(cache_dir)

    def prepare_data(self, splits=("train", "val")):
        pass

    def setup(self, stage=None):
        self.val = _Images(self.counts["val"], self.side, 1)
        if stage in ("fit", None):
            self.train = _Images(self.counts["train"], self.side, 0)
            self.train_batches = LengthBatches(
                len(self.train), self.batch_size, self.seed, process.rank(), process.world_size()
            )

    def train_dataloader(self):
        return DataLoader(self.train, sampler=self.train_batches, batch_size=None)

    def val_dataloader(self):
        batches = evaluation_batches(len(self.val), self.batch_size, process.rank(), process.world_size())
        return DataLoader(self.val, sampler=batches, batch_size=None)

    @property
    def fingerprints(self):
        return {split: self.fingerprint(split) for split in self.counts}

    def fingerprint(self, split):
        return f"dots-{self.side}:{split}:{self.counts[split]}"

    def describe(self):
        return {split: {"images": count} for split, count in self.counts.items()}


class _Images(Dataset):
    def __init__(self, count, side, seed):
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 6, count)
        self.pixels = np.zeros((count, side, side), np.float32)
        for image, dots in zip(self.pixels, self.labels, strict=True):
            image.reshape(-1)[random.choice(side * side, dots, replace=False)] = 1.0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, chosen):
        index = np.asarray(chosen)
        return {
            "pixels": torch.from_numpy(self.pixels[index]),
            "labels": torch.from_numpy(self.labels[index].astype(np.float32)),
            "index": torch.from_numpy(index),
        }
