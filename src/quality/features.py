"""What a model makes of a data set: its predictions, how sure it is of them, and the features they come from."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import Refused
from datamodules.images.files import read_bytes
from quality import tables
from quality.facts import Facts

EXAMPLES = 512  # looked at of each data set
BATCH = 32
TOKENS = 384  # of question and paragraph; the rest is cut off


@dataclass(frozen=True)
class Seen:
    """What a model says of N examples.

    Attributes:
        predicted: [N] class id, or the relative place of the answer.
        confidence: [N] 0 to 1.
        features: float64 [N, D] of the last layer.
    """

    predicted: npt.NDArray[Any]
    confidence: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]


def model_folder(named: str) -> Path:
    """The folder of a run's model, or the model folder itself.

    Raises:
        Refused: it is neither.
    """
    folder = Path(named)
    folder = folder / "model" if (folder / "model" / "config.json").exists() else folder
    if not (folder / "config.json").exists():
        raise Refused(f"--model {named}: neither a run with a model nor a model folder (there is no config.json)")
    return folder


def seen(model: Path, data: Any, facts: Facts, split: str, spill: Path) -> Seen:
    """Runs a model over the examples of a split with the smallest hashes of their ids.

    Args:
        model: of `model_folder`; loaded with plain timm or transformers.
        data: the data module.
        facts: its facts.
        split: train or val.
        spill: folder for what does not fit into memory.
    """
    connection = tables.connect(facts.path, spill)
    images = facts.task == "image_classification"
    where = "number is not null and " + ("decodes" if images else "true")
    alike = "number" if images else "context_hash"  # as in the profile: one question of each paragraph
    query = (
        f"select * from facts where split = '{split}' and {where} "
        f"qualify row_number() over (partition by {alike} order by hash(id), id) = 1 order by hash(id), id limit {EXAMPLES}"
    )
    rows = tables.rows(connection, query)
    connection.close()
    if not rows:
        raise Refused(f"there is no example in {split} for the model to look at")
    return _images(model, data, split, rows) if images else _questions(model, rows)


def _images(model: Path, data: Any, split: str, rows: list[dict[str, Any]]) -> Seen:
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(f"local-dir:{model}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    labels = network.pretrained_cfg.get("label_names") or [str(index) for index in range(network.num_classes)]
    wanted = {row["number"] for row in rows}
    encoded = {at: image for at, image in enumerate(data.survey.splits[split].images()) if at in wanted}
    predicted, confidence, features = [], [], []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = []
            for row in rows[start : start + BATCH]:
                image = encoded[row["number"]]
                with Image.open(io.BytesIO(read_bytes(image) if isinstance(image, str) else image)) as opened:
                    batch.append(transform(opened.convert("RGB")))
            pooled = network.forward_head(network.forward_features(torch.stack(batch)), pre_logits=True)
            found = network.get_classifier()(pooled).softmax(dim=1).max(dim=1)
            predicted += [labels[index] for index in found.indices.tolist()]
            confidence += found.values.tolist()
            features.append(pooled.flatten(1).double().numpy())
    return Seen(np.array(predicted), np.array(confidence), np.concatenate(features))


def _questions(model: Path, rows: list[dict[str, Any]]) -> Seen:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForQuestionAnswering.from_pretrained(model).eval()
    places, confidence, features = [], [], []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            batch = tokenizer(
                [row["question"] for row in some],
                [row["context"] for row in some],
                truncation="only_second",
                max_length=min(TOKENS, tokenizer.model_max_length),
                padding=True,
                return_tensors="pt",
            )
            out = network(**batch, output_hidden_states=True)
            mask = batch["attention_mask"].bool()
            starts, ends = (
                logits.masked_fill(~mask, float("-inf")).softmax(dim=1) for logits in (out.start_logits, out.end_logits)
            )
            places += (starts.argmax(dim=1) / mask.sum(dim=1)).tolist()
            confidence += (starts.max(dim=1).values * ends.max(dim=1).values).tolist()
            weights = mask.unsqueeze(2).to(out.hidden_states[-1].dtype)
            features.append(((out.hidden_states[-1] * weights).sum(dim=1) / weights.sum(dim=1)).double().numpy())
    return Seen(np.array(places), np.array(confidence), np.concatenate(features))


def principal(reference: npt.NDArray[np.float64], new: npt.NDArray[np.float64], count: int) -> tuple[Any, Any]:
    """Both on the reference's principal components.

    Args:
        reference, new: [N, D], [M, D].
        count: components at most.

    Returns:
        [N, K], [M, K].
    """
    centre = reference.mean(axis=0)
    _, values, directions = np.linalg.svd(reference - centre, full_matrices=False)
    kept = directions[:count][values[:count] > 1e-9 * max(1.0, float(values[0]))]
    return (reference - centre) @ kept.T, (new - centre) @ kept.T
