"""Labelled texts on disk: written once, read one at a time, so that memory does not grow with them."""

import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from config.errors import InputError
from datamodules.classes import listed
from datamodules.storage import arrays
from datamodules.text import records
from datamodules.text.records import Columns

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: raise it when what `write` writes changes


def write(folder: Path, files: Sequence[str], columns: Columns, limit: int | None) -> None:
    """Writes a split.

    Args:
        folder: a cache entry that is being built.
        files: of the split.
        columns: which column is what.
        limit: at most so many texts, evenly over the classes.

    Raises:
        InputError: no texts, a row that is no example, or an id that occurs twice. The message names file and row.
    """
    listing = records.survey(files, columns)
    ids, texts, pairs = (arrays.TextWriter(folder, name) for name in ("ids", "texts", "pairs"))
    labels = arrays.ArrayWriter(folder / "labels.npy", np.int32)
    position = {name: index for index, name in enumerate(listing.classes)}
    hashes = array("q")
    with arrays.Writers((ids, texts, pairs, labels)):
        for record in records.read(files, columns, limit, listing=listing):
            if record.problem or record.text is None or record.label is None:
                raise InputError(f"{record.place}: {record.problem}")
            ids.append(record.id)
            texts.append(record.text)
            pairs.append(record.pair)
            labels.append([position[record.label]])
            hashes.append(hash(record.id))
    if not len(hashes):
        raise InputError(f"{', '.join(files)}: there are no texts")
    duplicate = arrays.duplicate(np.frombuffer(hashes, np.int64), arrays.Texts(folder, "ids"))
    if duplicate:
        name, first, second = duplicate
        raise InputError(
            f"{', '.join(files)}: the id {name!r} occurs twice, at texts {first + 1} and {second + 1}; ids must be unique in "
            "a split (data.columns.id names their column)"
        )
    about = {"classes": listing.classes, "present": listing.present, "declared": listing.declared}
    (folder / "classes.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


class LabelledTexts:
    """The texts of a split, read from disk as they are asked for.

    Attributes:
        ids: [N] unique in the split.
        labels: int64 [N] positions in the list of classes.
        classes: ids of the split's own classes, or those that were given.
        present: ids of the classes that occur in the split, whatever its limit.
        declared: whether the files declare their classes.
    """

    def __init__(self, folder: Path, classes: Sequence[str] | None = None) -> None:
        """Opens what `write` wrote.

        Args:
            folder: the cache entry.
            classes: ids of all classes, in the order of labels; None: the split's own.
        """
        about = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        own: list[str] = about["classes"]
        self.classes = list(own if classes is None else classes)
        self.present: list[str] = about["present"]
        self.declared: bool = about["declared"]
        position = {name: index for index, name in enumerate(self.classes)}
        mapping = np.array([position.get(name, -1) for name in own], np.int64)
        self.labels = mapping[np.load(folder / "labels.npy", allow_pickle=False)]
        self.ids, self._texts, self._pairs = (arrays.Texts(folder, name) for name in ("ids", "texts", "pairs"))

    def __len__(self) -> int:
        return len(self.labels)

    def id(self, index: int) -> str:
        """Its id."""
        return self.ids[index]

    def text(self, index: int) -> str:
        """The text."""
        return self._texts[index]

    def pair(self, index: int) -> str:
        """The second text; "" if there is none."""
        return self._pairs[index]

    def label(self, index: int) -> int:
        """Position in the list of classes."""
        return int(self.labels[index])

    def corpus(self) -> Iterator[str]:
        """All texts, to learn a vocabulary from."""
        for texts in (self._texts, self._pairs):
            for index in range(len(texts)):
                yield texts[index]


def classes(train: LabelledTexts, val: LabelledTexts) -> list[str]:
    """The classes of a data set, in the order of labels: as the training split has them.

    Raises:
        InputError: fewer than two, or texts of a class to validate on that training has none of.
    """
    if len(train.classes) < 2:
        raise InputError(
            f"the training split has one class only ({', '.join(train.classes)}); classification needs two or more"
        )
    unseen = [name for name in val.present if name not in set(train.present)]
    if unseen:
        raise InputError(
            f"the validation split has texts of {listed(unseen)}, of which the training split has none; "
            "both splits must have the same classes"
        )
    for split, texts in (("training", train), ("validation", val)):
        missing = [name for name in train.classes if name not in set(texts.present)]
        if missing:
            logger.warning("no %s texts of %s", split, listed(missing))
    return train.classes
