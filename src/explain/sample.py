"""Which examples are explained: always the same ones of a data set, spread over its classes or documents."""

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
        null: those of them that the random weights are explained on, too.
        words: those of them whose single words are explained, too; none where the task has no words.
        others: for each of them, positions of examples that are put in its place; empty where the task has no use for them.
    """

    positions: Sequence[int]
    null: Sequence[int]
    words: Sequence[int] = ()
    others: Sequence[Sequence[int]] = ()


def choose_positions(ids: Sequence[str], strata: Sequence[Any], count: int, seed: int) -> list[int]:
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
    keys = id_hashes(ids, seed)
    members: dict[Any, list[int]] = defaultdict(list)
    for at in sorted(range(len(ids)), key=keys.__getitem__):
        members[strata[at]].append(at)
    turns = [(turn, keys[at], at) for each in members.values() for turn, at in enumerate(each)]
    return sorted(at for _, _, at in sorted(turns)[:count])


def id_hashes(ids: Sequence[str], seed: int) -> list[bytes]:
    """What examples are chosen by."""
    return [hashlib.sha256(f"{seed}:{each}".encode("utf-8", "surrogateescape")).digest() for each in ids]


def sample_digest(ids: Sequence[str]) -> str:
    """SHA-256 (hex) of the ids of a sample."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()


def example_seed(seed: int, name: int) -> int:
    """A seed for one example: its own, whatever else is explained.

    Args:
        seed: of the explanations.
        name: a 32-bit checksum of what the example is called.
    """
    return (seed << 32) | name


def choose_replacements(
    ids: Sequence[str], positions: Sequence[int], part: Sequence[int], differs: Callable[[int, int], bool], count: int
) -> list[list[int]]:
    """For each of some examples, others of the sample to put in its place; which, the hashes of both ids decide.

    Args:
        ids: of the validation split.
        positions: of the sample.
        part: those of them that others are wanted for.
        differs: whether an example may have the other's place.
        count: at most so many for each.
    """
    result = []
    for at in part:
        keys = id_hashes([f"{ids[at]} {ids[other]}" for other in positions], 0)
        ranked = [other for _, other in sorted(zip(keys, positions, strict=True))]
        result.append([other for other in ranked if differs(at, other)][:count])
    return result
