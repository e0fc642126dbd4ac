"""Images decoded once: a uint8 memory map of square RGB pixels, with labels, boxes and names beside it."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.images.image_splits import Boxes, Split
from datamodules.sources.files import read_bytes
from datamodules.storage.arrays import Texts, TextWriter, load
from datamodules.storage.parallel import map_ordered

if TYPE_CHECKING:
    from PIL.Image import Image

# What `decode` does with an image, as part of the cache's key: change it when the pixels change.
POLICY = "shorter side to size, centre crop, bicubic with antialiasing, RGB; 2"
CHUNK = 64  # images a thread decodes before it hands them over

Pixels = npt.NDArray[np.uint8]


class Images:
    """A split's decoded images, opened as a memory map.

    Attributes:
        pixels: uint8 [N, H, W, 3], read only.
        labels: int64 [N].
        boxes: float32 [N, 4] x0, y0, x1, y1, the outermost pixels inside, in stored pixels; NaN where there
            is none.
        classes: [{"id", "name"}, ...] in the order of the labels.
        names: [N] the images' ids: paths in the data set.
        about: counts from decoding: "images", "greyscale", "resized".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pixels: Pixels = load(folder / "pixels.npy")
        self._file = (folder / "pixels.npy").open("rb")
        self._size = self.pixels[0].nbytes
        self._start = os.fstat(self._file.fileno()).st_size - self.pixels.nbytes
        self.labels: npt.NDArray[np.int64] = np.load(folder / "labels.npy", allow_pickle=False)
        self.boxes: Boxes = np.load(folder / "boxes.npy", allow_pickle=False)
        self.classes: list[dict[str, str]] = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        self.about: dict[str, int] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.names = Texts(folder, "names")

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[type["Images"], tuple[Path]]:
        return Images, (self.folder,)  # a worker process opens its own map

    def batch(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """pixels uint8 [B, H, W, 3], labels int64 [B], index int64 [B] of the images with these positions."""
        index = np.asarray(indices, np.int64)
        return {"pixels": self.gather(index), "labels": self.labels[index], "index": index}

    def gather(self, index: npt.NDArray[np.int64]) -> Pixels:
        """uint8 [B, H, W, 3], a copy of the images with these positions.

        Read as a file: pages of a map that were once touched count as this process's memory, and so many are
        touched with each that in an epoch it would grow by the whole data set.
        """
        batch = np.empty((len(index), *self.pixels.shape[1:]), np.uint8)
        file = self._file.fileno()
        read = sum(
            os.preadv(file, [image], self._start + at * self._size)
            for image, at in zip(batch, index.tolist(), strict=True)
        )
        if read != batch.nbytes:
            raise InputError(f"{self.folder} is damaged: its pixels are cut short; remove the folder")
        return batch


def write(split: Split, classes: Sequence[Mapping[str, str]], size: int, folder: Path) -> None:
    """Decodes a split into a folder that `Images` opens.

    All cores decode; a few chunks are in memory at a time, however many images there are.

    Args:
        split: what to decode.
        classes: the ordered classes, written beside the pixels.
        size: side of the stored images, in pixels.
        folder: an existing, empty folder.

    Raises:
        InputError: an image that cannot be decoded, by name.
    """
    sizes = np.empty((len(split), 2), np.int64)
    counts = {"images": len(split), "greyscale": 0, "resized": 0}
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(split), size, size, 3)}
    with (folder / "pixels.npy").open("wb") as file, _progress(len(split), split.place) as progress:
        np.lib.format.write_array_header_1_0(file, header)
        at = 0
        for pixels, originals, greyscale in _decoded(split, size):
            # A plain write: pages of a writable map would count as this process's memory.
            file.write(pixels.data)
            sizes[at : at + len(pixels)] = originals
            counts["greyscale"] += greyscale
            at += len(pixels)
            progress.update(len(pixels))
    if at != len(split):
        raise InputError(f"{split.place} changed while it was read: {at} images instead of {len(split)}")
    counts["resized"] = int((sizes != size).any(axis=1).sum())
    np.save(folder / "labels.npy", split.labels)
    np.save(folder / "boxes.npy", fit_boxes(split.boxes, sizes, size))
    names = TextWriter(folder, "names")
    for name in split.names:
        names.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))  # a name of any bytes
    names.close()
    (folder / "classes.json").write_text(json.dumps(list(classes), ensure_ascii=False, indent=0), encoding="utf-8")
    (folder / "about.json").write_text(json.dumps(counts), encoding="utf-8")


