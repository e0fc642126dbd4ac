"""Labelled texts on disk: written once and read one at a time, in memory independent of their number."""

import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import format_names
from datamodules.storage import arrays
from datamodules.storage.manifest import DamagedError
from datamodules.text.records import LabelSurvey, Record

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: increment it when `write` writes anything else


def write(folder: Path, survey: LabelSurvey, rows: Iterable[Record], source: str) -> None:
    """Write a split.

    Args:
        folder: a cache entry that is being built.
        survey: the labels of its files.
        rows: its records.
        source: its files, for messages.

    Raises:
        InputError: no texts, an invalid row, or an id that occurs twice. The message names file and row.
    """
    ids, texts, pairs = (arrays.TextWriter(folder, name) for name in ("ids", "texts", "pairs"))
    labels = arrays.ArrayWriter(folder / "labels.npy", np.int32)
    position = {name: index for index, name in enumerate(survey.classes)}
    hashes = array("q")
    with arrays.completing((ids, texts, pairs, labels)):
        for record in rows:
            if record.problem or record.text is None or record.label is None:
                raise InputError(f"{record.location}: {record.problem}")
            ids.append(record.id)
            texts.append(record.text)
            pairs.append(record.pair)
            labels.append([position[record.label]])
            hashes.append(hash(record.id))
    arrays.check_ids(arrays.TextArray(folder, "ids"), hashes, source, "texts", " (see data.columns.id)")
    content = {"classes": survey.classes, "present": survey.present, "declared": survey.declared}
    (folder / "classes.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


class LabelledTexts:
    """The texts of a split, read from disk on access.

    Attributes:
        ids: [N] unique in the split.
        labels: int64 [N] positions in the list of classes.
        classes: ids, in the order of the labels.
        present: ids of the classes that occur in the split's files, beyond its limit too.
    """

    def __init__(self, folder: Path, classes: Sequence[str] | None = None) -> None:
        """Open what `write` wrote.

        Args:
            folder: the cache entry.
            classes: ids of all classes, in the order of labels; None: those of the split's files.

        Raises:
            DamagedError: its files do not fit together.
        """
        content = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        split_classes: list[str] = content["classes"]
        self.classes = list(split_classes if classes is None else classes)
        self.present: list[str] = content["present"]
        position = {name: index for index, name in enumerate(self.classes)}
        mapping = np.array([position.get(name, -1) for name in split_classes], np.int64)
        labels = arrays.load(folder / "labels.npy")
        self.ids, self._texts, self._pairs = (arrays.TextArray(folder, name) for name in ("ids", "texts", "pairs"))
        if not labels.shape == (len(self.ids),) == (len(self._texts),) == (len(self._pairs),):
            raise DamagedError(folder / "labels.npy", "its number of texts is not that of the other files")
        arrays.check_range(labels, 0, len(split_classes), folder / "labels.npy")
        self.labels = mapping[labels]

    def __len__(self) -> int:
        return len(self.labels)

    def id(self, index: int) -> str:
        """Return the text's id."""
        return self.ids[index]

    def text(self, index: int) -> str:
        """Return the text."""
        return self._texts[index]

    def pair(self, index: int) -> str:
        """Return the second text; "" without one."""
        return self._pairs[index]

    @property
    def has_pair(self) -> npt.NDArray[np.bool_]:
        """Whether each text has a second one, bool [N]."""
        return np.asarray(np.diff(self._pairs.offsets) > 0)

    def label(self, index: int) -> int:
        """Return the position of the text's class in the list of classes."""
        return int(self.labels[index])

    def corpus(self) -> Iterator[str]:
        """Yield all texts, to train a vocabulary on."""
        return chain(self._texts, self._pairs)


def resolve_classes(train: LabelledTexts, val: LabelledTexts) -> list[str]:
    """Return the classes of a data set, in the order of the labels: those of the training split.

    Raises:
        InputError: fewer than two, or validation texts of a class without training texts.
    """
    if len(train.classes) < 2:
        raise InputError(
            f"the training split has only one class ({', '.join(train.classes)}); classification needs at least two"
        )
    unseen = [name for name in val.present if name not in set(train.present)]
    if unseen:
        raise InputError(
            f"the validation split has texts of {format_names(unseen)}, of which the training split has none; "
            "both splits must have the same classes"
        )
    for split, texts in (("training", train), ("validation", val)):
        missing = [name for name in train.classes if name not in set(texts.present)]
        if missing:
            logger.warning("no %s texts of %s", split, format_names(missing))
    return train.classes
