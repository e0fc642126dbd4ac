"""Reads images from Parquet files in the Hub's layout: the columns `image` and `label`."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.classes import declared_names
from datamodules.images.listing import Listing
from datamodules.sources.files import file_system

ROWS = 64  # read at a time


def read_tables(tables: list[str]) -> Listing:
    """Reads the labels of all rows, in order."""
    names: list[str] = []
    classes: list[str] = []
    declared: list[str] | None = None
    for table in tables:
        with _open_parquet(table) as parquet:
            schema = parquet.schema_arrow
            if "image" not in schema.names or "label" not in schema.names:
                raise InputError(f"{table}: expected the columns image and label, found {', '.join(schema.names)}")
            declared = declared_names(schema) or declared
            first = len(classes)
            for batch in parquet.iter_batches(columns=["label"]):
                classes.extend(_class_ids(batch.column(0).to_pylist(), declared, table, len(classes) - first))
            stem = PurePosixPath(table).stem.split("-of-")[0]
            names.extend(f"{stem}/{row}" for row in range(len(classes) - first))
    everything = declared or sorted(set(classes))
    return Listing(tables[0], names, classes, {}, list(everything), [""] * len(names), tables, [], [])


def _class_ids(labels: list[Any], declared: list[str] | None, table: str, before: int) -> list[str]:
    for row, label in enumerate(labels, start=before):
        if label is None or (isinstance(label, int) and not 0 <= label < (len(declared) if declared else np.inf)):
            expected = f"0 to {len(declared) - 1}" if declared else "0 or more"
            raise InputError(f"{table}, row {row}: the label {label} is out of range ({expected})")
    return [declared[label] if declared and isinstance(label, int) else str(label) for label in labels]


def read_images(tables: list[str], rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
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
                    for batch in parquet.iter_batches(ROWS, row_groups=[group], columns=["image"]):
                        column = batch.column(0)
                        for inner in range(len(column)):
                            if at + inner in kept:
                                yield _image_bytes(column[inner].as_py(), table, first + at + inner)
                        at += len(column)
                first += size


def _image_bytes(value: Any, table: str, row: int) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise InputError(f"{table}, row {row} (counted through all files): the image has no bytes")
    return content


def _open_parquet(table: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if "://" not in table:
            return pq.ParquetFile(table)
        system, file = file_system(table)
        return pq.ParquetFile(system.open(file, "rb"))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{table} is not a Parquet file that can be read: {error}") from error
