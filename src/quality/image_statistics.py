"""What is seen of encoded images, in columns: sizes, colours, hashes, and what is wrong with them.

Imports little: on machines with many cores, processes do this, and each has to start.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from config.errors import InputError
from datamodules.images import decoder
from datamodules.sources.files import read_bytes
from quality.hashes import hash64, near_hashes

SIDE = 16  # of the copy that colours and hashes are taken from, in pixels
FLAT = 0.02  # standard deviation of the luma below which an image has nothing to compare
COLUMNS = (
    "problem", "decodes", "format", "mode", "width", "height", "bytes", "frames", "orientation", "gps",
    "red", "green", "blue", "brightness", "contrast", "content_hash", "near_hash",
)  # fmt: skip
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GPS, _ORIENTATION = 0x8825, 0x0112  # EXIF 2.32, tags of IFD 0
_NOTHING = bytes(SIDE * SIDE * 3)

Columns = dict[str, list[Any]]


def measure_images(images: Sequence[str | bytes]) -> Columns:
    """What is seen of some images.

    Args:
        images: encoded, or where they are.

    Returns:
        `COLUMNS`, each [N]; what cannot be known of an image is None. Colours are means of a copy of 16 x 16 pixels, 0 to 1,
        contrast is the standard deviation of its luma.
    """
    seen: list[tuple[Any, ...]] = []
    small: list[bytes] = []
    for image in images:
        row, copy = _one(image)
        seen.append(row)
        small.append(copy)
    columns: Columns = dict(zip((*COLUMNS[:10], "content_hash"), map(list, zip(*seen, strict=True)), strict=True))
    colours = np.frombuffer(b"".join(small), np.uint8).reshape(-1, SIDE, SIDE, 3).astype(np.float32) / 255
    luma = colours @ _LUMA
    contrast = luma.std(axis=(1, 2))
    means = colours.mean(axis=(1, 2))
    decodes = columns["decodes"]
    values = {
        "red": means[:, 0],
        "green": means[:, 1],
        "blue": means[:, 2],
        "brightness": means @ _LUMA,
        "contrast": contrast,
    }
    for name, each in values.items():
        columns[name] = [value if good else None for value, good in zip(each.tolist(), decodes, strict=True)]
    alike = (contrast >= FLAT).tolist()
    hashes = near_hashes(luma).tolist()
    columns["near_hash"] = [
        each if good and told else None for each, good, told in zip(hashes, decodes, alike, strict=True)
    ]
    return columns


def _one(image: str | bytes) -> tuple[tuple[Any, ...], bytes]:
    """An image's row up to `gps`, with the content's hash, and the bytes of its small copy."""
    form = mode = width = height = size = digest = None
    try:
        content = read_bytes(image) if isinstance(image, str) else image
    except InputError as error:
        return (str(error), False, *[None] * 9), _NOTHING
    size, digest = len(content), hash64(content)
    try:
        with decoder.open_image(content) as opened:
            form, mode, (width, height) = opened.format, opened.mode, opened.size
            frames, orientation, gps = getattr(opened, "n_frames", 1), 1, False
            if form == "MPO":  # a phone's photo with another one behind it
                frames = 1
            if "exif" in opened.info or form == "TIFF":
                with contextlib.suppress(Exception):  # EXIF that cannot be read tells nothing
                    exif = opened.getexif()
                    gps, turned = bool(exif.get_ifd(_GPS)), exif.get(_ORIENTATION, 1)
                    orientation = turned if isinstance(turned, int) and 0 <= turned < 2**16 else 0
            rgb = decoder.to_rgb(opened)
            if width == height == 4 * SIDE:
                small = rgb.reduce(4)  # the same, faster
            else:
                small = rgb.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
            return (None, True, form, mode, width, height, size, frames, orientation, gps, digest), small.tobytes()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise of all kinds on broken content
        problem = f"cannot be decoded: {decoder.describe_error(error)}"
        return (problem, False, form, mode, width, height, size, None, None, None, digest), _NOTHING
