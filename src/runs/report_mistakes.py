"""The report's part about mistakes: the predictions that are not right, as the task shows them."""

import base64
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from config import tasks
from runs import folder as folders
from runs import page
from runs.page import escaped
from runs.prediction_table import PredictionTable

MOST = 200  # rows


def mistakes(folder: Path, columns: PredictionTable | None) -> list[str]:
    """The table of mistakes, by the task's MISTAKE_COLUMNS, mistake_key, mistake and mistake_group.

    Args:
        folder: the run's, where pictures of its mistakes may be.
        columns: its predictions, if they can be read.
    """
    if columns is None:
        return []
    title, examples = "<h2>Mistakes</h2>", len(columns.ids)
    if columns.correct is None:
        return [title, _lacks(columns.task, "is_correct")]
    wrong = [row for row, correct in zip(columns.rows, columns.correct, strict=True) if not correct]
    if not wrong:
        return [title, f"<p>None in {examples:,} examples.</p>"]
    more = f"; {MOST} of them are here" if len(wrong) > MOST else ""
    counts = f"{len(wrong):,} of {examples:,} examples are not right"
    module = tasks.load_module(columns.task)
    if not hasattr(module, "MISTAKE_COLUMNS") or not hasattr(module, "mistake"):
        lacking = "mistake" if hasattr(module, "MISTAKE_COLUMNS") else "MISTAKE_COLUMNS"
        return [title, f"<p>{counts}.</p>", _lacks(columns.task, lacking)]
    try:
        table = _table(folder, module, wrong)
    except Exception as error:  # of the task's functions, which may be somebody's own: the other parts stay
        reason = f"They cannot be shown: {type(error).__name__}: {error}"
        return [title, f"<p>{counts}.</p>", f"<p><b>{escaped(reason)}.</b></p>"]
    order = f", {escaped(module.MISTAKE_ORDER)}" if hasattr(module, "MISTAKE_ORDER") else ""
    return [title, f"<p>{counts}{more}{order}. A click on a column sorts by it.</p>", table]


def _lacks(task: str, attribute: str) -> str:
    return f"<p class='small'>No table: the module of the task {escaped(task)} has no {attribute} (docs/tasks.md).</p>"


def _table(folder: Path, module: Any, wrong: list[dict[str, Any]]) -> str:
    """The first mistakes in the task's order; cells are plain text, those of kind "picture" ids."""
    key = getattr(module, "mistake_key", None)
    shown = (sorted(wrong, key=key) if key else wrong)[:MOST]
    kinds = list(module.MISTAKE_COLUMNS.values())
    pictures = _pictures(folder) if "picture" in kinds else {}
    cells = [
        [
            _picture(pictures.get(str(cell))) if kind == "picture" else escaped(cell)
            for cell, kind in zip(module.mistake(row), kinds, strict=True)
        ]
        for row in shown
    ]
    group = getattr(module, "mistake_group", None)
    return page.table(
        list(module.MISTAKE_COLUMNS),
        cells,
        ["" if kind == "picture" else kind for kind in kinds],
        slices=[str(group(row)) if group else "" for row in shown],
    )


def _picture(address: str | None) -> str:
    return f"<img alt='' loading='lazy' width='64' src='{address}'>" if address else ""


def _pictures(folder: Path) -> dict[str, str]:
    """The images that training left for this page, as data addresses."""
    path = folder / folders.MISTAKE_IMAGES
    if not path.exists():
        return {}
    from PIL import Image

    found = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name, pixels in zip(file["ids"].tolist(), file["pixels"], strict=True):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                found[str(name)] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ):  # a torn file takes the pictures away, not the report
        return {}
    return found