def decode(content: bytes, size: int) -> tuple[Pixels, tuple[int, int], bool]:
    """One image as square RGB pixels, as training and evaluation see it.

    Greyscale, palette and CMYK become RGB; transparency is dropped; 16-bit greyscale keeps its upper 8 bits.
    An image of another size is resized so that its shorter side fits (bicubic, with antialiasing) and cropped
    at the centre, as torchvision's `Resize` and `CenterCrop` do; a JPEG at least four times larger is decoded at a
    fraction of its size first.

    Args:
        content: the encoded image.
        size: side of the result, in pixels.

    Returns:
        uint8 [size, size, 3]; the (width, height) it had; whether it was greyscale.

    Raises:
        Exception: whatever Pillow raises for content it cannot decode; `reason` puts it into words.
    """
    from PIL import Image

    with open_image(content) as image:
        original = image.size
        if min(original) >= 4 * size:
            image.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]  # JPEG: decode at 1/2, 1/4 or 1/8
        greyscale = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
        rgb = to_rgb(image)
        if rgb.size != (size, size):
            # As torchvision's Resize and CenterCrop, which timm prepares images with: model/ works without isotrain.
            fitted, corner = _fit(np.array(rgb.size), size)
            (width, height), (left, top) = fitted.tolist(), corner.tolist()
            rgb = rgb.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
        return np.asarray(rgb), original, greyscale


def open_image(content: bytes) -> "Image":
    """An encoded image; nothing is decoded yet.

    Pillow tries formats one after another, and sets an image up for each: where the first bytes tell, only that one.
    """
    from PIL import Image

    form = next((name for start, name in _STARTS.items() if content.startswith(start)), None)
    return Image.open(io.BytesIO(content), formats=None if form is None else (form,))


_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n": "PNG"}


def describe_error(error: Exception) -> str:
    """Why an image cannot be decoded, in words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is no image, or of a format that Pillow does not read"
    return str(error) or type(error).__name__


def fit_boxes(boxes: Boxes, sizes: npt.NDArray[np.int64], size: int) -> Boxes:
    """Boxes after the resizing and cropping of `decode`.

    Args:
        boxes: [N, 4] x0, y0, x1, y1, the outermost pixels inside, in the images' own pixels; NaN for none.
        sizes: [N, 2] width and height of each image.
        size: side of the stored images, in pixels.

    Returns:
        float32 [N, 4] in stored pixels, clipped to the image; NaN for none, and where nothing of it is left.
    """
    fitted_sizes, corners = _fit(sizes, size)
    # Pixel x reaches from x to x + 1: the far edges are one further than the far pixels.
    edges = np.add(boxes, [0, 0, 1, 1], dtype=np.float64) * np.tile(fitted_sizes / sizes, 2) - np.tile(corners, 2)
    kept = np.clip(edges, 0, size)
    gone = (kept[:, 2] <= kept[:, 0]) | (kept[:, 3] <= kept[:, 1])
    near = np.minimum(kept[:, :2], size - 1)
    far = np.maximum(kept[:, 2:] - 1, near)  # a box narrower than a pixel keeps one
    fitted = np.concatenate([near, far], axis=1)
    fitted[gone] = np.nan
    return np.asarray(fitted, np.float32)


def _fit(sizes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What images are resized to, and the left and upper edge of their centre crops.

    Args:
        sizes: [..., 2] width and height.
        size: side of the crop.

    Returns:
        [..., 2] width and height with a shorter side of `size`; [..., 2] left and top.
    """
    fitted = size * sizes // sizes.min(axis=-1, keepdims=True)
    return fitted, np.round((fitted - size) / 2).astype(np.int64)


def to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode {image.mode} is not 8 or 16 bits for each channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _decoded(split: Split, size: int) -> Iterator[tuple[Pixels, list[tuple[int, int]], int]]:
    """Decoded chunks in order. Pillow decodes without the interpreter lock, so threads are enough."""
    from PIL import Image

    Image.init()  # once, not in every thread
    images = iter(zip(split.names, split.images(), strict=True))
    chunks = iter(lambda: list(islice(images, CHUNK)), [])
    yield from map_ordered(partial(_decode_chunk, size=size), chunks)


def _decode_chunk(chunk: list[tuple[str, str | bytes]], size: int) -> tuple[Pixels, list[tuple[int, int]], int]:
    pixels = np.empty((len(chunk), size, size, 3), np.uint8)
    originals: list[tuple[int, int]] = []
    greyscale = 0
    for row, (name, image) in enumerate(chunk):
        content = read_bytes(image) if isinstance(image, str) else image
        try:
            pixels[row], original, grey = decode(content, size)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise of all kinds on broken content
            where = image if isinstance(image, str) else name
            raise InputError(
                f"cannot decode the image {where}: {describe_error(error)}; replace or remove it"
            ) from error
        originals.append(original)
        greyscale += grey
    return pixels, originals, greyscale


def _progress(total: int, place: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=f"decoding {place}", unit="image", disable=not sys.stderr.isatty(), leave=False)
