"""64-bit hashes that find copies: of texts and files as they are, and of images as they look."""

import hashlib
from typing import Any

import numpy as np


def hash64(content: str | bytes) -> int:
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
NEIGHBOURS = 64  # of an image in a band, by brightness: of a thousand frames of one scene not every pair need be seen
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # one more than BITS: one of them is the same in both


def near_groups(hashes: Any, colours: Any) -> Any:
    """Which images look the same: hashes that differ by a few bits, and means that are about the same.

    Either alone is not enough: small objects on plain backgrounds share their hashes, and many images their colours.
    Copies of copies are one group. Few small things on one background look the same, too: look at them before you believe it.

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
    one, other = _pairs(bits[first], colours[first])
    links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    earliest = np.full(component.max(initial=0) + 1, len(bits), np.int64)
    np.minimum.at(earliest, component, first)
    return earliest[component[exact.ravel()]]


def _pairs(bits: Any, colours: Any) -> tuple[Any, Any]:
    """Positions [P], [P] of pairs that look the same."""
    ones, others = [], []
    for start, width in BANDS:
        band = (bits >> np.uint64(start)) & np.uint64(2**width - 1)
        order = np.lexsort((colours[:, 0], band))
        active = np.arange(len(order))
        for step in range(
            1, NEIGHBOURS + 1
        ):  # each beside its neighbours in the band, as far as the first mean lets it
            active = active[active + step < len(order)]
            one, other = order[active], order[active + step]
            alike = (band[one] == band[other]) & (colours[other, 0] - colours[one, 0] <= COLOUR)
            active, one, other = active[alike], one[alike], other[alike]
            same = np.bitwise_count(bits[one] ^ bits[other]) <= BITS
            same &= (np.abs(colours[one] - colours[other]) <= COLOUR).all(axis=1)
            ones.append(one[same])
            others.append(other[same])
    return np.concatenate(ones), np.concatenate(others)
