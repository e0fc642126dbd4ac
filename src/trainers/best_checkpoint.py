"""The best checkpoint of a run: that of the validation which the latest checkpoint remembers, or what is known to be lost.

best.ckpt is written before the last.ckpt that remembers its validation, and the one before it is kept as best-1.ckpt
until no checkpoint remembers it. A process that is killed in between, a damaged file and a damaged last.ckpt are thus told
apart, and the right weights are found again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from runs import digests
from runs import folder as folders
from trainers import checkpoint_files

logger = logging.getLogger(__name__)

DIGEST, PREDICTIONS_DIGEST = "digest", "predictions_digest"  # SHA-256 of best.ckpt, and of its predictions.jsonl
_CONTENT = ("metrics", "epoch", "step", "details")  # of best.ckpt, beside the weights


def restore(folder: Path, latest: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, Any]:
    """Make best.ckpt that of the best validation which the latest checkpoint remembers, on rank zero.

    Args:
        folder: folder of the checkpoints.
        latest: content of the latest checkpoint.
        best: the validation that it remembers; empty for none.

    Returns:
        The validation, with the digest of the file; empty if none is remembered, or its weights are lost.
    """
    path, previous = folder / folders.BEST_CHECKPOINT, folder / folders.PREVIOUS_BEST_CHECKPOINT
    if not best or matches(path, best):
        return dict(best)
    if matches(previous, best):  # the process was killed after it wrote the next best one
        previous.replace(path)
        return dict(best)
    if latest["global_step"] != best["step"]:
        return {}
    logger.warning(
        "%s is damaged, or of another validation: written again from the latest checkpoint, which is at it", path
    )
    content = {key: best[key] for key in _CONTENT}
    return {**best, DIGEST: checkpoint_files.write({"state_dict": latest["state_dict"], **content}, path)}


def matches(path: Path, best: Mapping[str, Any]) -> bool:
    """Return whether a file is the undamaged checkpoint of a validation.

    Args:
        path: the file.
        best: the validation: the digest of its checkpoint; before November 2026 only its metrics, epoch and step.
    """
    if not path.is_file():
        return False
    if DIGEST in best:
        return digests.file_digest(path) == str(best[DIGEST])
    try:
        content = checkpoint_files.read(path)
    except InputError:
        return False
    return all(content.get(key) == best.get(key) for key in ("metrics", "epoch", "step"))


def has_predictions(folder: Path, best: Mapping[str, Any]) -> bool:
    """Return whether predictions.jsonl of a run folder is that of a validation, as far as this is recorded."""
    path = folder / folders.PREDICTIONS
    return PREDICTIONS_DIGEST not in best or (path.is_file() and digests.file_digest(path) == best[PREDICTIONS_DIGEST])


def describe_loss(best: Mapping[str, Any], monitor: str) -> str:
    """Describe the validation whose weights are lost.

    Args:
        best: the validation.
        monitor: name of the metric that decides which validation is the best.
    """
    return f"the best weights ({monitor}={best['metrics'][monitor]:.6g} at step {best['step']}) are lost"
