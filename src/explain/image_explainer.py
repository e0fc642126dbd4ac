"""The explainer of image classification: what its explanations are made of, measured by and shown as."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from datamodules.images import augmentation
from explain import image_pages, measures, tables
from explain import slices as kinds
from explain.image_values import explain as explain
from explain.image_views import Settings
from explain.model import Subject, prepare_network, seeded
from explain.options import Options
from explain.slices import SliceNames
from explain.tables import Table
from trainers import stem as stems
from trainers.image_classification import build_network as timm_network

FORMAT = 5  # part of the cache's key: raise it when what is found changes
EXAMPLES = 256  # of a sample
CHUNK = 32
STABILITY = "two seeds of the explainer agree by {stability:.2f}"
STEADIER = "rounds"  # setting that lets two seeds agree more
MEASURES = {
    "pointing": "how often the highest cell lies in the object's box, less the box's share of the image",
    "mass": "the share of positive values in the object's box, less the box's share of the image",
    "faithfulness": "the areas of insertion and deletion, against those of a random order",
    "learned": "faithfulness, less that of the same architecture at random weights",
    **measures.COMMON,
}
WIDE = 0.8  # share of the image from which on a box says nothing
NORMALISED = 256  # images that set the random weights' batch norms


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """What decides the values.

    Args:
        options: conf/explain.
        decoding: the saved model's own; none for images.
    """
    names = ("grid", "rounds", "background", "target", "explainer")
    return Settings(
        **{name: options.own[name] for name in names},
        batch_size=options.batch_size,
        seed=options.seed,
        bfloat16=options.precision == "bf16",
    )


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Ids of the validation split, and the class of each image, over which a sample is spread."""
    return [data.names[at] for at in range(len(data.val))], data.val.labels.tolist()


def prepared(data: Any) -> list[Any]:
    """How images become the model's input."""
    return [data.image_size, list(data.mean), list(data.std)]


def random_network(subject: Subject, seed: int) -> Any:
    """The same architecture at random weights: what an explanation says when nothing was learned.

    Args:
        subject: the model.
        seed: of the weights.

    Returns:
        The network; its batch norms' statistics are those of some images of the evaluation set.
    """
    config = subject.saved.config
    with seeded(seed):
        network = timm_network(config["architecture"], False, dict(config.get("model_args") or {}), subject.data)
        if stems.has_small_stem(config):
            stems.use_small_stem(network)
        network.to(device=subject.device, memory_format=torch.channels_last)
        _normalise(network, subject.data)
    return prepare_network(network, subject.device)


def _normalise(network: Any, data: Any) -> None:
    """Sets batch norms' statistics to the data's: those of an untrained network are of no data, and mute it."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    places = np.linspace(0, len(data.val), min(NORMALISED, len(data.val)), endpoint=False).astype(np.int64)
    network.train()
    with torch.no_grad():
        for part in np.array_split(places, -(-len(places) // 64)):
            pixels = torch.from_numpy(data.val.gather(part)).to(next(network.parameters()).device)
            network(augmentation.normalise_batch(pixels, data.augment))


def table(explained: Sequence[Mapping[str, Any]]) -> Table:
    """Per image: `correct`, `confidence`, `cluster` (its class), `stability`, `additivity`, `finite`, and each measure."""
    return tables.stack_rows(_row(image) for image in explained)


def _row(image: Mapping[str, Any]) -> dict[str, Any]:
    values, inside = image["values"], image["inside"]
    share = float(np.mean(inside)) if float(image["area"]) <= WIDE else np.nan
    at, curves, random = image["counts"], image["curves"], image["random"]
    gained, null, unlike = tables.area_gain(at, curves, random), np.nan, np.nan
    if "null" in image:
        null = tables.area_gain(at, image["null_curves"], image["null_random"])
        unlike = float(measures.rank_correlation(values, image["null"]))
    return {
        "correct": float(image["label"] == image["predicted"]),
        "confidence": float(image["confidence"]),
        "cluster": int(image["label"]),
        "stability": float(measures.reliability(*image["halves"])),
        "additivity": tables.additivity_error(values, *image["ends"]) if image["adds_up"] else 0.0,
        "pointing": float(measures.pointing_game(values, inside)) - share,
        "mass": float(measures.relevance_mass(values, inside)) - share,
        "faithfulness": gained,
        "learned": gained - null,
        "comprehensiveness": float(
            measures.comprehensiveness(curves[1], at) - measures.comprehensiveness(random[1], at)
        ),
        "sufficiency": float(
            measures.sufficiency(random[1], random[0], at) - measures.sufficiency(curves[1], curves[0], at)
        ),
        "unlike_random": 1 - unlike,
        "agreement": float(measures.rank_correlation(values, image["gradients"])),
        "finite": float(np.isfinite(values).all()),
    }


def lines(
    data: Any, sample: Sequence[int], explained: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Lines of explanations.jsonl: id, label, prediction, correct, confidence, box_share, pointing, mass, values, smallest.

    Args:
        data: the data module.
        sample: positions of the images.
        explained: of `explain`.
        measured: of `table`.
    """
    classes = [entry["id"] for entry in data.classes]
    result = []
    for number, (at, image) in enumerate(zip(sample, explained, strict=True)):
        area = float(image["area"])
        result.append(
            {
                "id": data.names[at].encode("utf-8", "backslashreplace").decode(),
                "label": classes[int(image["label"])],
                "prediction": classes[int(image["predicted"])],
                "correct": bool(image["label"] == image["predicted"]),
                "confidence": float(image["confidence"]),
                "box_share": _number(area),
                "pointing": _number(measured["pointing"][number] + area),
                "mass": _number(measured["mass"][number] + area),
                "values": [round(value, 6) for value in image["values"].tolist()],
                "smallest": np.flatnonzero(image["hidden"]).tolist() or None,
            }
        )
    return result


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def slices(rows: Sequence[Mapping[str, Any]], explained: Sequence[Mapping[str, Any]]) -> SliceNames:
    """The slices that each image is in: its class, where they are few, and the size of its object."""
    area = np.array([image["area"] for image in explained])
    return {
        **kinds.class_slices([row["label"] for row in rows]),
        **kinds.tercile_slices("object", area, "{:.0%}", "no box"),
    }


def parts(
    subject: Subject, chosen: Settings, options: Options, sample: Sequence[int],
    explained: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[str]:  # fmt: skip
    """HTML of what the report shows of images; arguments as of the functions before."""
    return image_pages.parts(subject, chosen, sample, explained, rows, int(options.own["pictures"]))
