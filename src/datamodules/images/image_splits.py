"""Images of each split with their classes and boxes; nothing is decoded.

A split is a folder, or Parquet files in the Hub's layout. A folder holds class folders (with images at any depth, and
boxes in `<class>_boxes.txt`: Tiny ImageNet's train/), or a flat `images/` beside `<split>_annotations.txt` (its val/).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import class_sort_key, format_names, select_balanced
from datamodules.images.folders import SUFFIXES, read_class_names, read_folder
from datamodules.images.listing import Listing, Problem
from datamodules.images.tables import read_images, read_labels
from datamodules.sources.files import file_system, list_folder
from datamodules.sources.locations import FOLDERS, Names, resolve_files

logger = logging.getLogger(__name__)

Boxes = npt.NDArray[np.float32]
SplitFiles = Mapping[str, list[str]]


@dataclass(frozen=True)
class Split:
    """The images of one split, in a fixed order.

    Attributes:
        location: the folder or the first file, for messages.
        files: all files whose content this split depends on, for its fingerprint.
        names: [N] the images' ids: paths relative to the data set's folder, or Parquet file and row.
        labels: int64 [N] positions in the list of classes.
        boxes: float32 [N, 4] x0, y0, x1, y1, the outermost pixels inside, in the image's own pixels; NaN without a box.
        images: yields the encoded images in the same order, as paths (or URLs) or as bytes.
    """

    location: str
    files: list[str]
    names: list[str]
    labels: npt.NDArray[np.int64]
    boxes: Boxes
    images: Callable[[], Iterator[str | bytes]]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Survey:
    """Images and problems of both splits.

    Attributes:
        classes: [{"id", "name"}, ...] in the order of the labels.
        splits: the images with a label, by split.
        problems: in the order in which they were found.
    """

    classes: list[dict[str, str]]
    splits: dict[str, Split]
    problems: list[Problem]

    def valid_split(self, split: str) -> Split:
        """Return a split, if the data can be trained on; warn of files that are skipped.

        Raises:
            InputError: the first problem that prevents it.
        """
        for problem in self.problems:
            if problem.message:
                raise InputError(problem.message)
        images = self.splits[split]
        skipped = [problem.name for problem in self.problems if problem.split == split]
        if skipped:
            logger.warning(
                "%s: %d file(s) that are not images in class folders are skipped, such as %s",
                images.location,
                len(skipped),
                skipped[0],
            )
        return images


def locate(names: Names, split: str, undivided: bool = False) -> list[str]:
    """Find the folder or the Parquet files of a split.

    Args:
        names: `path` is the data set's folder. It holds `train` and `val` (or `valid`, `validation`, `dev`), and maybe
            `test`, in any case: folders, or Parquet files that begin with these names (in it, or in its `data/`).
        split: "train", "val" or "test".
        undivided: the training images are all that there is: `path` may hold the class folders itself.

    Raises:
        InputError: no match, or several. The message names what exists and what is expected.
    """
    path = names.path
    if path is not None and getattr(names, split) is None:
        system, folder = file_system(path)
        # A local copy of a Hub repository keeps its Parquet files in data/.
        if system.isdir(f"{folder}/data") and not _has_training_folder(path) and not (undivided and _has_folders(path)):
            path = f"{path.rstrip('/')}/data"
    return resolve_files(replace(names, path=path), split, suffixes=(".parquet",), undivided=undivided, folders=True)


def _has_training_folder(path: str) -> bool:
    return any(name.lower() in FOLDERS["train"] for name in list_folder(path)[0])


def _has_folders(path: str) -> bool:
    """Whether a folder holds others than data/, which may be those of classes."""
    return list_folder(path)[0] != ["data"]


def survey(
    files: SplitFiles,
    limits: Mapping[str, int | None] | None = None,
    folder: str | None = None,
    masks: Mapping[str, Callable[[Listing], npt.NDArray[np.bool_]]] | None = None,
) -> Survey:
    """List the images of both splits. What is defective is a problem in the result, not an error.

    Args:
        files: of "train" and "val": one folder each, or Parquet files.
        limits: maximum number of images by split, spread evenly over the classes.
        folder: the data set's folder, for its `words.txt`.
        masks: by split that is a part of the training files: selects its images, bool [N], of all of them.

    Returns:
        The survey. Classes are sorted by id, such as {"id": "n01443537", "name": "goldfish, Carassius auratus"}; without
        a words.txt the name is the id.

    Raises:
        InputError: nothing to read, no images, or fewer than two classes.
    """
    listings = _list_parts(files, masks or {})
    classes, class_problems = _resolve_classes(listings["train"], listings["val"])
    problems = [problem for listing in listings.values() for problem in listing.problems] + class_problems
    position = {identity: index for index, identity in enumerate(classes)}
    splits = {name: _make_split(listing, position, (limits or {}).get(name)) for name, listing in listings.items()}
    names = read_class_names(folder, position)
    return Survey([{"id": identity, "name": names.get(identity, identity)} for identity in classes], splits, problems)


def _list_parts(
    files: SplitFiles, masks: Mapping[str, Callable[[Listing], npt.NDArray[np.bool_]]]
) -> dict[str, Listing]:
    """List the images of both splits, of which one or both may be parts of the training files."""
    training = _list_images("train", files["train"])
    listings = {}
    for name, paths in files.items():
        if name in masks:
            listings[name] = training.select(masks[name](training), keep_problems=name == "train")
        else:
            listings[name] = training if name == "train" else _list_images(name, paths)
    return listings


def _list_images(split: str, files: list[str]) -> Listing:
    if files and all(file.endswith(".parquet") for file in files):
        return read_labels(files)
    system, folder = file_system(files[0])
    if len(files) > 1 or not system.isdir(folder):
        raise InputError(f"{files[0]}: the {split} images must be a folder, or Parquet files")
    return read_folder(split, files[0].rstrip("/"))


def _resolve_classes(train: Listing, val: Listing) -> tuple[list[str], list[Problem]]:
    """Return the classes in the order of their labels, and a problem for each that cannot be learned."""
    for listing in (train, val):
        if not listing.names:
            message = next((problem.message for problem in listing.problems if problem.message), "")
            raise InputError(message or f"{listing.location} holds no images ({', '.join(SUFFIXES)})")
    declared, train_classes, val_classes = set(train.declared), set(train.classes), set(val.classes)
    for name in sorted(declared | val_classes):
        if name != name.encode("utf-8", "replace").decode():  # a trained model names its classes, in JSON
            raise InputError(f"{train.location}: the name of the class {name!a} is not UTF-8; rename its folder")
    if len(declared) < 2:
        raise InputError(
            f"{train.location} has only one class ({', '.join(declared)}); classification needs at least two"
        )
    problems = []
    unlearned = sorted(val_classes - train_classes)
    if unlearned:
        message = (
            f"{val.location} has images of {format_names(unlearned)}, of which {train.location} has none; "
            "both splits must have the same classes"
        )
        problems += _class_problems(unlearned, message)
    empty = sorted(declared - train_classes)
    if empty and train.tables:
        logger.warning("%s: no training images of %s", train.location, format_names(empty))
    elif empty:
        message = f"{train.location}: no images in the class folder(s) {format_names(empty)}; fill or remove them"
        problems += _class_problems((name for name in empty if name not in unlearned), message)
    missing = sorted(declared - val_classes)
    if missing:
        logger.warning("%s: no validation images of %s", val.location, format_names(missing))
    return sorted(declared | set(unlearned), key=class_sort_key), problems


def _class_problems(classes: Iterable[str], message: str) -> list[Problem]:
    return [Problem("train", name, "", "no training images", name, message) for name in classes]


def _make_split(listing: Listing, position: Mapping[str, int], limit: int | None) -> Split:
    labels = np.array([position[identity] for identity in listing.classes], np.int64)
    selection = select_balanced(labels, limit)
    if not len(selection):
        raise InputError(f"no images are left of {listing.location} with a limit of {limit}")
    names = [listing.names[index] for index in selection]
    boxes = np.full((len(selection), 4), np.nan, np.float32)
    if listing.boxes:
        for row, name in enumerate(names):
            if name in listing.boxes:
                boxes[row] = listing.boxes[name]
    images: Callable[[], Iterator[str | bytes]]
    if listing.tables:
        rows = selection if listing.rows is None else listing.rows[selection]
        files, images = listing.tables, partial(read_images, listing.tables, rows)
    else:
        paths = [listing.paths[index] for index in selection]
        files, images = paths + listing.other_files, partial(iter, paths)
    return Split(listing.location, files, names, labels[selection], boxes, images)
