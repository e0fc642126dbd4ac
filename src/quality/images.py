"""The table of facts of image classification: one row for each image, and for each file that should be one."""

import contextlib
import io
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from config.errors import Refused
from datamodules import pixels
from datamodules.image_classification import ImageClassificationData
from datamodules.image_folder import Split, read_bytes
from quality.hashes import hashed, near_groups, near_hashes

FORMAT = 1  # part of the cache's key: raise it when the rows change

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
ROWS = 8_192  # read at a time
SIDE = 64  # of the copy that colours and hashes are taken from, in pixels
CHUNK = 64  # images a worker looks at before it hands them over
MANY = 4_000  # images from which on processes pay for their start
FLAT = 0.02  # standard deviation of the luma below which an image has nothing to compare
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_SYNSET = re.compile(r"(n\d{8})[_.]")
_GPS, _ORIENTATION = 0x8825, 0x0112  # EXIF 2.32, tags of IFD 0


def rows(data: ImageClassificationData, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split, as many as its limit lets a model see, and those of files with problems."""
    found = data.survey
    here = found.splits[split]
    classes = [each["id"] for each in found.classes]
    without = {each.label for each in found.problems if each.what == "no training images"}
    for index, seen in enumerate(_seen(here)):
        label = classes[here.labels[index]]
        problem = "its class has no training images" if label in without else None
        yield {
            "split": split,
            "number": index,
            "id": here.names[index].encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "label": label,
            "named": _named(here.names[index]),
            **seen,
            **_box(here.boxes[index], seen["width"], seen["height"]),
            "problem": seen["problem"] or problem,
        }
    blank = dict.fromkeys(SCHEMA.names)
    for each in found.problems:
        if each.split == split:
            yield {
                **blank,
                "split": split,
                "id": each.name,
                "label": each.label or None,
                "named": _named(each.name),
                "problem": each.what,
            }


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


_MEANS = ("brightness", "red", "green", "blue", "contrast")


def _named(name: str) -> str | None:
    match = _SYNSET.match(name.rpartition("/")[2])
    return match[1] if match else None


def _box(box: Any, width: int | None, height: int | None) -> dict[str, Any]:
    if np.isnan(box[0]):
        return {"box": False, "box_inside": None, "box_area": None}
    if width is None or height is None:
        return {"box": True, "box_inside": None, "box_area": None}
    x0, y0, x1, y1 = (float(each) for each in box)
    area = (x1 - x0 + 1) * (y1 - y0 + 1) / (width * height)
    return {"box": True, "box_inside": x1 < width and y1 < height, "box_area": area}


def _seen(split: Split) -> Iterator[dict[str, Any]]:
    """What is seen of each image, in order. All cores look; a few chunks are in memory at a time."""
    from tqdm import tqdm

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    images = iter(zip(split.names, split.images(), strict=True))
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    progress = tqdm(
        total=len(split), desc=f"looking at {split.place}", unit="image", disable=not sys.stderr.isatty(), leave=False
    )
    with _pool(len(split), workers) as pool, progress:
        try:
            while chunk := list(islice(images, CHUNK)):
                waiting.append(pool.submit(look, [image for _, image in chunk]))
                if len(waiting) > 2 * workers:
                    done = waiting.popleft().result()
                    progress.update(len(done))
                    yield from done
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _pool(images: int, workers: int) -> Executor:
    """Threads for few images; processes, which need a second to start, for many: each image has some Python of its own."""
    if images < MANY or workers == 1:
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def look(images: Sequence[str | bytes]) -> list[dict[str, Any]]:
    """What is seen of some images.

    Args:
        images: encoded, or where they are.

    Returns:
        For each the columns `problem` to `contrast`, `content_hash` and `near_hash` of `SCHEMA`; what cannot be known is None.
    """
    found: list[dict[str, Any]] = []
    small = np.zeros((len(images), SIDE, SIDE, 3), np.uint8)
    for index, image in enumerate(images):
        found.append(_one(image, small[index]))
    colours = small.mean(axis=(1, 2), dtype=np.float32) / 255
    luma = (small @ _LUMA) / 255
    contrast = luma.std(axis=(1, 2))
    hashes = near_hashes(luma)
    for index, each in enumerate(found):
        if each["decodes"]:
            red, green, blue = (float(value) for value in colours[index])
            each |= {
                "red": red,
                "green": green,
                "blue": blue,
                "brightness": float(colours[index] @ _LUMA),
                "contrast": float(contrast[index]),
                "near_hash": int(hashes[index]) if contrast[index] >= FLAT else None,
            }
    return found


def _one(image: str | bytes, small: Any) -> dict[str, Any]:
    """One image; its pixels go into `small` [SIDE, SIDE, 3]."""
    from PIL import Image

    seen: dict[str, Any] = dict.fromkeys(_SEEN)
    seen["decodes"] = False
    try:
        content = read_bytes(image) if isinstance(image, str) else image
    except Refused as error:
        return seen | {"problem": str(error)}
    seen |= {"bytes": len(content), "content_hash": hashed(content)}
    try:
        with Image.open(io.BytesIO(content)) as opened:
            seen |= {"format": opened.format, "mode": opened.mode, "width": opened.width, "height": opened.height}
            seen |= {"frames": getattr(opened, "n_frames", 1), "orientation": 1, "gps": False}
            if "exif" in opened.info:
                with contextlib.suppress(Exception):  # EXIF that cannot be read tells nothing
                    exif = opened.getexif()
                    seen |= {"gps": bool(exif.get_ifd(_GPS)), "orientation": exif.get(_ORIENTATION, 1)}
            rgb = pixels.as_rgb(opened)
            if rgb.size != (SIDE, SIDE):
                rgb = rgb.resize((SIDE, SIDE), Image.Resampling.BOX)
            small[:] = np.asarray(rgb)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise of all kinds on broken content
        return seen | {"problem": f"cannot be decoded: {pixels.reason(error)}"}
    return seen | {"decodes": True}


_SEEN = [*SCHEMA.names[SCHEMA.names.index("problem") : SCHEMA.names.index("box")], "content_hash", "near_hash"]
