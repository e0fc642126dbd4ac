"""Paragraphs of a reader's mistakes, for the report: the data may be unavailable later."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config import files
from runs import folder as folders
from runs import predictions

MAX_PASSAGES = 200  # as many as the report lists
MAX_CHARACTERS = 16 << 20  # of all paragraphs; those of further mistakes are left out


def save_passages(module: Any, folder: Path, order: Callable[[Mapping[str, Any]], Any]) -> None:
    """Write mistakes.jsonl: `id`, `context` and `true_answers` (text, answer_start) of the first mistakes.

    Args:
        module: a question answering model with its data; nothing is written for a baseline, which has no data.
        folder: the run folder, with its predictions.
        order: sort key of a mistake in the report, ascending.
    """
    path = folder / folders.PREDICTIONS
    data = getattr(module, "data", None)
    if data is None or not path.exists():
        return
    mistakes = sorted((row for row in predictions.read(path) if row["exact_match"] != 1), key=order)[:MAX_PASSAGES]
    examples = data.examples
    ids = {row["id"] for row in mistakes}
    positions = {name: index for index in range(len(examples)) if (name := examples.id(index)) in ids}
    characters = 0
    with files.atomic_write(folder / folders.MISTAKES) as file:
        for row in mistakes:
            context = examples.context(positions[row["id"]])
            characters += len(context)
            if characters > MAX_CHARACTERS:
                break
            entry = {"id": row["id"], "context": context, "true_answers": examples.answers(positions[row["id"]])}
            file.write(json.dumps(entry).encode() + b"\n")
