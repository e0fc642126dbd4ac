"""Readers of labelled images: which images there are, of which class, with which box. Nothing is decoded
here.

A split is a folder, or Parquet files in the Hub's layout. A folder holds class folders (images anywhere below
them, boxes in `<class>_boxes.txt`: Tiny ImageNet's train/), or a flat `images/` beside
`<split>_annotations.txt` (its val/).
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import Refused
from datamodules.sources import locations

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
OFFICIAL = {"train": ("train",), "val": ("val", "valid", "validation", "dev")}
PARQUET_ROWS = 64  # read at a time

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
class Problem:
    """What is wrong with the files of a split.

    Attributes:
        split: "train" or "val".
        name: the file's, as an image's id.
        location: the file, "" where there is none.
        what: "not an image", "not there", "no label", "named twice" or "no training images".
        label: the class it should have, "" if unknown.
        message: the whole of it, for people; "" if the file may well be left out.
    """

    split: str
    name: str
    location: str
    what: str
    label: str
    message: str


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
            Refused: the first problem that does.
        """
        for problem in self.problems:
            if problem.message:
                raise Refused(problem.message)
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


@dataclass(frozen=True)
class _Listing:
    """What stands in a split's place before the classes of all splits are known."""

    place: str
    names: list[str]
    classes: list[str]  # [N] class id of each image
    boxes: Mapping[str, tuple[float, ...]]  # by name
    declared: list[str]  # classes it says there are, in the order of their labels
    locations: list[str]  # [N] where each image is; for Parquet "": in `tables`
    tables: list[str]
    others: list[str]  # files that are not images but matter: annotations, boxes
    problems: list[Problem]


