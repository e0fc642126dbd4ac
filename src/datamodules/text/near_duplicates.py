"""Near-duplicates among texts: pairs that share most of their sequences of words, found with MinHash.

The share is the Jaccard similarity: of all different sequences of three words in the two texts, those that both have.
MinHash estimates it from `HASHES` minima; the standard error is 0.04. Time and memory grow linearly with the texts.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from datamodules.storage.arrays import ragged_indices
from datamodules.text.vocabulary import CONTINUOUS

THRESHOLD = 0.7  # of the similarity
WORDS = 3  # of a sequence; a shorter text is one sequence
HASHES = 128
BAND = 4  # hashes that must agree for a comparison: pairs with a similarity of 0.7 agree in one of the bands (99.98 %)
# That a text is compared with among those that agree in a band: bounds the work on texts of one template.
NEIGHBOURS = 8
TEXTS = 256  # that are hashed at a time
PAIRS = 16_384  # that are compared at a time

_CHARACTERS = "".join(f"{chr(first)}-{chr(last)}" for first, last in CONTINUOUS)
_CONTINUOUS = re.compile(f"[{_CHARACTERS}]")  # in scripts without spaces, each character counts as a word
# Constants that no version of a random generator changes: of the sequences, and factor and addend of each hash.
_BYTES = hashlib.shake_256(b"near-duplicates").digest(8 * (WORDS + 1 + 2 * HASHES))
_NUMBERS = np.frombuffer(_BYTES, "<u8") | np.uint64(1)
_SEQUENCE, _MIX, _FACTORS, _ADDENDS = np.split(_NUMBERS, [WORDS, WORDS + 1, WORDS + 1 + HASHES])

Pairs = npt.NDArray[np.int64]


def near_pairs(texts: Iterable[str]) -> Pairs:
    """Find pairs of near-duplicates; they connect all of a group, but are not all pairs of it.

    Args:
        texts: normalised: words in lower case between single spaces. Of equal ones the first counts, empty ones never.

    Returns:
        int64 [P, 2] positions of the texts. Which texts are pairs does not depend on their order.
    """
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        if text:
            first.setdefault(text, index)
    different = sorted(first)  # an order that does not depend on that of the texts
    positions = np.array([first[text] for text in different], np.int64)
    return positions[np.unique(_similar(_signatures(different)), axis=0)]


def _signatures(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Minima of the hashes of each text's sequences, uint32 [N, HASHES]."""
    signatures = np.empty((len(texts), HASHES), np.uint32)
    for start in range(0, len(texts), TEXTS):
        words = [list(_words(text)) for text in texts[start : start + TEXTS]]
        lengths = np.array([len(text) for text in words])
        counts = lengths - (WORDS - 1)  # of sequences
        numbers = np.array([word for text in words for word in text], np.uint64)
        starts = ragged_indices(np.cumsum(lengths) - lengths, counts)
        sequences = sum(
            (numbers[starts + offset] * factor for offset, factor in enumerate(_SEQUENCE)), start=np.uint64(0)
        )
        sequences ^= sequences >> np.uint64(29)
        sequences *= _MIX
        sequences ^= sequences >> np.uint64(32)
        first = np.cumsum(counts) - counts
        rows = signatures[start : start + TEXTS]
        for column, (factor, addend) in enumerate(zip(_FACTORS, _ADDENDS, strict=True)):
            rows[:, column] = np.minimum.reduceat((sequences * factor + addend) >> np.uint64(32), first)
    return signatures


def _words(text: str) -> Iterator[int]:
    """A number for each word, at least `WORDS`."""
    if not text.isascii():
        text = _CONTINUOUS.sub(r" \g<0> ", text)
    words = text.encode("utf-8", "surrogatepass").split()
    yield from map(crc32, words)
    yield from [0] * (WORDS - len(words))


def _similar(signatures: npt.NDArray[np.uint32]) -> Pairs:
    """Positions of similar texts, int64 [P, 2]: in each band, neighbours among those that agree."""
    bands = np.ascontiguousarray(signatures).view(np.dtype((np.void, BAND * signatures.itemsize)))
    numbers = np.empty(bands.shape, np.int64)  # of the different values of a band
    for column in range(bands.shape[1]):
        numbers[:, column] = np.unique(bands[:, column], return_inverse=True)[1]
    similar = [np.empty((0, 2), np.int64)]
    for column in range(bands.shape[1]):
        band = numbers[:, column]
        order = np.lexsort((numbers[:, column - 1], band))  # those that also agree in another band are neighbours
        for step in range(1, NEIGHBOURS + 1):
            pairs = np.column_stack([order[:-step], order[step:]])
            pairs = pairs[band[pairs[:, 0]] == band[pairs[:, 1]]]
            if not len(pairs):
                break
            for part in np.split(pairs, range(PAIRS, len(pairs), PAIRS)):
                equal = (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
                similar.append(np.sort(part[equal >= THRESHOLD], axis=1))
    return np.concatenate(similar)
