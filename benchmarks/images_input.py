"""The input pipeline of images, with crop, flip and normalising, against torchvision's ImageFolder recipe.

`python -m benchmarks.images_input --data <unpacked tiny-imagenet-200>`; without --data, generated shapes.
Both give float32 batches of a whole epoch in a random order. Nothing is trained meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks import measure
from datamodules.image_classification import ImageClassificationData
from datamodules.images import augmentation
from datamodules.samples import shapes

SIZE, PADDING, WORKERS = 64, 8, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The same augmentations as a torchvision recipe writes them, with PIL images and with tensors.
RECIPES = {
    "ImageFolder + DataLoader(num_workers=2), transforms": transforms.Compose(
        [
            transforms.RandomCrop(SIZE, PADDING, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    ),
    "ImageFolder + DataLoader(num_workers=2), transforms.v2": v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomCrop(SIZE, PADDING, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    ),
}


def opened(folder: Path, cache: Path, batch_size: int) -> ImageClassificationData:
    """Our data, decoded unless it is in the cache."""
    data = ImageClassificationData(
        path=str(folder),
        cache_dir=str(cache),
        image_size=SIZE,
        batch_size=batch_size,
        augment={"crop_padding": PADDING, "flip": True},
        mean=MEAN,
        std=STD,
    )
    data.prepare_data()
    data.setup()
    return data


def epoch(data: ImageClassificationData, number: int, dtype: torch.dtype = torch.float32) -> int:
    """Augments every batch of an epoch; how many images that were."""
    data.train_batches.set_epoch(number)
    images = 0
    for batch in data.train_dataloader():
        made, _ = augmentation.augment_batch(batch["pixels"], batch["labels"], data.num_classes, data.augment, dtype)
        images += len(made)
    return images


def warm(data: ImageClassificationData, numbers: itertools.count[int], dtype: torch.dtype) -> float:
    """Images per second of an epoch, from decoded pixels."""
    begin = time.perf_counter()
    images = epoch(data, next(numbers), dtype)
    return images / (time.perf_counter() - begin)


def cold(folder: Path, batch_size: int) -> float:
    """Images per second of the first epoch ever: listing, hashing and decoding all images, then the epoch."""
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        images = epoch(opened(folder, Path(cache), batch_size), 0)
        return images / (time.perf_counter() - begin)


def start(folder: Path, cache: Path, batch_size: int) -> float:
    """Seconds until decoded data is found to be unchanged and is open."""
    begin = time.perf_counter()
    opened(folder, cache, batch_size)
    return time.perf_counter() - begin


def recipe(folder: Path, name: str, batch_size: int) -> float:
    """Images per second of an epoch of the recipe, its workers' start included, as in each of its epochs."""
    data = ImageFolder(str(folder / "train"), RECIPES[name])
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=WORKERS, drop_last=True)
    begin = time.perf_counter()
    images = sum(len(batch) for batch, _ in loader)
    return images / (time.perf_counter() - begin)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/images/ and val/")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=20_000, help="to generate without --data")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = arguments.data, Path(temporary) / "cache"
        if folder is None:
            folder = Path(temporary) / "shapes"
            folder.mkdir()
            shapes.write(folder, seed=0, train=arguments.images, val=240)
        size: int = arguments.batch_size
        data = opened(folder, cache, size)
        numbers = itertools.count(1)
        ours = "isotrain, float32"
        samples = measure.alternate(
            {
                ours: partial(warm, data, numbers, torch.float32),
                "isotrain, bfloat16": partial(warm, data, numbers, torch.bfloat16),
                "isotrain, first epoch with a cold cache": partial(cold, folder, size),
                **{name: partial(recipe, folder, name, size) for name in RECIPES},
                "start": partial(start, folder, cache, size),
            },
            arguments.repeats,
            warm_up=1,
        )
        opening = samples.pop("start")
        rows = [
            [name, sample.text(0), *(measure.ratio(sample, samples[peer]).text(1) for peer in RECIPES)]
            for name, sample in samples.items()
        ]
        measure.report(
            "Images through the input pipeline",
            [
                "",
                "images/s: median (least to most)",
                "times the recipe with transforms",
                "times the recipe with v2",
            ],
            rows,
            f"{len(data.train):,} training images of {SIZE} px"
            f"{'' if arguments.data else ' (generated)'}, batches of {size}; random crop with {PADDING} px "
            "of mirrored padding, flip, normalise. Cold: listing, hashing and decoding both splits, then the "
            "epoch; the files themselves are in the system's cache for all. "
            f"Opening decoded data: {opening.text(2)} s. Required: at least 10 times.",
        )


if __name__ == "__main__":
    main()
