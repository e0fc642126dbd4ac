"""The report's table of mistakes: the wrong predictions, in the columns of their task."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from config import parsing, tasks
from config.errors import InputError
from config.numbers import format_count
from reports.page import Piece, Span, data_uri, mark_excerpt
from runs import folder as folders
from runs import predictions
from runs.prediction_table import PredictionTable

LIMIT = 200  # rows
CONTEXT = 250  # characters of a text on each side of a span
MAX_IMAGES = 64 << 20  # bytes, decompressed
MAX_FIELDS = 128 << 20  # bytes of mistakes.jsonl
# A table's kinds of columns by those of MISTAKE_COLUMNS (docs/tasks.md).
_KINDS = {"n": "number", "t": "text", "i": "id", "w": "nowrap", "picture": "image", "spans": "pieces"}


def mistakes(folder: Path, columns: PredictionTable | None) -> dict[str, Any] | None:
    """Return the table of mistakes, by the task's MISTAKE_COLUMNS, mistake_key, mistake and mistake_group.

    Args:
        folder: the run's folder, with the images of its mistakes if it has any.
        columns: its predictions, if they can be read.
    """
    if columns is None:
        return None
    section: dict[str, Any] = {"task": columns.task, "summary": "", "missing": "", "error": "", "note": "", "rows": []}
    count = len(columns.ids)
    if columns.correct is None:
        return section | {"missing": "is_correct"}
    wrong_rows = [row for row, correct in zip(columns.rows, columns.correct, strict=True) if not correct]
    if not wrong_rows:
        return section | {"summary": f"None in {format_count(count, 'example')}."}
    section["summary"] = f"{len(wrong_rows):,} of {count:,} predictions are wrong"
    module = tasks.load_module(columns.task)
    missing = [name for name in ("MISTAKE_COLUMNS", "mistake") if not hasattr(module, name)]
    if missing:
        return section | {"summary": f"{section['summary']}.", "missing": missing[0]}
    try:
        section |= _table(folder, module, wrong_rows)
    except Exception as error:  # of functions of the task, perhaps from another package: the rest of the page stays
        section["error"] = f"The table cannot be shown: {type(error).__name__}: {error}."
    else:
        section["summary"] += f"; {LIMIT} are listed" if len(wrong_rows) > LIMIT else ""
        section["summary"] += f", {module.MISTAKE_ORDER}" if hasattr(module, "MISTAKE_ORDER") else ""
    return section | {"summary": f"{section['summary']}."}


def _table(folder: Path, module: Any, mistake_rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return columns, rows and groups of the first mistakes in the task's order."""
    key = getattr(module, "mistake_key", None)
    first_rows = (sorted(mistake_rows, key=key) if key else mistake_rows)[:LIMIT]
    columns = [(title, _KINDS.get(kind, "")) for title, kind in module.MISTAKE_COLUMNS.items()]
    images = _images(folder) if any(kind == "image" for _, kind in columns) else {}
    fields = _fields(folder)
    table = [
        [
            images.get(str(value), "") if kind == "image" else _excerpt(value) if kind == "pieces" else str(value)
            for value, (_, kind) in zip(module.mistake({**fields.get(row["id"], {}), **row}), columns, strict=True)
        ]
        for row in first_rows
    ]
    # Runs of a version that did not save them, and baselines, have no texts.
    indices = [index for index, (_, kind) in enumerate(columns) if kind != "pieces" or any(row[index] for row in table)]
    columns, table = [columns[index] for index in indices], [[row[index] for index in indices] for row in table]
    group = getattr(module, "mistake_group", None)
    groups = [str(group(row)) if group else "" for row in first_rows]
    note = getattr(module, "MISTAKE_NOTE", "") if any(kind == "pieces" for _, kind in columns) else ""
    return {"columns": columns, "rows": table, "groups": groups, "note": note}


def _excerpt(value: Mapping[str, Any] | str) -> list[Piece]:
    """Return a text around its correct and incorrect spans; nothing for "", a text that the run has not saved."""
    if not isinstance(value, Mapping):
        return []
    spans = [Span(start, stop, "true") for start, stop in value["correct"]]
    spans += [Span(start, stop, "predicted", incorrect=True) for start, stop in value["incorrect"]]
    return mark_excerpt(value["text"], spans, CONTEXT)


def _fields(folder: Path) -> dict[Any, dict[str, Any]]:
    """Return the further fields of mistakes that training stored for this page, by id; none if the file is damaged."""
    path = folder / folders.MISTAKES
    try:
        parsing.check_regular(path, MAX_FIELDS)
        return {row["id"]: row for row in predictions.read(path)}
    except (OSError, InputError, TypeError):
        return {}


def _images(folder: Path) -> dict[str, str]:
    """Return the images that training stored for this page as data URIs, by id; none if the file is damaged."""
    path = folder / folders.MISTAKE_IMAGES
    if not path.exists():
        return {}
    from PIL import Image

    images = {}
    try:
        parsing.check_regular(path)
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_IMAGES:
                return {}
        with np.load(path, allow_pickle=False) as file:
            for name, pixels in zip(file["ids"].tolist(), file["pixels"], strict=True):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                images[str(name)] = data_uri(buffer.getvalue(), "image/png")
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
        return {}
    return images
