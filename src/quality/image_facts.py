"""The table of facts of image classification: one row for each image, and for each file that should be one."""

import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datamodules.image_classification import ImageClassificationData
from datamodules.images.image_splits import Split
from datamodules.storage.parallel import map_ordered
from quality.hashes import near_groups
from quality.image_statistics import Columns, measure_images
from quality.tables import class_counts
from quality.thumbnails import Thumbnails

FORMAT = 2  # part of the cache's key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # its position in the split; null for a file that is none of its images
        ("id", pa.string()),  # path in the data set
        ("label", pa.string()),  # id of its class; null if it has none
        ("named", pa.string()),  # the class that its own name begins with, as Tiny ImageNet's names do; null if none
        ("problem", pa.string()),  # what is wrong with the file; null if nothing is
        ("decodes", pa.bool_()),  # to the last pixel
        ("format", pa.string()),  # JPEG, PNG, ...
        ("mode", pa.string()),  # RGB, L (greyscale), P (palette), CMYK, ...
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("frames", pa.int32()),  # more than 1: animated
        ("orientation", pa.int32()),  # EXIF's: other than 1 is stored turned or mirrored
        ("gps", pa.bool_()),  # its EXIF tells where it was taken
        ("red", pa.float32()),  # means of the pixels, 0 to 1
        ("green", pa.float32()),
        ("blue", pa.float32()),
        ("brightness", pa.float32()),  # mean luma, 0 to 1
        ("contrast", pa.float32()),  # standard deviation of the luma
        ("box", pa.bool_()),  # it has one
        ("box_inside", pa.bool_()),  # that lies in the image; null without a box
        ("box_area", pa.float32()),  # share of the image; null without a box
        ("content_hash", pa.int64()),  # of the file
        ("near_hash", pa.int64()),  # of what is seen, in 64 bits; null if it is flat
        ("near_group", pa.int64()),  # the same for images that look the same in another format or size; null if flat
    ]
)
CATEGORIES = ("label", "format", "mode")
TEXTS = ("problem",)
PICTURED = ("brightness", "contrast", "bytes", "box_area")  # columns whose extremes are worth a look
USABLE = "decodes"
ROWS = 8_192  # read at a time
CHUNK = 256  # images a worker looks at before it hands them over
AHEAD = 32  # chunks that this process looks at while others start
MANY = 4_000  # images from which on processes pay for their start; threads wait for each other, of each image a third is Python
_SYNSET = re.compile(r"(n\d{8})[_.]")
_MEANS = ("brightness", "red", "green", "blue", "contrast")


def tables(data: ImageClassificationData, split: str) -> Iterator[pa.Table]:
    """The rows of a split, as many as its limit lets a model see, and those of files with problems."""
    found = data.survey
    here = found.splits[split]
    classes = np.array([each["id"] for each in found.classes])
    without = {each.label for each in found.problems if each.what == "no training images"}
    done = 0
    for seen in _seen(here):
        part = slice(done, done := done + len(seen["bytes"]))
        names, labels = here.names[part], classes[here.labels[part]].tolist()
        seen["problem"] = [
            each or ("its class has no training images" if label in without else None)
            for each, label in zip(seen["problem"], labels, strict=True)
        ]
        columns = {
            "split": [split] * len(names),
            "number": np.arange(part.start, part.stop),
            "id": [_printable(name) for name in names],
            "label": labels,
            "named": [_named(name) for name in names],
            **_boxes(here.boxes[part], seen["width"], seen["height"]),
            **seen,
        }
        yield _table(columns, len(names))
    bad = [each for each in found.problems if each.split == split]
    if bad:
        columns = {
            "split": [split] * len(bad),
            "id": [_printable(each.name) for each in bad],
            "label": [each.label or None for each in bad],
            "named": [_named(each.name) for each in bad],
            "problem": [each.what for each in bad],
        }
        yield _table(columns, len(bad))


def classes(data: ImageClassificationData) -> list[dict[str, str]]:
    """The classes of the data set, in the order of the labels."""
    return data.survey.classes


counts = class_counts
pictures = Thumbnails


def _table(columns: Mapping[str, Any], rows: int) -> pa.Table:
    arrays = [
        pa.array(columns[each.name], each.type) if each.name in columns else pa.nulls(rows, each.type)
        for each in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def finish(rows: Path, final: Path) -> None:
    """Writes the rows again, with the groups of those that look the same: they are known when all have been seen."""
    found = pq.read_table(rows, columns=["near_hash", *_MEANS])
    told = np.flatnonzero(~found["near_hash"].is_null().to_numpy())
    groups = np.zeros(len(found), np.int64)
    if len(told):
        means = np.column_stack([found[name].to_numpy()[told] for name in _MEANS])
        groups[told] = told[near_groups(found["near_hash"].take(told).to_numpy(), means)]
    at, nulls = SCHEMA.get_field_index("near_group"), np.ones(len(found), bool)
    nulls[told] = False
    done = 0
    with pq.ParquetWriter(final, SCHEMA, compression="zstd") as writer, pq.ParquetFile(rows) as file:
        for batch in file.iter_batches(ROWS):
            part = slice(done, done + len(batch))
            column = pa.array(groups[part], pa.int64(), mask=nulls[part])
            writer.write_table(pa.Table.from_batches([batch]).set_column(at, SCHEMA.field(at), column))
            done += len(batch)
    rows.unlink()


def _named(name: str) -> str | None:
    match = _SYNSET.match(name.rpartition("/")[2])
    return match[1] if match else None


def _boxes(boxes: Any, widths: list[Any], heights: list[Any]) -> dict[str, Any]:
    """The columns of boxes [N, 4] x0, y0, x1, y1: outermost pixels inside, NaN for none."""
    wide, high = (np.array([np.nan if each is None else each for each in sides]) for sides in (widths, heights))
    there = ~np.isnan(boxes[:, 0])
    known = there & ~np.isnan(wide)
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, 2] < wide) & (boxes[:, 3] < high)
        area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1) / (wide * high)
    return {
        "box": there,
        "box_inside": pa.array(inside, mask=~known),
        "box_area": pa.array(area, pa.float32(), mask=~known),
    }


def _seen(split: Split) -> Iterator[Columns]:
    """What is seen of the images, in order, some at a time. All cores look; a few chunks are in memory."""
    from tqdm import tqdm

    Image.init()  # once, not in every thread
    images = split.images()
    chunks = iter(lambda: list(islice(images, CHUNK)), [])
    hidden = not sys.stderr.isatty()
    with tqdm(
        total=len(split), desc=f"looking at {split.place}", unit="image", disable=hidden, leave=False
    ) as progress:
        for seen in map_ordered(measure_images, chunks, processes=len(split) >= MANY, ahead=AHEAD):
            progress.update(len(seen["bytes"]))
            yield seen
