"""What KFP's pages show of a step: one HTML, one Markdown, metrics, a confusion matrix, a model's metadata."""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CLASSES = 20  # of a confusion matrix: KFP keeps it in metadata, and draws no more legibly


def html(artifact: Any, page: Path) -> None:
    """Puts a page into the artifact; ours stand by themselves, as KFP's sandbox wants them."""
    target = Path(artifact.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if page.exists():
        shutil.copyfile(page, target)
    else:
        target.write_text("<p>There is no report: this was not asked.</p>", encoding="utf-8")


def markdown(artifact: Any, text: str) -> None:
    """Puts text into the artifact; KFP shows 400,000 characters."""
    target = Path(artifact.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text[:400_000], encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells])


def metrics(artifact: Any, values: Mapping[str, Any]) -> None:
    """Logs what is a finite number: KFP's metadata cannot hold others, and the step would fail of it."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            artifact.log_metric(name, float(value))


def confusion(artifact: Any, found: Mapping[str, Mapping[str, int]]) -> None:
    """Logs a confusion matrix: of all classes, or of those that are most often taken for another.

    Args:
        artifact: ClassificationMetrics.
        found: how often, by true class and predicted class.
    """
    wrong = {true: sum(count for name, count in row.items() if name != true) for true, row in found.items()}
    for row in found.values():
        for name in row:
            wrong.setdefault(name, 0)
    names = sorted(sorted(wrong, key=lambda name: -wrong[name])[:CLASSES])
    if names:
        artifact.log_confusion_matrix(names, [[found.get(true, {}).get(name, 0) for name in names] for true in names])


def model(artifact: Any, run: Path, about: Mapping[str, Any]) -> None:
    """Puts the exported model into the artifact, with what it was made from."""
    target = Path(artifact.path)
    if (run / "model").is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run / "model", target)
    else:  # a baseline has none
        target.mkdir(parents=True, exist_ok=True)
    artifact.metadata |= {name: value for name, value in about.items() if value not in (None, "", [], {})}
