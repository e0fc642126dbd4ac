"""64-bit hashes that find duplicates: of texts and files by content, and of images by appearance."""

import hashlib
from typing import Any

import numpy as np

MIN_STEP = 0.01  # smallest brightness difference that sets a bit, of 0 to 1; below it is noise
MAX_BITS = 4  # bits of a difference hash that saving an image again may change
MAX_COLOUR = 0.012  # change of a colour mean by saving an image again, of 0 to 1
NEIGHBOURS = 64  # of an image in a band, by brightness; bounds the work on many frames of one scene
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # MAX_BITS + 1: near duplicates agree in one of them


def hash64(content: str | bytes) -> int:
    """Return 64 bits of BLAKE2b as a signed number, the range of a BIGINT."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)


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
    left, right = _near_pairs(bits[first], colours[first])
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    earliest = np.full(component.max(initial=0) + 1, len(bits), np.int64)
    np.minimum.at(earliest, component, first)
    return earliest[component[exact.ravel()]]


def _near_pairs(bits: Any, colours: Any) -> tuple[Any, Any]:
    """Return the positions [P], [P] of pairs of near duplicates."""
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
