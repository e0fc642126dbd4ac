"""How many dots an image has: a regression of one number."""

import json
from pathlib import Path

LIBRARY = "torch"
MODEL, DATA = "counter", "dots"
EXAMPLES = "images"
USE = "Counts the dots of an image."
LIMITS = "It knows dots alone."
MISTAKE_COLUMNS = {"off by": "n", "image": "i"}
MISTAKE_ORDER = "the furthest off first"


def model_config(model):
    return {"pretrained": str(model.folder), "width": model.config["width"]}


def scores(row):
    return {"val_mae": abs(row["prediction"] - row["label"]), "val_loss": (row["prediction"] - row["label"]) ** 2}


def is_correct(row):
    return abs(row["prediction"] - row["label"]) < 0.5


def mistake_key(row):
    return -abs(row["prediction"] - row["label"])


def mistake(row):
    return [f"{row['prediction'] - row['label']:+.2f}", row["id"]]


def mistake_group(row):
    return str(row["label"])


def predict(model, files, stdin, batch_size):
    import numpy as np
    import torch

    from counting.model import forward, load

    network = load(model.folder, model.config["width"])
    for line in stdin if not files else (line for name in files for line in Path(name).read_text().splitlines()):
        row = json.loads(line)
        pixels = torch.from_numpy(np.array(row["pixels"], np.float32))[None]
        yield {"id": row["id"], "prediction": float(forward(network, pixels)[0])}
