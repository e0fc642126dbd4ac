"""Pictures of an image classifier's worst mistakes, for the report: the data may be unavailable later."""

from pathlib import Path
from typing import Any

import numpy as np

from config import files
from runs import folder as folders
from runs import predictions

MAX_PICTURES = 96
MAX_SIDE = 96  # pixels; larger images are subsampled


def save_pictures(module: Any, folder: Path) -> None:
    """Write pictures.npz: `ids` [N] and `pixels` uint8 [N, H, W, 3] of the errors with the highest loss.

    Args:
        module: an image classifier with its data; nothing is written for a baseline, which has no data.
        folder: the run folder, with its predictions.
    """
    path = folder / folders.PREDICTIONS
    data = getattr(module, "data", None)
    if data is None or not path.exists():
        return
    errors = sorted((row for row in predictions.read(path) if not row["correct"]), key=lambda row: -row["loss"])
    ids = [row["id"] for row in errors[:MAX_PICTURES]]
    positions = {name: position for position, name in enumerate(data.names)}
    pixels = data.val.gather(np.array([positions[name] for name in ids], np.int64))
    step = -(-max(pixels.shape[1:3], default=1) // MAX_SIDE)
    with files.atomic_write(folder / folders.MISTAKE_IMAGES) as file:
        np.savez_compressed(file, allow_pickle=False, ids=np.array(ids), pixels=pixels[:, ::step, ::step])
