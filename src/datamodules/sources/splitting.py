"""Parts of one file or folder: which of its examples are for validation and for the test.

Examples of one group (a document, a column of the user's, equal texts or files) are always in the same part.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.storage import arrays, cache
from datamodules.storage.fingerprint import Verify
from datamodules.storage.manifest import DamagedError

FORMAT = 1  # part of the cache key: increment it when `assign` assigns differently
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Splitting:
    """Shares of the training files that other parts get.

    Attributes:
        val: share of the validation part, above 0 and below 1; None: it has files of its own.
        test: share of the test part; None: it has files of its own, or there is none.
        seed: of the choice. It is not the seed of the training, whose runs are compared on the same examples.
        group: column whose equal values stay in one part; None: documents of questions, otherwise equal examples only.
    """

    val: float | None = None
    test: float | None = None
    seed: int = 0
    group: str | None = None

    def __post_init__(self) -> None:
        """Check the shares together.

        Raises:
            InputError: nothing is left for training, or a group without a share.
        """
        if (self.val or 0) + (self.test or 0) >= 1:
            raise InputError(f"data.split={self.val} and data.test_split={self.test} leave nothing to train on")
        if self.group is not None and not self:
            raise InputError(f"data.group={self.group} has an effect only with data.split or data.test_split")

    def __bool__(self) -> bool:
        """Whether any part is taken from the training files."""
        return self.val is not None or self.test is not None

    def takes(self, part: str) -> bool:
        """Whether a part is taken from the training files."""
        return {"train": bool(self), "val": self.val is not None, "test": self.test is not None}[part]

    def variant(self, part: str) -> str:
        """Return a part's addition to fingerprints; "" for one with files of its own."""
        if not self.takes(part):
            return ""
        shares = [f"{name}-{share}" for name, share in (("val", self.val), ("test", self.test)) if share is not None]
        return "-".join([part, "of", *shares, f"seed-{self.seed}", *([f"group-{self.group}"] if self.group else [])])


@dataclass(frozen=True)
class Key:
    """What keeps an example together with others.

    Attributes:
        groups: texts; examples that share one of them are in the same part.
        label: class, of which each part gets its share; "" without classes.
    """

    groups: tuple[str, ...]
    label: str = ""


def normalise(text: str) -> str:
    """Return a text without differences of case, punctuation and white space."""
    words = "".join(character if character.isalnum() else " " for character in text.casefold()).split()
    return " ".join(words) or text


def mask(
    root: Path,
    splitting: Splitting,
    part: str,
    source: str,
    variant: str,
    keys: Callable[[], Iterable[Key]],
    verify: Verify,
) -> npt.NDArray[np.bool_]:
    """Return which examples of the training files belong to a part, bool [N]; they are determined once.

    Args:
        root: folder of the cache.
        splitting: the shares.
        part: "train", "val" or "test".
        source: fingerprint of the files.
        variant: anything else that the keys depend on, such as names of columns.
        keys: yields the key of each example, in their order.
        verify: see `cache.entry`.

    Raises:
        InputError: a part would be empty.
    """

    def build(folder: Path) -> None:
        parts = assign(list(keys()), splitting)
        writer = arrays.ArrayWriter(folder / "parts.npy", np.int8)
        with arrays.completing((writer,)):
            writer.append(parts)

    def read(folder: Path) -> npt.NDArray[np.int8]:
        parts = arrays.load(folder / "parts.npy")
        if parts.ndim != 1:
            raise DamagedError(folder / "parts.npy", "it is not a list")
        arrays.check_range(parts, 0, len(PARTS), folder / "parts.npy")
        return parts

    key = {"format": FORMAT, "source": source, "variant": variant, "splitting": splitting.variant("train")}
    parts = read(cache.entry(root, "splits", key, build, verify, read))
    return np.asarray(parts == PARTS.index(part))


def assign(keys: Sequence[Key], splitting: Splitting) -> npt.NDArray[np.int8]:
    """Assign examples to parts.

    Whole groups are taken, in an order that the seed determines, until a part has its share of a class; a group that is
    larger than what is missing is passed over. A class with enough groups is in every part.

    Args:
        keys: [N] of the examples.
        splitting: the shares.

    Returns:
        int8 [N]: positions in `PARTS`.

    Raises:
        InputError: a part would be empty.
    """
    group_of = _connect([key.groups for key in keys])
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_of):
        members.setdefault(group, []).append(index)
    classes: dict[str, list[int]] = {}
    for group in members:
        classes.setdefault(keys[group].label, []).append(group)  # a group is named by its first example
    shares = [(PARTS.index(name), share) for name, share in (("val", splitting.val), ("test", splitting.test)) if share]
    parts = np.zeros(len(keys), np.int8)
    for groups in classes.values():
        size = sum(len(members[group]) for group in groups)
        waiting = sorted(groups, key=lambda group: _order(splitting.seed, min(keys[group].groups)))
        for part, share in shares:
            missing = max(1, round(share * size))
            for group in list(waiting):
                # The last group of a class is for training.
                if missing and len(waiting) > 1 and len(members[group]) <= missing:
                    parts[members[group]] = part
                    missing -= len(members[group])
                    waiting.remove(group)
    for part, name in enumerate(PARTS):
        if (part == 0 or splitting.takes(name)) and not (parts == part).any():
            raise InputError(
                f"{len(keys)} examples in {len(members)} groups cannot be split: no group is left for the {name} part, or all "
                f"are larger than its share (data.split={splitting.val}, data.test_split={splitting.test})"
            )
    return parts


def _order(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()


def _connect(groups: Sequence[tuple[str, ...]]) -> list[int]:
    """Return for each example the first example that it is connected to, by groups that they share."""
    parent = list(range(len(groups)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[bytes, int] = {}
    for index, names in enumerate(groups):
        for name in names:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
            root, other_root = find(index), find(first.setdefault(digest, index))
            parent[max(root, other_root)] = min(root, other_root)
    return [find(index) for index in range(len(groups))]
