"""The table of facts of image classification: one row per image, and per file that is not a valid image."""

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
from datamodules.images.near_duplicates import near_groups
from datamodules.storage.parallel import map_ordered
from quality.image_statistics import Columns, measure_images
from quality.tables import class_counts
from quality.thumbnails import Thumbnails

FORMAT = 2  # part of the cache key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # position in the split; null for a file that is not one of its images
        ("id", pa.string()),  # path in the data set
        ("label", pa.string()),  # id of the class; null without one
        ("named", pa.string()),  # class in the file's name, as in Tiny ImageNet; null without one
        ("problem", pa.string()),  # error of the file; null without one
        ("decodes", pa.bool_()),  # to the last pixel
        ("format", pa.string()),  # JPEG, PNG, ...
        ("mode", pa.string()),  # RGB, L (greyscale), P (palette), CMYK, ...
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("frames", pa.int32()),  # more than 1: animated
        ("orientation", pa.int32()),  # of the EXIF; other than 1: stored rotated or mirrored
        ("gps", pa.bool_()),  # whether the EXIF has a position
        ("red", pa.float32()),  # means of the pixels, 0 to 1
        ("green", pa.float32()),
        ("blue", pa.float32()),
        ("brightness", pa.float32()),  # mean luma, 0 to 1
        ("contrast", pa.float32()),  # standard deviation of the luma
        ("box", pa.bool_()),  # whether it has one
        ("box_inside", pa.bool_()),  # whether the box lies in the image; null without a box
        ("box_area", pa.float32()),  # share of the image; null without a box
        ("content_hash", pa.int64()),  # of the file
        ("near_hash", pa.int64()),  # of its appearance, 64 bits; null for a flat image
        ("near_group", pa.int64()),  # equal for near duplicates in another format or size; null for a flat image
    ]
)
CATEGORIES = ("label", "format", "mode")
TEXTS = ("problem",)
PICTURED = ("brightness", "contrast", "bytes", "box_area")
USABLE = "decodes"
ROWS = 8_192  # of a batch that is read
CHUNK = 256  # images of one task of a worker
AHEAD = 32  # chunks that this process measures while the workers start
MANY = 4_000  # images from which processes are faster than threads: a third of the work holds the GIL
_SYNSET = re.compile(r"(n\d{8})[_.]")
_MEANS = ("brightness", "red", "green", "blue", "contrast")


def tables(data: ImageClassificationData, split: str) -> Iterator[pa.Table]:
    """Yield the rows of a split, up to the limit of the data module, and those of files with problems."""
    survey = data.survey
    images = survey.splits[split]
    names = np.array([entry["id"] for entry in survey.classes])
    untrained = {problem.label for problem in survey.problems if problem.kind == "no training images"}
    start = 0
    for statistics in _iter_statistics(images):
        part = slice(start, start := start + len(statistics["bytes"]))
        ids, labels = images.names[part], names[images.labels[part]].tolist()
        statistics["problem"] = [
            problem or ("its class has no training images" if label in untrained else None)
            for problem, label in zip(statistics["problem"], labels, strict=True)
        ]
        columns = {
            **_file_columns(split, ids),
            "number": np.arange(part.start, part.stop),
            "label": labels,
            **_box_columns(images.boxes[part], statistics["width"], statistics["height"]),
            **statistics,
        }
        yield _make_table(columns)
    problems = [problem for problem in survey.problems if problem.split == split]
    if problems:
        columns = {
            **_file_columns(split, [problem.name for problem in problems]),
            "label": [problem.label or None for problem in problems],
            "problem": [problem.kind for problem in problems],
        }
        yield _make_table(columns)


def classes(data: ImageClassificationData) -> list[dict[str, str]]:
    """Return the classes of the data set, in the order of the labels."""
    return data.survey.classes


counts = class_counts
pictures = Thumbnails


def finish(rows: Path, final: Path) -> None:
    """Write the final file, with the groups of near duplicates, which need all rows."""
    columns = pq.read_table(rows, columns=["near_hash", *_MEANS])
    hashed = np.flatnonzero(~columns["near_hash"].is_null().to_numpy())
    groups = np.zeros(len(columns), np.int64)
    if len(hashed):
        means = np.column_stack([columns[name].to_numpy()[hashed] for name in _MEANS])
        groups[hashed] = hashed[near_groups(columns["near_hash"].take(hashed).to_numpy(), means)]
    index, nulls = SCHEMA.get_field_index("near_group"), np.ones(len(columns), bool)
    nulls[hashed] = False
    start = 0
    with pq.ParquetWriter(final, SCHEMA, compression="zstd") as writer, pq.ParquetFile(rows) as file:
        for batch in file.iter_batches(ROWS):
            part = slice(start, start := start + len(batch))
            column = pa.array(groups[part], pa.int64(), mask=nulls[part])
            writer.write_table(pa.Table.from_batches([batch]).set_column(index, SCHEMA.field(index), column))
    rows.unlink()


def _make_table(columns: Mapping[str, Any]) -> pa.Table:
    """Make a table of all columns of the schema; those without values are null."""
    rows = len(columns["id"])
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _file_columns(split: str, names: Any) -> dict[str, list[str | None]]:
    """Return the columns split, id (valid Unicode) and named."""
    matches = [_SYNSET.match(name.rpartition("/")[2]) for name in names]
    return {
        "split": [split] * len(names),
        "id": [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names],
        "named": [match[1] if match else None for match in matches],
    }


def _box_columns(boxes: Any, widths: list[Any], heights: list[Any]) -> dict[str, Any]:
    """Return the columns of boxes [N, 4]: x0, y0, x1, y1 of the outermost pixels inside, NaN for none."""
    width, height = (np.array([np.nan if side is None else side for side in sides]) for sides in (widths, heights))
    has_box = ~np.isnan(boxes[:, 0])
    unknown = ~has_box | np.isnan(width)
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, 2] < width) & (boxes[:, 3] < height)
        area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1) / (width * height)
    return {
        "box": has_box,
        "box_inside": pa.array(inside, mask=unknown),
        "box_area": pa.array(area, pa.float32(), mask=unknown),
    }


def _iter_statistics(split: Split) -> Iterator[Columns]:
    """Yield the statistics of the images in order, a chunk at a time, on all cores; few chunks are in memory."""
    from tqdm import tqdm

    Image.init()  # once, not in every thread
    images = split.images()
    chunks = iter(lambda: list(islice(images, CHUNK)), [])
    with tqdm(
        total=len(split),
        desc=f"measuring {split.location}",
        unit="image",
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as progress:
        for statistics in map_ordered(measure_images, chunks, processes=len(split) >= MANY, ahead=AHEAD):
            progress.update(len(statistics["bytes"]))
            yield statistics
