"""Which images there are, of which class, with which box. Nothing is decoded here.

A split is a folder, or Parquet files in the Hub's layout. A folder holds class folders (images anywhere below
them, boxes in `<class>_boxes.txt`: Tiny ImageNet's train/), or a flat `images/` beside
`<split>_annotations.txt` (its val/).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import balanced, class_order, listed
from datamodules.images.folders import SUFFIXES, class_names, read_folder
from datamodules.images.listing import Listing, Problem
from datamodules.images.tables import read_images, read_tables
from datamodules.sources import locations
from datamodules.sources.files import file_system

logger = logging.getLogger(__name__)

OFFICIAL = {"train": ("train",), "val": ("val", "valid", "validation", "dev")}

Boxes = npt.NDArray[np.float32]
Places = dict[str, list[str]]


@dataclass(frozen=True)
class Split:
    """The images of one split, in a fixed order.

    Attributes:
        place: the folder or the first file, for messages.
        files: every file whose content this split depends on, for its fingerprint.
        names: [N] the images' ids: paths relative to the data set's folder, or Parquet file and row.
        labels: int64 [N] positions in the list of classes.
        boxes: float32 [N, 4] x0, y0, x1, y1, the outermost pixels that are inside, in the image's own pixels;
            NaN where there is none.
        images: the encoded images in the same order, as paths (or URLs) or as bytes.
    """

    place: str
    files: list[str]
    names: list[str]
    labels: npt.NDArray[np.int64]
    boxes: Boxes
    images: Callable[[], Iterator[str | bytes]]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Survey:
    """All that is found, whatever is wrong with it.

    Attributes:
        classes: as `read` returns them.
        splits: as `read` returns them, with the images that have a label.
        problems: in the order in which they were met.
    """

    classes: list[dict[str, str]]
    splits: dict[str, Split]
    problems: list[Problem]

    def sound(self, split: str) -> Split:
        """A split, if nothing keeps a model from being trained on this data.

        Raises:
            InputError: the first problem that does.
        """
        for problem in self.problems:
            if problem.message:
                raise InputError(problem.message)
        found = self.splits[split]
        left_out = [each.name for each in self.problems if each.split == split]
        if left_out:
            logger.warning(
                "%s: %d file(s) that are not images in class folders are left out, such as %s",
                found.place,
                len(left_out),
                left_out[0],
            )
        return found


def locate(path: str | None, train_file: str | None = None, val_file: str | None = None) -> Places:
    """Where each split is: a folder, or Parquet files.

    Args:
        path: the data set's folder, local or an fsspec URL. It holds `train` and `val` (or `valid`,
            `validation`, `dev`): folders, or Parquet files that begin so (in it, or in its `data/`).
        train_file: the training folder or Parquet file, by name in `path` or outright.
        val_file: the same for validation.

    Raises:
        InputError: nothing fits; the message names what was found and what was expected.
    """
    if path is not None and (train_file is None or val_file is None):
        system, folder = file_system(path)
        # A local copy of a Hub repository keeps its Parquet files in data/.
        direct = any(system.exists(f"{folder}/{name}") for name in OFFICIAL["train"])
        if system.isdir(f"{folder}/data") and not direct:
            path = f"{path.rstrip('/')}/data"
    return locations.resolve_files(path, train_file, val_file, OFFICIAL, (".parquet",))


def layout(
    path: str | None, train_file: str | None, val_file: str | None, splits: Sequence[str] = ("train", "val")
) -> Places:
    """`locate`, for a Source; it finds both splits, whichever are wanted."""
    return locate(path, train_file, val_file)


def read(
    places: Places, limits: Mapping[str, int | None] | None = None, folder: str | None = None
) -> tuple[list[dict[str, str]], dict[str, Split]]:
    """Reads what images there are.

    Args:
        places: of "train" and "val": one folder each, or Parquet files.
        limits: at most so many images of a split, evenly over the classes.
        folder: the data set's own, for its `words.txt`.

    Returns:
        The classes, sorted by id, as [{"id": "n01443537", "name": "goldfish, Carassius auratus"}, ...] (the
        name is the id where nothing says better), and the splits "train" and "val".

    Raises:
        InputError: nothing to read there, no images, fewer than two classes, or a label without training images.
    """
    found = survey(places, limits, folder)
    return found.classes, {split: found.sound(split) for split in found.splits}


def survey(places: Places, limits: Mapping[str, int | None] | None = None, folder: str | None = None) -> Survey:
    """The same as `read` of images with something wrong: each is a problem of its own, and all others are there.

    Raises:
        InputError: nothing to read there, no images, or fewer than two classes.
    """
    listings = {name: _listing(name, files) for name, files in places.items()}
    train, val = listings["train"], listings["val"]
    problems = [problem for listing in listings.values() for problem in listing.problems]
    classes, without = _classes(train, val)
    problems += without
    position = {identity: index for index, identity in enumerate(classes)}
    splits = {name: _split(listing, position, (limits or {}).get(name)) for name, listing in listings.items()}
    words = class_names(folder, position)
    return Survey([{"id": identity, "name": words.get(identity, identity)} for identity in classes], splits, problems)


def _listing(split: str, files: list[str]) -> Listing:
    tables = [file for file in files if file.endswith(".parquet")]
    if tables and len(tables) == len(files):
        return read_tables(tables)
    system, folder = file_system(files[0])
    if len(files) > 1 or not system.isdir(folder):
        raise InputError(f"{files[0]}: the {split} images must be a folder, or Parquet files")
    return read_folder(split, files[0].rstrip("/"))


def _classes(train: Listing, val: Listing) -> tuple[list[str], list[Problem]]:
    """The classes in the order of their labels, and those that cannot be learned."""
    for listing in (train, val):
        if not listing.names:
            why = next((each.message for each in listing.problems if each.message), "")
            raise InputError(why or f"{listing.place} holds no images ({', '.join(SUFFIXES)})")
    declared = set(train.declared)
    for each in sorted(declared | set(val.classes)):
        if each != each.encode("utf-8", "replace").decode():  # a trained model names its classes, in JSON
            raise InputError(f"{train.place}: the name of the class {each!a} is not UTF-8; rename its folder")
    if len(declared) < 2:
        raise InputError(f"{train.place} has one class only ({', '.join(declared)}); classification needs two or more")
    trained = set(train.classes)
    unseen = sorted(set(val.classes) - trained)
    idle = sorted(declared - trained)
    problems = []
    if unseen:
        message = (
            f"{val.place} has images of {listed(unseen)}, of which {train.place} has none; "
            "both splits must have the same classes"
        )
        problems += [Problem("train", each, "", "no training images", each, message) for each in unseen]
    if idle and not train.tables:
        message = f"{train.place}: no images in the class folder(s) {listed(idle)}; fill or remove them"
        problems += [
            Problem("train", each, "", "no training images", each, message) for each in idle if each not in unseen
        ]
    elif idle:
        logger.warning("%s: no training images of %s", train.place, listed(idle))
    missing = sorted(declared - set(val.classes))
    if missing:
        logger.warning("%s: no validation images of %s", val.place, listed(missing))
    return sorted(declared | set(unseen), key=class_order), problems


def _split(listing: Listing, position: Mapping[str, int], limit: int | None) -> Split:
    labels = np.array([position[identity] for identity in listing.classes], np.int64)
    chosen = balanced(labels, limit)
    if not len(chosen):
        raise InputError(f"no images are left of {listing.place} with a limit of {limit}")
    names = [listing.names[index] for index in chosen]
    boxes = np.full((len(chosen), 4), np.nan, np.float32)
    if listing.boxes:
        for row, name in enumerate(names):
            if name in listing.boxes:
                boxes[row] = listing.boxes[name]
    if listing.tables:
        tables, rows = listing.tables, chosen

        def images() -> Iterator[str | bytes]:
            return read_images(tables, rows)

        files = listing.tables
    else:
        locations = [listing.locations[index] for index in chosen]

        def images() -> Iterator[str | bytes]:
            return iter(locations)

        files = locations + listing.others
    return Split(listing.place, files, names, labels[chosen], boxes, images)
