"""Which examples are explained: always the same ones of a data set, spread over its classes or documents."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def choose(ids: Sequence[str], strata: Sequence[Any], count: int, seed: int) -> list[int]:
    """Chooses examples by the hash of their ids: what is chosen depends on neither order nor machine.

    One of each stratum is taken, then a second of each, and so on; which strata come first is up to the hash too.

    Args:
        ids: [N], unique.
        strata: [N] the class or document of each.
        count: at most so many.
        seed: of the hash.

    Returns:
        Positions, ascending.
    """
    keys = hashes(ids, seed)
    members: dict[Any, list[int]] = defaultdict(list)
    for at in sorted(range(len(ids)), key=keys.__getitem__):
        members[strata[at]].append(at)
    turns = [(turn, keys[at], at) for each in members.values() for turn, at in enumerate(each)]
    return sorted(at for _, _, at in sorted(turns)[:count])


def hashes(ids: Sequence[str], seed: int) -> list[bytes]:
    """What examples are chosen by."""
    return [hashlib.sha256(f"{seed}:{each}".encode("utf-8", "surrogateescape")).digest() for each in ids]


def digest(ids: Sequence[str]) -> str:
    """SHA-256 (hex) of the ids of a sample."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()
