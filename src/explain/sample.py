"""The sample of examples that is explained: fixed by their ids, spread over classes or documents."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chunk:
    """Examples that are explained together.

    Attributes:
        positions: of the examples in the validation split.
        null: positions of those that are explained with random weights too.
        words: positions of those whose words are explained; empty for tasks without words.
        replacements: for each example, positions of examples to put in its place; empty for tasks without.
    """

    positions: Sequence[int]
    null: Sequence[int]
    words: Sequence[int] = ()
    replacements: Sequence[Sequence[int]] = ()


def choose_positions(ids: Sequence[str], strata: Sequence[Any], count: int, seed: int) -> list[int]:
    """Return the examples that `rank_positions` chooses, in ascending order; see there for the arguments."""
    return sorted(rank_positions(ids, strata, count, seed))


def rank_positions(ids: Sequence[str], strata: Sequence[Any], count: int, seed: int) -> list[int]:
    """Choose examples by the hashes of their ids, independent of the order of the data and of the machine.

    One example of each stratum is chosen, then a second of each, and so on; the order of strata is by hash as well. So the
    first n are the sample of n examples.

    Args:
        ids: [N], unique.
        strata: [N] class or document of each.
        count: maximal number of examples.
        seed: of the hashes.

    Returns:
        Positions, in the order in which they are chosen.
    """
    keys = id_hashes(ids, seed)
    members: dict[Any, list[int]] = defaultdict(list)
    for position in sorted(range(len(ids)), key=keys.__getitem__):
        members[strata[position]].append(position)
    turns = [(turn, keys[position], position) for group in members.values() for turn, position in enumerate(group)]
    return [position for _, _, position in sorted(turns)[:count]]


def id_hashes(ids: Sequence[str], seed: int) -> list[bytes]:
    """Return SHA-256 of each id with the seed."""
    return [hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest() for name in ids]


def sample_digest(ids: Sequence[str]) -> str:
    """Return SHA-256 (hex) of the ids of a sample."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()


def example_seed(seed: int, checksum: int) -> int:
    """Return the seed of one example, which does not depend on the others.

    Args:
        seed: of the explanations.
        checksum: 32-bit checksum of the example's id.
    """
    return (seed << 32) | checksum


def choose_replacements(
    ids: Sequence[str], positions: Sequence[int], part: Sequence[int], differs: Callable[[int, int], bool], count: int
) -> list[list[int]]:
    """Choose for some examples others of the sample to put in their place, by the hashes of both ids.

    Args:
        ids: of the validation split.
        positions: of the sample.
        part: positions of the examples to replace.
        differs: whether an example (first) may be replaced by another (second).
        count: maximal number for each.
    """
    result = []
    for position in part:
        keys = id_hashes([f"{ids[position]} {ids[candidate]}" for candidate in positions], 0)
        ranked = [candidate for _, candidate in sorted(zip(keys, positions, strict=True))]
        result.append([candidate for candidate in ranked if differs(position, candidate)][:count])
    return result
