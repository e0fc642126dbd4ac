"""Reader of images in Parquet files of the Hub's layout: the columns `image` and `label`."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import declared_names
from datamodules.images.listing import Listing
from datamodules.sources.files import open_parquet, rows_per_batch

BATCH = 64  # rows read at a time


def read_labels(tables: list[str]) -> Listing:
    """List the rows of all tables with their labels, in order.

    Raises:
        InputError: a table that cannot be read, lacks a column, or has a label out of range.
    """
    listing = Listing(tables[0], tables=tables)
    class_names: list[str] | None = None
    for file in tables:
        with open_parquet(file) as table:
            schema = table.schema_arrow
            if "image" not in schema.names or "label" not in schema.names:
                raise InputError(f"{file}: expected the columns image and label, found {', '.join(schema.names)}")
            class_names = declared_names(schema) or class_names
            first = len(listing.classes)
            for batch in table.iter_batches(rows_per_batch(table, ["label"], 65_536), columns=["label"]):
                start = len(listing.classes) - first
                listing.classes += _class_ids(batch.column(0).to_pylist(), class_names, file, start)
            stem = PurePosixPath(file).stem.split("-of-")[0]
            listing.names += [f"{stem}/{row}" for row in range(len(listing.classes) - first)]
    listing.declared = list(class_names or sorted(set(listing.classes)))
    return listing


def read_groups(tables: list[str], column: str) -> list[str]:
    """Return the values of a column of all tables, by which images are kept in one part.

    Raises:
        InputError: a table lacks it.
    """
    groups: list[str] = []
    for file in tables:
        with open_parquet(file) as table:
            names = table.schema_arrow.names
            if column not in names:
                raise InputError(f"{file}: the column data.group={column} is missing; found {', '.join(names)}")
            for batch in table.iter_batches(rows_per_batch(table, [column], 65_536), columns=[column]):
                groups += map(str, batch.column(0).to_pylist())
    return groups


def _class_ids(labels: list[Any], class_names: list[str] | None, file: str, start: int) -> list[str]:
    count = len(class_names) if class_names else np.inf
    for row, label in enumerate(labels, start):
        if label is None or (isinstance(label, int) and not 0 <= label < count):
            allowed = f"0 to {len(class_names) - 1}" if class_names else "0 or more"
            raise InputError(f"{file}, row {row}: the label {label} is out of range ({allowed})")
    return [class_names[label] if class_names and isinstance(label, int) else str(label) for label in labels]


def read_images(tables: list[str], rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Yield encoded images. Row groups without a requested row are not read.

    Args:
        tables: Parquet files.
        rows: positions in all tables together, ascending.

    Raises:
        InputError: a row without image bytes.
    """
    first = 0
    for file in tables:
        with open_parquet(file) as table:
            batch_size = rows_per_batch(table, ["image"], BATCH)
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                requested = set(rows[(rows >= first) & (rows < first + size)].tolist())
                row = first
                if requested:
                    for batch in table.iter_batches(batch_size, row_groups=[group], columns=["image"]):
                        for value in batch.column(0):
                            if row in requested:
                                yield _image_bytes(value.as_py(), file, row)
                            row += 1
                first += size


def _image_bytes(value: Any, file: str, row: int) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise InputError(f"{file}, row {row} (counted over all files): the image has no bytes")
    return content
