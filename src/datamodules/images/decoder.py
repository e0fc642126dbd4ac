"""Images decoded once: a uint8 memory map of square RGB pixels, with labels, boxes and names."""

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from config.numbers import format_count
from datamodules.images.image_splits import Boxes, Split
from datamodules.sources.files import read_bytes
from datamodules.storage.arrays import TextArray, TextWriter, check_range, load
from datamodules.storage.manifest import DamagedError
from datamodules.storage.parallel import map_ordered

if TYPE_CHECKING:
    from PIL.Image import Image

# Part of the cache key: change it when `decode` returns other pixels.
POLICY = "resized and cropped as by timm, antialiased, RGB; 3"
CHUNK = 64  # images that a thread decodes at a time
MAX_PIXELS = 178_956_970  # of an image, as in Pillow, also once it is resized
# Pillow also reads EPS by running Ghostscript, and formats whose decoders are rarely used and tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n": "PNG"}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Resizing:
    """How an image becomes square, with the names and rules of timm's `create_transform`.

    Attributes:
        crop_pct: side of the result, as a share of the resized side.
        crop_mode: "center": the shorter side is resized, and the rest cropped off; "squash": both sides are resized;
            "border": the longer side is resized, and borders are added.
        interpolation: one of Pillow's filters, in lower case; all but "nearest" are antialiased.
        fill: colour of the borders, RGB.
    """

    crop_pct: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    fill: tuple[int, ...] = (0, 0, 0)

    def geometry(self, sizes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sizes of resized images, and the corners of their centre crops.

        Args:
            sizes: [..., 2] width and height.
            size: side of the crop.

        Returns:
            [..., 2] width and height of the resized images; [..., 2] left and top, negative where borders are added.
        """
        side = math.floor(size / self.crop_pct)
        if self.crop_mode == "squash":
            resized = np.full_like(sizes, side)
        elif self.crop_mode == "border":
            resized = np.round(sizes / (sizes.max(axis=-1, keepdims=True) / side)).astype(np.int64)
        else:
            resized = side * sizes // sizes.min(axis=-1, keepdims=True)
        margin = resized - size
        return resized, np.where(margin < 0, -(-margin // 2), np.round(margin / 2).astype(np.int64))


TRAINING = Resizing()  # of training data, unless configured


def make_resizing(crop_pct: float, crop_mode: str, interpolation: str, mean: Sequence[float]) -> Resizing:
    """Make a `Resizing`, whose borders have the mean colour (0 to 1), as timm's."""
    fill = tuple(round(255 * value) for value in mean) if crop_mode == "border" else (0, 0, 0)
    return Resizing(crop_pct, crop_mode, interpolation, fill)


class Images:
    """A split's decoded images, opened as a memory map.

    Attributes:
        pixels: uint8 [N, H, W, 3], read only.
        labels: int64 [N].
        boxes: float32 [N, 4] x0, y0, x1, y1, the outermost pixels inside, in stored pixels; NaN without a box.
        classes: [{"id", "name"}, ...] in the order of the labels.
        names: [N] the images' ids: paths in the data set.
        counts: of the decoding: "images", "greyscale", "resized".
    """

    def __init__(self, folder: Path) -> None:
        """Open what `write` wrote into a folder.

        Raises:
            DamagedError: its files do not fit together.
        """
        self.folder = folder
        self.pixels: Pixels = load(folder / "pixels.npy")
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise DamagedError(folder / "pixels.npy", "it is not an array of images")
        self._file = (folder / "pixels.npy").open("rb")
        self._size = self.pixels[0].nbytes
        self._start = os.fstat(self._file.fileno()).st_size - self.pixels.nbytes
        self.labels: npt.NDArray[np.int64] = np.array(load(folder / "labels.npy"))
        self.boxes: Boxes = np.array(load(folder / "boxes.npy"))
        self.classes: list[dict[str, str]] = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        self.counts: dict[str, int] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.names = TextArray(folder, "names")
        count = len(self.pixels)
        if self.labels.shape != (count,) or self.boxes.shape != (count, 4) or len(self.names) != count:
            raise DamagedError(folder / "labels.npy", "its number of images is not that of the other files")
        check_range(self.labels, 0, len(self.classes), folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[type["Images"], tuple[Path]]:
        return Images, (self.folder,)  # a worker process opens its own map

    def batch(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """Return pixels uint8 [B, H, W, 3], labels int64 [B] and index int64 [B] of the images at these positions."""
        index = np.asarray(indices, np.int64)
        return {"pixels": self.gather(index), "labels": self.labels[index], "index": index}

    def gather(self, index: npt.NDArray[np.int64]) -> Pixels:
        """Return a copy of the images at these positions, uint8 [B, H, W, 3].

        The images are read from the file, because pages of a map count as this process's memory once they were read,
        which in an epoch would be the whole data set.
        """
        batch = np.empty((len(index), *self.pixels.shape[1:]), np.uint8)
        file = self._file.fileno()
        size = sum(
            os.preadv(file, [image], self._start + position * self._size)
            for image, position in zip(batch, index.tolist(), strict=True)
        )
        if size != batch.nbytes:
            raise DamagedError(self.folder / "pixels.npy", "it was truncated while it was open")
        return batch


def write(
    split: Split, classes: Sequence[Mapping[str, str]], size: int, folder: Path, resizing: Resizing = TRAINING
) -> None:
    """Decode a split into a folder that `Images` opens.

    All cores decode; only a few chunks are in memory at a time.

    Args:
        split: the images.
        classes: [{"id", "name"}, ...] in the order of the labels.
        size: side of the stored images, in pixels.
        folder: an existing, empty folder.
        resizing: how images of other sizes become square.

    Raises:
        InputError: an image that cannot be decoded, by name.
    """
    from tqdm import tqdm

    sizes = np.empty((len(split), 2), np.int64)
    counts = {"images": len(split), "greyscale": 0, "resized": 0}
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(split), size, size, 3)}
    options = {"unit": "image", "disable": not sys.stderr.isatty(), "leave": False}
    progress = tqdm(total=len(split), desc=f"decoding {split.location}", **options)
    with (folder / "pixels.npy").open("wb") as file, progress:
        np.lib.format.write_array_header_1_0(file, header)
        done = 0
        for pixels, originals, greyscale in _decode_split(split, size, resizing):
            # A plain write: pages of a writable map would count as this process's memory.
            file.write(pixels.data)
            sizes[done : done + len(pixels)] = originals
            counts["greyscale"] += greyscale
            done += len(pixels)
            progress.update(len(pixels))
    if done != len(split):
        raise InputError(
            f"{split.location} changed while it was read: {format_count(done, 'image')} instead of {len(split)}"
        )
    counts["resized"] = int((sizes != size).any(axis=1).sum())
    np.save(folder / "labels.npy", split.labels)
    np.save(folder / "boxes.npy", fit_boxes(split.boxes, sizes, size, resizing))
    names = TextWriter(folder, "names")
    for name in split.names:
        names.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))  # may be any bytes
    names.close()
    (folder / "classes.json").write_text(json.dumps(list(classes), ensure_ascii=False, indent=0), encoding="utf-8")
    (folder / "about.json").write_text(json.dumps(counts), encoding="utf-8")


