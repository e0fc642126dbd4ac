"""predictions.jsonl: an object for each evaluation example, with its id, so that runs compare in pairs."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.files import atomic_write


def write(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows as they come, in UTF-8. The file appears when it is whole, or not at all.

    Args:
        path: the file to write or to replace.
        rows: one mapping for each example; `id` is a must and comes first.

    Returns:
        Number of rows.

    Raises:
        ValueError: a row without an id, or with a number that is not finite.
    """
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            if "id" not in row:
                raise ValueError(f"row {count} has no id: {str(row)[:200]}")
            text = json.dumps({"id": row["id"], **row}, ensure_ascii=False, allow_nan=False)
            try:
                file.write(text.encode() + b"\n")
            except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
                file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            count += 1
    return count


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows, one at a time.

    Raises:
        InputError: no such file, or a line that is not a JSON object with an id, by its number.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below; the generator outlives this line)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    with file:
        # Bytes are split at \n alone; text would be split at other line breaks, which a prediction may
        # contain.
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                row["id"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}, is not a prediction: {error}") from None
            yield row
