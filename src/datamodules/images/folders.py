"""Reader of image folders: class folders, or Tiny ImageNet's flat folder with a file of annotations."""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from config.errors import InputError
from datamodules.classes import format_names
from datamodules.images.listing import Listing, Problem
from datamodules.sources.files import file_system, full_path, list_folder, read_bytes, walk_files

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def read_folder(split: str, location: str) -> Listing:
    """List the images of a folder.

    Args:
        split: "train" or "val".
        location: path or URL of the folder.

    Raises:
        InputError: the folder holds neither class folders nor an annotations file.
    """
    folders, files = list_folder(location)
    annotations = next((file for file in files if file.endswith("_annotations.txt")), None)
    parent: str | None = location
    if annotations is not None:
        parent = _find_class_folders(location, folders, f"{location}/{annotations}")
        if parent is None:
            return _read_annotated(split, location, annotations)
        logger.info("%s: the images are in class folders, which decide; %s only has boxes", location, annotations)
        inner_folders, inner_files = list_folder(parent)
        folders = [name for name in inner_folders if name != "images"]
        files = [name for name in inner_files if name != annotations]
    elif [name.lower() for name in folders] == ["images"] and (inner := list_folder(f"{location}/{folders[0]}"))[0]:
        parent = f"{location}/{folders[0]}"
        folders, files = inner[0], [*inner[1]]
    listing = _read_classes(split, location, str(parent), folders, files)
    if annotations is not None:
        _add_boxes(listing, f"{location}/{annotations}")
    return listing


def _find_class_folders(location: str, folders: Sequence[str], file: str) -> str | None:
    """Return the folder whose class folders hold the images of an annotations file; None if images/ holds them.

    Many scripts for Tiny ImageNet move the validation images into class folders and leave the annotations behind.
    """
    inner = list_folder(f"{location}/images")[0] if "images" in folders else []
    images = set(walk_files(f"{location}/images")) if "images" in folders else set()
    classes = [name for name in folders if name != "images"]
    if any(fields[0] in images for _, fields in _rows(file)):
        if classes:
            logger.warning("%s: only images/ is read, as %s says, not %s", location, file, format_names(classes))
        return None
    for parent, names in ((location, classes), (f"{location}/images", inner)):
        if any(name.lower().endswith(SUFFIXES) for folder in names for name in walk_files(f"{parent}/{folder}")):
            return parent
    return None


def _add_boxes(listing: Listing, file: str) -> None:
    """Add the boxes of an annotations file to the images of the same file name and class."""
    listing.other_files.append(file)
    names = {
        (PurePosixPath(name).name, identity): name
        for name, identity in zip(listing.names, listing.classes, strict=True)
    }
    for line, (image, identity, *box) in _annotation_rows(file):
        if box and (name := names.get((PurePosixPath(image).name, identity))):
            listing.boxes[name] = _parse_box(box, file, line)


def _read_classes(split: str, location: str, parent: str, folders: Sequence[str], files: Sequence[str]) -> Listing:
    """List the images of class folders.

    Args:
        split: "train" or "val".
        location: path or URL of the split's folder.
        parent: path or URL of the folder that holds the class folders.
        folders: names of the class folders.
        files: names of the files beside them.
    """
    if not folders:
        raise InputError(
            f"{location} holds no class folders; the {split} split needs one folder per class, "
            "or images/ beside an annotations file"
        )
    root = PurePosixPath(location).name + parent.removeprefix(location)
    listing = Listing(location, declared=list(folders))
    listing.problems += [Problem(split, f"{root}/{file}", f"{parent}/{file}", "not an image") for file in files]
    for identity in folders:
        for inner in walk_files(f"{parent}/{identity}"):
            name, path = f"{root}/{identity}/{inner}", f"{parent}/{identity}/{inner}"
            if inner.lower().endswith(SUFFIXES):
                listing.names.append(name)
                listing.classes.append(identity)
                listing.paths.append(path)
                listing.inner_paths.append(inner)
            elif inner == f"{identity}_boxes.txt":
                listing.other_files.append(path)
                for line, fields in _rows(path):
                    if len(fields) != 5:
                        raise InputError(f"{path}, line {line}: expected image and the box's four numbers, by tabs")
                    listing.boxes[f"{root}/{identity}/images/{fields[0]}"] = _parse_box(fields[1:], path, line)
            else:
                listing.problems.append(Problem(split, name, path, "not an image", identity))
    return listing


def _read_annotated(split: str, location: str, annotations: str) -> Listing:
    """List a flat folder of images, whose annotations have columns name, class, x0, y0, x1, y1, separated by tabs."""
    file, folder = f"{location}/{annotations}", f"{location}/images"
    root = f"{PurePosixPath(location).name}/images"
    images = set(walk_files(folder))
    unlisted = set(images)
    listing = Listing(location, other_files=[file])
    for line, (image, identity, *box) in _annotation_rows(file):
        name, path = f"{root}/{image}", f"{folder}/{image}"
        if image in unlisted:
            unlisted.remove(image)
            listing.names.append(name)
            listing.paths.append(path)
            listing.inner_paths.append(image)
            listing.classes.append(identity)
            if box:
                listing.boxes[name] = _parse_box(box, file, line)
        elif image in images:
            message = f"{file}, line {line}: {path} is named twice"
            listing.problems.append(Problem(split, name, path, "named twice", identity, message))
        else:
            message = f"{file}, line {line}: there is no {path}"
            listing.problems.append(Problem(split, name, "", "not there", identity, message))
    listing.declared += sorted(set(listing.classes))
    unlabelled = sorted(image for image in unlisted if image.lower().endswith(SUFFIXES))
    for image in sorted(unlisted):
        kind, message = "not an image", ""
        if image in unlabelled:
            kind = "no label"
            message = f"{file} has no class for {len(unlabelled)} image(s), such as {unlabelled[0]}"
        listing.problems.append(Problem(split, f"{root}/{image}", f"{folder}/{image}", kind, "", message))
    return listing


def _parse_box(fields: Sequence[str], file: str, line: int) -> tuple[float, ...]:
    try:
        box = tuple(float(field) for field in fields)
    except ValueError:
        box = ()
    if len(box) != 4 or not (0 <= box[0] <= box[2] < np.inf and 0 <= box[1] <= box[3] < np.inf):
        raise InputError(f"{file}, line {line}: {' '.join(fields)} is not a box x0 y0 x1 y1")
    return box


def _annotation_rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each annotation: image, class, and a box's four numbers if there is one."""
    for line, fields in _rows(file):
        if len(fields) not in (2, 6):
            raise InputError(f"{file}, line {line}: expected image, class and the box's four numbers, by tabs")
        yield line, fields


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not empty."""
    try:
        text = read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text in UTF-8: {error}") from error
    for line, row in enumerate(text.splitlines(), start=1):
        if row.strip():
            yield line, row.split("\t")


def read_class_names(path: str | None, classes: Collection[str]) -> dict[str, str]:
    """Read the names of classes from words.txt.

    Args:
        path: the data set's folder; None: it has none.
        classes: ids of the classes to look for.

    Returns:
        Names by id; empty without a words.txt.
    """
    if path is None:
        return {}
    system, folder = file_system(path)
    file = f"{folder}/words.txt"
    if not system.isfile(file):
        return {}
    return {row[0]: row[1] for _, row in _rows(full_path(system, file)) if len(row) == 2 and row[0] in classes}