def decode(content: bytes, size: int, resizing: Resizing = TRAINING) -> tuple[Pixels, tuple[int, int], bool]:
    """Decode an image to square RGB pixels, as training and evaluation use it.

    Greyscale, palette and CMYK are converted to RGB; transparency is dropped; 16-bit greyscale keeps its upper 8 bits.
    Otherwise the pixels are those of timm's transforms with the same settings, so that plain timm prepares images for
    an exported model as its training did.

    Args:
        content: the encoded image.
        size: side of the result, in pixels.
        resizing: how an image of another size becomes square.

    Returns:
        uint8 [size, size, 3]; the original (width, height); whether the image was greyscale.

    Raises:
        Exception: of Pillow, for content that it cannot decode; `describe_error` explains it.
    """
    with open_image(content) as image:
        original = image.size
        greyscale = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        rgb = to_rgb(image)
        if original != (size, size) or resizing.crop_pct != 1:
            rgb = _resize(rgb, size, resizing)
        return np.asarray(rgb), original, greyscale


def _resize(rgb: "Image", size: int, resizing: Resizing) -> "Image":
    from PIL import Image

    resized, corner = resizing.geometry(np.array(rgb.size), size)
    (width, height), (left, top) = resized.tolist(), corner.tolist()
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"its sides {rgb.width} x {rgb.height} differ too much: resized, it has {width} x {height} pixels"
        )
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling[resizing.interpolation.upper()])
    if width < size or height < size:
        canvas = Image.new("RGB", (size, size), resizing.fill)
        canvas.paste(rgb, (-left, -top))
        return canvas
    return rgb.crop((left, top, left + size, top + size)) if rgb.size != (size, size) else rgb