def locate(path: str | None, train_file: str | None = None, val_file: str | None = None) -> Places:
    """Where each split is: a folder, or Parquet files.

    Args:
        path: the data set's folder, local or an fsspec URL. It holds `train` and `val` (or `valid`,
            `validation`, `dev`): folders, or Parquet files that begin so (in it, or in its `data/`).
        train_file: the training folder or Parquet file, by name in `path` or outright.
        val_file: the same for validation.

    Raises:
        Refused: nothing fits; the message names what was found and what was expected.
    """
    if path is not None and (train_file is None or val_file is None):
        system, folder = _system(path)
        # A local copy of a Hub repository keeps its Parquet files in data/.
        direct = any(system.exists(f"{folder}/{name}") for name in OFFICIAL["train"])
        if system.isdir(f"{folder}/data") and not direct:
            path = f"{path.rstrip('/')}/data"
    return locations.resolve(path, train_file, val_file, OFFICIAL, (".parquet",))


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
        Refused: nothing to read there, no images, fewer than two classes, or a label without training images.
    """
    found = survey(places, limits, folder)
    return found.classes, {split: found.sound(split) for split in found.splits}


def survey(places: Places, limits: Mapping[str, int | None] | None = None, folder: str | None = None) -> Survey:
    """The same as `read` of images with something wrong: each is a problem of its own, and all others are there.

    Raises:
        Refused: nothing to read there, no images, or fewer than two classes.
    """
    listings = {name: _listing(name, files) for name, files in places.items()}
    train, val = listings["train"], listings["val"]
    problems = [problem for listing in listings.values() for problem in listing.problems]
    classes, without = _classes(train, val)
    problems += without
    position = {identity: index for index, identity in enumerate(classes)}
    splits = {name: _split(listing, position, (limits or {}).get(name)) for name, listing in listings.items()}
    words = _words(folder, position)
    return Survey([{"id": identity, "name": words.get(identity, identity)} for identity in classes], splits, problems)


def read_bytes(location: str) -> bytes:
    """The content of a local file or a URL.

    Raises:
        Refused: it cannot be read.
    """
    try:
        if "://" not in location:
            with open(location, "rb") as stream:  # noqa: PTH123 -- once per image
                return stream.read()
        system, file = _system(location)
        return bytes(system.cat_file(file))
    except OSError as error:
        raise Refused(f"cannot read {location}: {error.strerror or error}") from error


def balanced(labels: npt.NDArray[np.int64], limit: int | None) -> npt.NDArray[np.int64]:
    """Positions of at most `limit` examples: the first of each class, then the second of each, and so on.

    Args:
        labels: [N] class of each example.
        limit: how many to take; None takes all.

    Returns:
        int64 [min(N, limit)], ascending.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    turn = np.empty(len(labels), np.int64)  # how many of its class come before each
    turn[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(np.lexsort((labels, turn))[:limit])


def _listing(split: str, files: list[str]) -> _Listing:
    tables = [file for file in files if file.endswith(".parquet")]
    if tables and len(tables) == len(files):
        return _parquet(tables)
    system, folder = _system(files[0])
    if len(files) > 1 or not system.isdir(folder):
        raise Refused(f"{files[0]}: the {split} images must be a folder, or Parquet files")
    return _folder(split, files[0].rstrip("/"))


def _class_order(identity: str) -> tuple[int, int, str]:
    # Numbers in their own order, so that class "10" is label 10; everything else as text.
    return (0, int(identity), "") if identity.isdecimal() and str(int(identity)) == identity else (1, 0, identity)


def _classes(train: _Listing, val: _Listing) -> tuple[list[str], list[Problem]]:
    """The classes in the order of their labels, and those that cannot be learned."""
    for listing in (train, val):
        if not listing.names:
            why = next((each.message for each in listing.problems if each.message), "")
            raise Refused(why or f"{listing.place} holds no images ({', '.join(SUFFIXES)})")
    declared = set(train.declared)
    for each in sorted(declared | set(val.classes)):
        if each != each.encode("utf-8", "replace").decode():  # a trained model names its classes, in JSON
            raise Refused(f"{train.place}: the name of the class {each!a} is not UTF-8; rename its folder")
    if len(declared) < 2:
        raise Refused(f"{train.place} has one class only ({', '.join(declared)}); classification needs two or more")
    trained = set(train.classes)
    unseen = sorted(set(val.classes) - trained)
    idle = sorted(declared - trained)
    problems = []
    if unseen:
        message = (
            f"{val.place} has images of {_some(unseen)}, of which {train.place} has none; "
            "both splits must have the same classes"
        )
        problems += [Problem("train", each, "", "no training images", each, message) for each in unseen]
    if idle and not train.tables:
        message = f"{train.place}: no images in the class folder(s) {_some(idle)}; fill or remove them"
        problems += [
            Problem("train", each, "", "no training images", each, message) for each in idle if each not in unseen
        ]
    elif idle:
        logger.warning("%s: no training images of %s", train.place, _some(idle))
    missing = sorted(declared - set(val.classes))
    if missing:
        logger.warning("%s: no validation images of %s", val.place, _some(missing))
    return sorted(declared | set(unseen), key=_class_order), problems


def _split(listing: _Listing, position: Mapping[str, int], limit: int | None) -> Split:
    labels = np.array([position[identity] for identity in listing.classes], np.int64)
    chosen = balanced(labels, limit)
    if not len(chosen):
        raise Refused(f"no images are left of {listing.place} with a limit of {limit}")
    names = [listing.names[index] for index in chosen]
    boxes = np.full((len(chosen), 4), np.nan, np.float32)
    if listing.boxes:
        for row, name in enumerate(names):
            if name in listing.boxes:
                boxes[row] = listing.boxes[name]
    if listing.tables:
        tables, rows = listing.tables, chosen

        def images() -> Iterator[str | bytes]:
            return _parquet_images(tables, rows)

        files = listing.tables
    else:
        locations = [listing.locations[index] for index in chosen]

        def images() -> Iterator[str | bytes]:
            return iter(locations)

        files = locations + listing.others
    return Split(listing.place, files, names, labels[chosen], boxes, images)


def _folder(split: str, place: str) -> _Listing:
    folders, files = _entries(place)
    annotations = [file for file in files if file.endswith("_annotations.txt")]
    if annotations:
        return _annotated(split, place, annotations[0])
    listing = _Listing(place, [], [], {}, [], [], [], [], [])
    boxes: dict[str, tuple[float, ...]] = {}
    root = PurePosixPath(place).name
    problems = [Problem(split, f"{root}/{file}", f"{place}/{file}", "not an image", "", "") for file in files]
    for identity in folders:
        for inner in _walk(f"{place}/{identity}"):
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
        raise Refused(
            f"{place} holds no class folders; the {split} split needs one folder per class, "
            "or images/ beside an annotations file"
        )
    others = listing.others
    return _Listing(place, listing.names, listing.classes, boxes, folders, listing.locations, [], others, problems)


def _annotated(split: str, place: str, annotations: str) -> _Listing:
    """A flat folder of images; one file has classes and boxes: name, class, x0 y0 x1 y1, by tabs."""
    file = f"{place}/{annotations}"
    images = set(_walk(f"{place}/images"))
    unnamed = set(images)
    problems: list[Problem] = []
    names: list[str] = []
    classes: list[str] = []
    locations: list[str] = []
    boxes: dict[str, tuple[float, ...]] = {}
    root = PurePosixPath(place).name
    for line, fields in _rows(file):
        if len(fields) not in (2, 6):
            raise Refused(f"{file}, line {line}: expected image, class and the box's four numbers, by tabs")
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
    return _Listing(place, names, classes, boxes, sorted(set(classes)), locations, [], [file], problems)


def _read_boxes(file: str, folder: str, boxes: dict[str, tuple[float, ...]]) -> None:
    for line, fields in _rows(file):
        if len(fields) != 5:
            raise Refused(f"{file}, line {line}: expected image and the box's four numbers, by tabs")
        boxes[f"{folder}/{fields[0]}"] = _box(fields[1:], file, line)


def _box(fields: Sequence[str], file: str, line: int) -> tuple[float, ...]:
    try:
        box = tuple(float(field) for field in fields)
    except ValueError:
        box = ()
    if len(box) != 4 or not (0 <= box[0] <= box[2] < np.inf and 0 <= box[1] <= box[3] < np.inf):
        raise Refused(f"{file}, line {line}: {' '.join(fields)} is not a box x0 y0 x1 y1")
    return box


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    try:
        text = read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is not text in UTF-8: {error}") from error
    for line, row in enumerate(text.splitlines(), start=1):
        if row.strip():
            yield line, row.split("\t")


def _words(path: str | None, wanted: Mapping[str, int]) -> dict[str, str]:
    """Readable class names from words.txt, where the data set has one."""
    if path is None:
        return {}
    system, folder = _system(path)
    if not system.isfile(f"{folder}/words.txt"):
        return {}
    rows = _rows(f"{path.rstrip('/')}/words.txt")
    return {row[0]: row[1] for _, row in rows if len(row) == 2 and row[0] in wanted}


def _parquet(tables: list[str]) -> _Listing:
    names: list[str] = []
    classes: list[str] = []
    declared: list[str] | None = None
    for table in tables:
        with _open_parquet(table) as parquet:
            schema = parquet.schema_arrow
            if "image" not in schema.names or "label" not in schema.names:
                raise Refused(f"{table}: expected the columns image and label, found {', '.join(schema.names)}")
            declared = _label_names(schema) or declared
            first = len(classes)
            for batch in parquet.iter_batches(columns=["label"]):
                classes.extend(_class_ids(batch.column(0).to_pylist(), declared, table, len(classes) - first))
            stem = PurePosixPath(table).stem.split("-of-")[0]
            names.extend(f"{stem}/{row}" for row in range(len(classes) - first))
    everything = declared or sorted(set(classes))
    return _Listing(tables[0], names, classes, {}, list(everything), [""] * len(names), tables, [], [])


def _label_names(schema: Any) -> list[str] | None:
    """The names of a ClassLabel column, as the `datasets` library writes them beside the schema."""
    import json

    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get("label", {})
    return feature.get("names") if isinstance(feature, dict) else None


def _class_ids(labels: list[Any], declared: list[str] | None, table: str, before: int) -> list[str]:
    for row, label in enumerate(labels, start=before):
        if label is None or (isinstance(label, int) and not 0 <= label < (len(declared) if declared else np.inf)):
            expected = f"0 to {len(declared) - 1}" if declared else "0 or more"
            raise Refused(f"{table}, row {row}: the label {label} is out of range ({expected})")
    return [declared[label] if declared and isinstance(label, int) else str(label) for label in labels]


def _parquet_images(tables: list[str], rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """The encoded images of the (ascending) rows of all tables. Row groups without any are not read."""
    first = 0
    for table in tables:
        with _open_parquet(table) as parquet:
            for group in range(parquet.num_row_groups):
                size = parquet.metadata.row_group(group).num_rows
                wanted = rows[(rows >= first) & (rows < first + size)]
                if len(wanted):
                    kept = set((wanted - first).tolist())
                    at = 0
                    for batch in parquet.iter_batches(PARQUET_ROWS, row_groups=[group], columns=["image"]):
                        column = batch.column(0)
                        for inner in range(len(column)):
                            if at + inner in kept:
                                yield _image_bytes(column[inner].as_py(), table, first + at + inner)
                        at += len(column)
                first += size


def _image_bytes(value: Any, table: str, row: int) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise Refused(f"{table}, row {row} (counted through all files): the image has no bytes")
    return content


def _open_parquet(table: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if "://" not in table:
            return pq.ParquetFile(table)
        system, file = _system(table)
        return pq.ParquetFile(system.open(file, "rb"))
    except (OSError, pa.ArrowInvalid) as error:
        raise Refused(f"{table} is not a Parquet file that can be read: {error}") from error


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder, sorted, relative to it; hidden ones left out."""
    folders, files = _entries(folder)
    yield from files
    for inner in folders:
        for file in _walk(f"{folder}/{inner}"):
            yield f"{inner}/{file}"


def _entries(place: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted; hidden ones left out."""
    folders: list[str] = []
    files: list[str] = []
    try:
        if "://" not in place:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else files).append(entry.name)
        else:
            system, folder = _system(place)
            for about in system.ls(folder, detail=True):
                name = PurePosixPath(about["name"]).name
                if not name.startswith("."):
                    (folders if about["type"] == "directory" else files).append(name)
    except OSError as error:
        raise Refused(f"cannot read the folder {place}: {error.strerror or error}") from error
    return sorted(folders), sorted(files)


def _system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, folder = fsspec.core.url_to_fs(path if "://" in path else str(Path(path).absolute()))
    except (ImportError, ValueError) as error:
        raise Refused(f"cannot open {path}: {error}") from error
    return system, folder


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
