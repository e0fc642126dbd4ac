"""Reads folders of images: class folders, or Tiny ImageNet's flat folder beside a file of annotations."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from config.errors import InputError
from datamodules.images.listing import Listing, Problem
from datamodules.sources.files import entries, file_system, read_bytes, walk

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def read_folder(split: str, place: str) -> Listing:
    """Reads which images a folder holds.

    Args:
        split: "train" or "val".
        place: the folder.

    Raises:
        InputError: it holds neither class folders nor an annotations file.
    """
    folders, files = entries(place)
    annotations = [file for file in files if file.endswith("_annotations.txt")]
    if annotations:
        return _annotated(split, place, annotations[0])
    listing = Listing(place, [], [], {}, [], [], [], [], [])
    boxes: dict[str, tuple[float, ...]] = {}
    root = PurePosixPath(place).name
    problems = [Problem(split, f"{root}/{file}", f"{place}/{file}", "not an image", "", "") for file in files]
    for identity in folders:
        for inner in walk(f"{place}/{identity}"):
            name = f"{root}/{identity}/{inner}"
            if inner.lower().endswith(SUFFIXES):
                listing.names.append(name)
                listing.classes.append(identity)
                listing.locations.append(f"{place}/{identity}/{inner}")
            elif inner == f"{identity}_boxes.txt":
                listing.others.append(f"{place}/{identity}/{inner}")
                _read_boxes(f"{place}/{identity}/{inner}", f"{root}/{identity}/images", boxes)
            else:
                problems.append(Problem(split, name, f"{place}/{identity}/{inner}", "not an image", identity, ""))
    if not folders:
        raise InputError(
            f"{place} holds no class folders; the {split} split needs one folder per class, "
            "or images/ beside an annotations file"
        )
    others = listing.others
    return Listing(place, listing.names, listing.classes, boxes, folders, listing.locations, [], others, problems)


def _annotated(split: str, place: str, annotations: str) -> Listing:
    """A flat folder of images; one file has classes and boxes: name, class, x0 y0 x1 y1, by tabs."""
    file = f"{place}/{annotations}"
    images = set(walk(f"{place}/images"))
    unnamed = set(images)
    problems: list[Problem] = []
    names: list[str] = []
    classes: list[str] = []
    locations: list[str] = []
    boxes: dict[str, tuple[float, ...]] = {}
    root = PurePosixPath(place).name
    for line, fields in _rows(file):
        if len(fields) not in (2, 6):
            raise InputError(f"{file}, line {line}: expected image, class and the box's four numbers, by tabs")
        image, identity, *box = fields
        if image not in unnamed:
            what = "named twice" if image in images else "not there"
            said = (
                f"{place}/images/{image} is named twice" if image in images else f"there is no {place}/images/{image}"
            )
            message = f"{file}, line {line}: {said}"
            location = f"{place}/images/{image}" if image in images else ""
            problems.append(Problem(split, f"{root}/images/{image}", location, what, identity, message))
            continue
        unnamed.remove(image)
        names.append(f"{root}/images/{image}")
        locations.append(f"{place}/images/{image}")
        classes.append(identity)
        if box:
            boxes[names[-1]] = _box(box, file, line)
    unlabelled = sorted(image for image in unnamed if image.lower().endswith(SUFFIXES))
    for image in sorted(unnamed):
        name, location = f"{root}/images/{image}", f"{place}/images/{image}"
        if image in unlabelled:
            message = f"{file} names no class for {len(unlabelled)} image(s), such as {unlabelled[0]}"
            problems.append(Problem(split, name, location, "no label", "", message))
        else:
            problems.append(Problem(split, name, location, "not an image", "", ""))
    return Listing(place, names, classes, boxes, sorted(set(classes)), locations, [], [file], problems)


def _read_boxes(file: str, folder: str, boxes: dict[str, tuple[float, ...]]) -> None:
    for line, fields in _rows(file):
        if len(fields) != 5:
            raise InputError(f"{file}, line {line}: expected image and the box's four numbers, by tabs")
        boxes[f"{folder}/{fields[0]}"] = _box(fields[1:], file, line)


def _box(fields: Sequence[str], file: str, line: int) -> tuple[float, ...]:
    try:
        box = tuple(float(field) for field in fields)
    except ValueError:
        box = ()
    if len(box) != 4 or not (0 <= box[0] <= box[2] < np.inf and 0 <= box[1] <= box[3] < np.inf):
        raise InputError(f"{file}, line {line}: {' '.join(fields)} is not a box x0 y0 x1 y1")
    return box


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    try:
        text = read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text in UTF-8: {error}") from error
    for line, row in enumerate(text.splitlines(), start=1):
        if row.strip():
            yield line, row.split("\t")


def class_names(path: str | None, wanted: Mapping[str, int]) -> dict[str, str]:
    """Readable class names from words.txt, where the data set has one."""
    if path is None:
        return {}
    system, folder = file_system(path)
    if not system.isfile(f"{folder}/words.txt"):
        return {}
    rows = _rows(f"{path.rstrip('/')}/words.txt")
    return {row[0]: row[1] for _, row in rows if len(row) == 2 and row[0] in wanted}