def open_image(content: bytes) -> "Image":
    """Open an encoded image without decoding it.

    The one place that opens images, which may come from somebody else. Pillow tries the formats in turn, and sets up an
    image for each; where the first bytes identify the format, only that one is tried.

    Raises:
        PIL.UnidentifiedImageError: it is none of `FORMATS`.
        PIL.Image.DecompressionBombError: it has more than `MAX_PIXELS`.
    """
    from PIL import Image

    image_format = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), None)
    return Image.open(io.BytesIO(content), formats=FORMATS if image_format is None else (image_format,))


def describe_error(error: Exception) -> str:
    """Explain why an image cannot be decoded."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of the formats {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def fit_boxes(boxes: Boxes, sizes: npt.NDArray[np.int64], size: int, resizing: Resizing = TRAINING) -> Boxes:
    """Transform boxes as `decode` resizes and crops their images.

    Args:
        boxes: [N, 4] x0, y0, x1, y1, the outermost pixels inside, in the images' own pixels; NaN without a box.
        sizes: [N, 2] width and height of each image.
        size: side of the stored images, in pixels.
        resizing: how the images became square.

    Returns:
        float32 [N, 4] in stored pixels, clipped to the image; NaN without a box, and where it was cropped off.
    """
    resized, corners = resizing.geometry(sizes, size)
    # Pixel x reaches from x to x + 1: the far edges are one pixel further than the far pixels.
    edges = np.add(boxes, [0, 0, 1, 1], dtype=np.float64) * np.tile(resized / sizes, 2) - np.tile(corners, 2)
    clipped = np.clip(edges, 0, size)
    empty = (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    near = np.minimum(clipped[:, :2], size - 1)
    far = np.maximum(clipped[:, 2:] - 1, near)  # at least one pixel
    result = np.concatenate([near, far], axis=1)
    result[empty] = np.nan
    return np.asarray(result, np.float32)


def to_rgb(image: "Image") -> "Image":
    """Convert an image of any mode to RGB.

    Raises:
        ValueError: a mode of more than 16 bits per channel.
    """
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode {image.mode} does not have 8 or 16 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _decode_split(split: Split, size: int, resizing: Resizing) -> Iterator[tuple[Pixels, list[tuple[int, int]], int]]:
    """Decoded chunks in order. Pillow decodes without the interpreter lock, so threads are enough."""
    from PIL import Image

    Image.init()  # once, not in every thread
    images = iter(zip(split.names, split.images(), strict=True))
    chunks = iter(lambda: list(islice(images, CHUNK)), [])
    yield from map_ordered(partial(_decode_chunk, size=size, resizing=resizing), chunks)


def _decode_chunk(
    chunk: list[tuple[str, str | bytes]], size: int, resizing: Resizing
) -> tuple[Pixels, list[tuple[int, int]], int]:
    """Pixels of some images, their original sizes, and how many of them are greyscale."""
    pixels = np.empty((len(chunk), size, size, 3), np.uint8)
    originals: list[tuple[int, int]] = []
    count = 0
    for row, (name, image) in enumerate(chunk):
        content = read_bytes(image) if isinstance(image, str) else image
        try:
            pixels[row], original, greyscale = decode(content, size, resizing)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises many kinds on broken content
            location = image if isinstance(image, str) else name
            raise InputError(
                f"cannot decode the image {location}: {describe_error(error)}; replace or remove it"
            ) from error
        originals.append(original)
        count += greyscale
    return pixels, originals, count
