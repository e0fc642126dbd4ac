"""64-bit hashes that find copies: of texts and files as they are, and of images as they look."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np


def hashed(content: str | bytes) -> int:
    """BLAKE2b to 64 bits, as a signed number: what a BIGINT holds."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)


def near_hashes(luma: Any) -> Any:
    """Difference hashes: of the luma on 8 x 8 cells, whether each is clearly brighter than its neighbour to the right.

    The last of a row is held against the first.

    Args:
        luma: float32 [N, S, S], 0 to 1; S is a multiple of 8.

    Returns:
        int64 [N].
    """
    size = luma.shape[1] // 8
    cells = luma.reshape(len(luma), 8, size, 8, size).mean(axis=(2, 4))
    bits = (cells > np.roll(cells, -1, axis=2) + CLEARLY).reshape(len(luma), 64)
    return np.packbits(bits, axis=1).view(">i8")[:, 0].astype(np.int64)


CLEARLY = 0.01  # of 0 to 1: on plain backgrounds anything less is noise
BITS = 4  # of a difference hash that saving an image again may change
COLOUR = 0.012  # by which it may change a mean, of 0 to 1
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # one more than BITS: one of them is the same in both


def near_groups(hashes: Any, colours: Any) -> Any:
    """Which images look the same: hashes that differ by a few bits, and means that are about the same.

    Either alone is not enough: small objects on plain backgrounds share their hashes, and many images their colours.
    Copies of copies are one group.

    Args:
        hashes: int64 [N] of `near_hashes`.
        colours: float32 [N, C], means of 0 to 1.

    Returns:
        int64 [N], the position of the first image of each one's group.
    """
    bits = np.ascontiguousarray(hashes).view(np.uint64)
    _, first, exact = np.unique(
        np.column_stack([bits.astype(np.float64), bits % 65_521, *colours.T]),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    order = np.argsort(first)  # distinct images in the order in which they come
    first, place = first[order], np.argsort(order)
    parent = np.arange(len(first))
    for one, other in _pairs(bits[first], colours[first]):
        roots = []
        for each in (one, other):
            while parent[each] != each:
                parent[each] = each = parent[parent[each]]
            roots.append(each)
        parent[max(roots)] = min(roots)
    for each in range(len(parent)):
        parent[each] = parent[parent[each]]  # parents come before their children
    return first[parent[place[exact.ravel()]]]


def _pairs(bits: Any, colours: Any) -> Iterator[tuple[int, int]]:
    for start, width in BANDS:
        band = (bits >> np.uint64(start)) & np.uint64(2**width - 1)
        order = np.lexsort((colours[:, 0], band))
        active, step = np.arange(len(order)), 0
        while len(active):  # each beside its neighbours in the band, as far as the first mean lets it
            step += 1
            active = active[active + step < len(order)]
            one, other = order[active], order[active + step]
            alike = (band[one] == band[other]) & (colours[other, 0] - colours[one, 0] <= COLOUR)
            active, one, other = active[alike], one[alike], other[alike]
            same = np.bitwise_count(bits[one] ^ bits[other]) <= BITS
            same &= (np.abs(colours[one] - colours[other]) <= COLOUR).all(axis=1)
            yield from zip(one[same].tolist(), other[same].tolist(), strict=True)
