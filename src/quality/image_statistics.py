"""Statistics of encoded images, in columns: sizes, colours, hashes, and decoding errors.

Imports little, because worker processes import it on machines with many cores.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from config.errors import InputError
from datamodules.images import decoder
from datamodules.images.near_duplicates import FLAT, LUMA, SIDE, near_hashes, thumbnail
from datamodules.sources.files import read_bytes
from quality.hashes import hash64

_ROW = (
    "problem", "decodes", "format", "mode", "width", "height", "bytes", "frames", "orientation", "gps", "content_hash",
)  # fmt: skip
COLUMNS = (*_ROW, "red", "green", "blue", "brightness", "contrast", "near_hash")
_GPS, _ORIENTATION = 0x8825, 0x0112  # EXIF 2.32, tags of IFD 0
_BLANK = bytes(SIDE * SIDE * 3)

Columns = dict[str, list[Any]]


def measure_images(images: Sequence[str | bytes]) -> Columns:
    """Compute the statistics of some images.

    Args:
        images: encoded images, or their locations.

    Returns:
        `COLUMNS`, each [N]; unknown values are None. Colours are means of a thumbnail of 16 x 16 pixels, 0 to 1; the
        contrast is the standard deviation of its luma.
    """
    rows, thumbnails = zip(*map(_image_row, images), strict=True)
    columns: Columns = dict(zip(_ROW, map(list, zip(*rows, strict=True)), strict=True))
    colours = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE, 3).astype(np.float32) / 255
    luma = colours @ LUMA
    contrast = luma.std(axis=(1, 2))
    means = colours.mean(axis=(1, 2))
    decodes = np.array(columns["decodes"])
    for name, values, valid_rows in (
        *((colour, means[:, index], decodes) for index, colour in enumerate(("red", "green", "blue"))),
        ("brightness", means @ LUMA, decodes),
        ("contrast", contrast, decodes),
        ("near_hash", near_hashes(luma), decodes & (contrast >= FLAT)),
    ):
        columns[name] = [value if valid else None for value, valid in zip(values.tolist(), valid_rows, strict=True)]
    return columns


def _image_row(image: str | bytes) -> tuple[tuple[Any, ...], bytes]:
    """Return the values of `_ROW`, and the bytes of the thumbnail."""
    form = mode = width = height = None
    try:
        content = read_bytes(image) if isinstance(image, str) else image
    except InputError as error:
        return (str(error), False, *[None] * 9), _BLANK
    size, digest = len(content), hash64(content)
    try:
        with decoder.open_image(content) as opened:
            form, mode, (width, height) = opened.format, opened.mode, opened.size
            frames, orientation, gps = getattr(opened, "n_frames", 1), 1, False
            if form == "MPO":  # a photo of a phone, with a preview in a second frame
                frames = 1
            if "exif" in opened.info or form == "TIFF":
                with contextlib.suppress(Exception):  # unreadable EXIF
                    exif = opened.getexif()
                    gps, value = bool(exif.get_ifd(_GPS)), exif.get(_ORIENTATION, 1)
                    orientation = value if isinstance(value, int) and 0 <= value < 2**16 else 0
            rgb = decoder.to_rgb(opened)
            row = (None, True, form, mode, width, height, size, frames, orientation, gps, digest)
            return row, thumbnail(rgb).tobytes()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types on broken content
        problem = f"cannot be decoded: {decoder.describe_error(error)}"
        return (problem, False, form, mode, width, height, size, None, None, None, digest), _BLANK
