"""Near-duplicates among images: the same picture saved again in another format, quality or size.

Hashes of 64 bits and means of colours propose pairs. Before images are kept in one part of the data, their thumbnails are
compared, too: scans of pages and digits on black share hashes although they differ.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from datamodules.images import decoder
from datamodules.sources.files import read_bytes
from datamodules.storage.parallel import map_ordered

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 16  # of a thumbnail, in pixels
FLAT = 0.02  # standard deviation of the luma below which an image has no hash
MIN_STEP = 0.01  # smallest brightness difference that sets a bit, of 0 to 1; below it is noise
MAX_BITS = 4  # bits of a difference hash that saving an image again may change
MAX_COLOUR = 0.012  # change of a colour mean by saving an image again, of 0 to 1
MIN_CORRELATION = 0.98  # of the lumas of two thumbnails of one picture
NEIGHBOURS = 64  # of an image in a band, by brightness; bounds the work on many frames of one scene
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # MAX_BITS + 1: near duplicates agree in one of them
CHUNK = 64  # images of one task of a thread
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Thumbnails = npt.NDArray[np.uint8]


def thumbnail(rgb: "Image") -> "Image":
    """Return an RGB image as a thumbnail of 16 x 16 pixels."""
    from PIL import Image

    if rgb.width == rgb.height == 4 * SIDE:
        return rgb.reduce(4)  # equal to resize, faster
    return rgb.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)


def near_pairs(images: Iterable[str | bytes], digests: Sequence[str], location: str) -> npt.NDArray[np.int64]:
    """Find pairs of near-duplicates; they connect all of a group, but are not all pairs of it.

    Images that are almost of one colour, and files that cannot be decoded, are in no pair.

    Args:
        images: [N] encoded images, or their locations.
        digests: [N] of their files; of equal ones the first counts.
        location: of the images, for the progress bar.

    Returns:
        int64 [P, 2] positions of the images. Which images are pairs does not depend on their order.
    """
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        first.setdefault(digest, index)
    positions = np.array([first[digest] for digest in sorted(first)], np.int64)  # an order that depends on content only
    thumbnails = _thumbnails(images, len(digests), location)[positions].astype(np.float32) / 255
    luma = thumbnails @ LUMA
    contrast = luma.std(axis=(1, 2))
    pictures = np.flatnonzero(contrast >= FLAT)
    means = np.column_stack([luma.mean(axis=(1, 2)), thumbnails.mean(axis=(1, 2)), contrast])[pictures]
    left, right = _hash_pairs(near_hashes(luma[pictures]).view(np.uint64), means)
    standardised = luma[pictures].reshape(len(pictures), SIDE * SIDE)
    standardised -= standardised.mean(axis=1, keepdims=True)
    standardised /= np.linalg.norm(standardised, axis=1, keepdims=True)
    similar = np.empty(len(left), bool)
    for start in range(0, len(left), 65_536):
        part = slice(start, start + 65_536)
        similar[part] = (standardised[left[part]] * standardised[right[part]]).sum(axis=1) >= MIN_CORRELATION
    pairs = positions[pictures[np.column_stack([left, right])[similar]]]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _thumbnails(images: Iterable[str | bytes], count: int, location: str) -> Thumbnails:
    """Thumbnails uint8 [N, SIDE, SIDE, 3]; black for a file that cannot be decoded."""
    from PIL import Image
    from tqdm import tqdm

    Image.init()  # once, not in every thread
    remaining = iter(images)
    chunks = iter(lambda: list(islice(remaining, CHUNK)), [])
    thumbnails = np.empty((count, SIDE, SIDE, 3), np.uint8)
    options = {"unit": "image", "disable": not sys.stderr.isatty(), "leave": False}
    with tqdm(total=count, desc=f"comparing images of {location}", **options) as progress:
        start = 0
        for chunk in map_ordered(_read_thumbnails, chunks):
            thumbnails[start : (start := start + len(chunk))] = chunk
            progress.update(len(chunk))
    return thumbnails


def _read_thumbnails(images: Sequence[str | bytes]) -> Thumbnails:
    return np.stack([_read_thumbnail(read_bytes(image) if isinstance(image, str) else image) for image in images])


def _read_thumbnail(content: bytes) -> Thumbnails:
    try:
        with decoder.open_image(content) as image:
            image.draft(None, (4 * SIDE, 4 * SIDE))  # a JPEG is decoded at a lower resolution, several times as fast
            return np.asarray(thumbnail(decoder.to_rgb(image)))
    except MemoryError:
        raise
    except Exception:  # of Pillow, of many kinds; `decoder.write` reports the file
        return np.zeros((SIDE, SIDE, 3), np.uint8)


def near_hashes(luma: Any) -> Any:
    """Compute difference hashes: on 8 x 8 cells, whether each is brighter than its right neighbour by `MIN_STEP`.

    The last cell of a row is compared with the first.

    Args:
        luma: float32 [N, S, S], 0 to 1; S is a multiple of 8.

    Returns:
        int64 [N].
    """
    size = luma.shape[1] // 8
    cells = luma.reshape(len(luma), 8, size, 8, size).mean(axis=(2, 4))
    bits = (cells > np.roll(cells, -1, axis=2) + MIN_STEP).reshape(len(luma), 64)
    return np.packbits(bits, axis=1).view(">i8")[:, 0].astype(np.int64)


def near_groups(hashes: Any, colours: Any) -> Any:
    """Group near duplicates: images whose hashes differ by few bits and whose colour means are about the same.

    Both conditions are needed: small objects on plain backgrounds share their hashes, and many images their colours.
    Groups are transitive. Small objects on one background can still be grouped although they differ.

    Args:
        hashes: int64 [N] of `near_hashes`.
        colours: float32 [N, C], means of 0 to 1.

    Returns:
        int64 [N], the position of the first image of each one's group.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    bits = np.ascontiguousarray(hashes).view(np.uint64)
    _, first, exact = np.unique(
        np.column_stack([bits.astype(np.float64), bits % 65_521, *colours.T]),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    count = len(first)
    left, right = _hash_pairs(bits[first], colours[first])
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    earliest = np.full(component.max(initial=0) + 1, len(bits), np.int64)
    np.minimum.at(earliest, component, first)
    return earliest[component[exact.ravel()]]


def _hash_pairs(bits: Any, colours: Any) -> tuple[Any, Any]:
    """Return the positions [P], [P] of pairs whose hashes and colour means are about the same."""
    pairs = []
    for start, width in BANDS:
        band = (bits >> np.uint64(start)) & np.uint64(2**width - 1)
        order = np.lexsort((colours[:, 0], band))
        active = np.arange(len(order))
        for step in range(1, NEIGHBOURS + 1):  # compare with the next neighbours, as far as the first mean allows
            active = active[active + step < len(order)]
            left, right = order[active], order[active + step]
            close = (band[left] == band[right]) & (colours[right, 0] - colours[left, 0] <= MAX_COLOUR)
            active, left, right = active[close], left[close], right[close]
            near = np.bitwise_count(bits[left] ^ bits[right]) <= MAX_BITS
            near &= (np.abs(colours[left] - colours[right]) <= MAX_COLOUR).all(axis=1)
            pairs.append((left[near], right[near]))
    lefts, rights = zip(*pairs, strict=True)
    return np.concatenate(lefts), np.concatenate(rights)
