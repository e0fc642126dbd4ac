"""The images that a model is furthest off on, kept for its report: the data may be elsewhere by then."""

from pathlib import Path
from typing import Any

import numpy as np

from config import files
from runs import folder as folders
from runs import predictions

KEPT = 96
SIDE = 96  # pixels at most; larger images are shrunk


def save_pictures(module: Any, folder: Path) -> None:
    """Writes pictures.npz: `ids` [N] and `pixels` uint8 [N, H, W, 3] of the wrong ones with the highest loss.

    Args:
        module: that classifies images, its data open; nothing is written for a baseline, which has no data.
        folder: the run's, with its predictions.
    """
    path = folder / folders.PREDICTIONS
    data = getattr(module, "data", None)
    if data is None or not path.exists():
        return
    wrong = sorted((row for row in predictions.read(path) if not row["correct"]), key=lambda row: -row["loss"])[:KEPT]
    names = data.names
    places = {names[at]: at for at in range(len(names))}
    index = np.array([places[row["id"]] for row in wrong], np.int64)
    pixels = data.val.gather(index)
    step = -(-max(pixels.shape[1:3], default=1) // SIDE)
    with files.atomic_write(folder / folders.MISTAKE_IMAGES) as file:
        np.savez_compressed(
            file, allow_pickle=False, ids=np.array([row["id"] for row in wrong]), pixels=pixels[:, ::step, ::step]
        )
