"""Parts of one file or folder: which of its examples are for validation and for the test.

Examples of one group (a document, a column of the user's, equal texts or files, near-duplicates) are always in the same
part.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from config.numbers import format_count
from datamodules.storage import arrays, cache
from datamodules.storage.fingerprint import Verify
from datamodules.storage.manifest import DamagedError

logger = logging.getLogger(__name__)

FORMAT = 2  # part of cache keys and fingerprints: increment it when examples are assigned differently
PARTS = ("train", "val", "test")
TEXT = "text "  # before a normalised text in `Key.groups`
LARGE_GROUP = 0.1  # share of the examples above which a group of near-duplicates is a warning
HINT = "data.group_near_duplicates=false keeps only equal examples together"

Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Splitting:
    """Shares of the training files that other parts get.

    Attributes:
        val: share of the validation part, above 0 and below 1; None: it has files of its own.
        test: share of the test part; None: it has files of its own, or there is none.
        seed: of the choice. It is not the seed of the training, whose runs are compared on the same examples.
        group: what stays in one part: a column, or of image files a regular expression; None: documents of questions,
            otherwise equal examples only.
        near_duplicates: whether near-duplicates stay in one part, too.
    """

    val: float | None = None
    test: float | None = None
    seed: int = 0
    group: str | None = None
    near_duplicates: bool = True

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
        words = [part, "of", *shares, f"seed-{self.seed}", f"format-{FORMAT}"]
        words += [f"group-{self.group}"] if self.group else []
        words += [] if self.near_duplicates else ["equal-only"]
        return "-".join(words)

    def describe(self) -> dict[str, object]:
        """Return what `run.json` says about the choice."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Key:
    """What keeps an example together with others.

    Attributes:
        groups: names; examples that share one of them are in the same part.
        label: class, of which each part gets its share; "" without classes.
    """

    groups: tuple[str, ...]
    label: str = ""

    @property
    def text(self) -> str:
        """The normalised text among the names, of a pair both; "" without one."""
        return next((name.removeprefix(TEXT).replace("\0", " ") for name in self.groups if name.startswith(TEXT)), "")


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
    near_pairs: Callable[[Sequence[Key]], Pairs],
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
        near_pairs: finds pairs of near-duplicates, int64 [P, 2].
        verify: see `cache.entry`.

    Raises:
        InputError: a part would be empty.
    """

    def build(folder: Path) -> None:
        all_keys = list(keys())
        pairs = near_pairs(all_keys) if splitting.near_duplicates else np.empty((0, 2), np.int64)
        if len(pairs):
            _log_groups(len(all_keys), pairs)
        writer = arrays.ArrayWriter(folder / "parts.npy", np.int8)
        with arrays.completing((writer,)):
            writer.append(assign(all_keys, splitting, pairs))

    def read(folder: Path) -> npt.NDArray[np.int8]:
        parts = arrays.load(folder / "parts.npy")
        if parts.ndim != 1:
            raise DamagedError(folder / "parts.npy", "it is not a list")
        arrays.check_range(parts, 0, len(PARTS), folder / "parts.npy")
        return parts

    key = {"source": source, "variant": variant, "splitting": splitting.variant("train")}
    parts = read(cache.entry(root, "splits", key, build, verify, read))
    return np.asarray(parts == PARTS.index(part))


def _log_groups(count: int, near_pairs: Pairs) -> None:
    sizes = [size for size in Counter(_connect(count, near_pairs)).values() if size > 1]
    is_large = max(sizes) > LARGE_GROUP * count
    logger.log(
        logging.WARNING if is_large else logging.INFO,
        "%d of %s are near-duplicates of others: %s, the largest of %d, each of them in one part%s",
        sum(sizes),
        format_count(count, "example"),
        format_count(len(sizes), "group"),
        max(sizes),
        f"; {HINT}" if is_large else "",
    )


def assign(keys: Sequence[Key], splitting: Splitting, near_pairs: Pairs | None = None) -> npt.NDArray[np.int8]:
    """Assign examples to parts.

    Whole groups are taken, in an order that the seed determines, until a part has its share of a class; a group that is
    larger than what is missing is passed over. A group is of the class that most of its examples have. A class with
    enough groups is in every part. The order of the examples has no effect.

    Args:
        keys: [N] of the examples.
        splitting: the shares.
        near_pairs: int64 [P, 2] positions of further examples that are in the same part.

    Returns:
        int8 [N]: positions in `PARTS`.

    Raises:
        InputError: a part would be empty.
    """
    pairs = np.empty((0, 2), np.int64) if near_pairs is None else near_pairs
    members: dict[int, list[int]] = {}
    for index, group in enumerate(_connect(len(keys), _same_names(keys), pairs)):
        members.setdefault(group, []).append(index)
    classes: dict[str, list[int]] = {}
    for group, indices in members.items():
        labels = Counter(keys[index].label for index in indices)
        classes.setdefault(min(labels, key=lambda label: (-labels[label], label)), []).append(group)
    names = {group: min(min(keys[index].groups) for index in indices) for group, indices in members.items()}
    shares = [(PARTS.index(name), share) for name, share in (("val", splitting.val), ("test", splitting.test)) if share]
    parts = np.zeros(len(keys), np.int8)
    for groups in classes.values():
        size = sum(len(members[group]) for group in groups)
        waiting = sorted(groups, key=lambda group: _order(splitting.seed, names[group]))
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
            hint = f"; {HINT}" if len(pairs) else ""
            raise InputError(
                f"{len(keys)} examples in {len(members)} groups cannot be split: no group is left for the {name} part, or all "
                f"are larger than its share (data.split={splitting.val}, data.test_split={splitting.test}){hint}"
            )
    return parts


def _order(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()


def _same_names(keys: Sequence[Key]) -> Iterable[tuple[int, int]]:
    """Pairs of examples that share a name: each with the first that has it."""
    first: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        for name in key.groups:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
            yield index, first.setdefault(digest, index)


def _connect(count: int, *links: Iterable[Sequence[int]]) -> list[int]:
    """Return for each of `count` examples the first that it is connected to, by pairs of positions."""
    parent = list(range(count))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pairs in links:
        for left, right in pairs.tolist() if isinstance(pairs, np.ndarray) else pairs:
            root, other_root = find(left), find(right)
            parent[max(root, other_root)] = min(root, other_root)
    return [find(index) for index in range(count)]
