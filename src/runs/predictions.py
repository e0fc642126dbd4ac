"""predictions.jsonl: one prediction per evaluation example, with the id by which runs are compared."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.files import atomic_write
from config.parsing import check_regular, parse_json


def write(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write predictions atomically, one JSON object per line in UTF-8.

    Args:
        path: The file.
        rows: One mapping for each example; `id` is required and written first.

    Returns:
        The number of rows.

    Raises:
        ValueError: A row has no id, or a number that is not finite.
    """
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            if "id" not in row:
                raise ValueError(f"row {count} has no id: {str(row)[:200]}")
            text = json.dumps({"id": row["id"], **row}, ensure_ascii=False, allow_nan=False)
            try:
                file.write(text.encode() + b"\n")
            except UnicodeEncodeError:  # half of a surrogate pair, which JSON can represent and UTF-8 cannot
                file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            count += 1
    return count


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Iterate over predictions.

    Raises:
        InputError: The file cannot be read, or a line is not a JSON object with an id.
    """
    try:
        check_regular(path)
        file = Path(path).open("rb")  # noqa: SIM115 (closed below; the generator outlives this line)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    with file:
        # Bytes are only split at \n; text would also be split at other line breaks, which a prediction may contain.
        for number, line in enumerate(file, 1):
            try:
                row = parse_json(line)
                row["id"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}, is not a prediction with an id: {error}") from None
            yield row
