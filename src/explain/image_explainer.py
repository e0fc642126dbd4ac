"""The explainer of image classification."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from datamodules.images import augmentation
from explain import image_report, measures, tables
from explain.image_values import explain as explain
from explain.image_views import Settings
from explain.model import Subject, prepare_network, seeded
from explain.options import Options
from explain.report import Section
from explain.slices import SliceNames, class_slices, tercile_slices
from explain.tables import Table
from trainers import stem as stems
from trainers.evaluate import load_network
from trainers.image_classification import build_network, network_arguments

FORMAT = 6  # part of the cache key: raise it when values change
EXAMPLES = 256  # of a sample
CHUNK = 32
STABILITY = "two seeds of the explainer agree by {stability:.2f}"
STABILITY_SETTING = "rounds"
MEASURES = {
    "pointing": "how often the highest cell lies in the object's box, less the box's share of the image",
    "mass": "share of the positive values in the object's box, less the box's share of the image",
    "faithfulness": "areas of insertion and deletion, compared with those of a random order",
    "learned": "faithfulness, minus that of the same architecture with random weights",
    **measures.COMMON,
}
MAX_BOX = 0.8  # share of the image; larger boxes are not measured
NORM_EXAMPLES = 256  # images for the batch norm statistics of the random weights


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """Return the settings that the values depend on.

    Args:
        options: conf/explain.
        decoding: settings of the saved model; none for images.
    """
    names = ("grid", "rounds", "background", "target", "explainer")
    return Settings(**{name: options.section[name] for name in names}, **options.numeric_settings)


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Return ids and strata (classes) of the validation split."""
    return list(data.names), data.val.labels.tolist()


def preprocessing(data: Any) -> list[Any]:
    """Return what the preprocessing depends on, for the cache key."""
    return [data.image_size, list(data.mean), list(data.std), *astuple(data.resizing)]


def random_network(subject: Subject, seed: int) -> Any:
    """Build the architecture with random weights, and with batch norm statistics of the evaluation set.

    Args:
        subject: the model.
        seed: of the weights.
    """
    with seeded(seed):
        saved = subject.saved
        network = load_network(saved, random=True) if saved.is_network else _build_timm(saved.config, subject.data)
        network.to(device=subject.device, memory_format=torch.channels_last)
        _set_norm_statistics(network, subject.data)
    return prepare_network(network, subject.device)


def _build_timm(config: Mapping[str, Any], data: Any) -> Any:
    name = config["architecture"]
    arguments = network_arguments(name, False, config.get("model_args") or {}, data.image_size)
    arguments.pop("num_classes", None)  # in folders of others
    network, _ = build_network(name, False, arguments, data.num_classes)
    if stems.has_small_stem(config):
        stems.use_small_stem(network)
    return network


def _set_norm_statistics(network: Any, data: Any) -> None:
    """Set batch norm statistics to those of the data; the initial ones would mute the network."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    positions = np.linspace(0, len(data.val), min(NORM_EXAMPLES, len(data.val)), endpoint=False).astype(np.int64)
    network.train()
    with torch.no_grad():
        for batch in np.array_split(positions, -(-len(positions) // 64)):
            pixels = torch.from_numpy(data.val.gather(batch)).to(next(network.parameters()).device)
            network(augmentation.normalise_batch(pixels, data.augment))


def table(explanations: Sequence[Mapping[str, Any]]) -> Table:
    """Return columns: `correct`, `confidence`, `cluster` (the class), `stability`, `additivity`, `finite`, and the measures."""
    return tables.stack_rows(map(_measure_row, explanations))


def _measure_row(image: Mapping[str, Any]) -> dict[str, Any]:
    values, inside, counts = image["values"], image["inside"], image["counts"]
    box_share = float(np.mean(inside)) if float(image["area"]) <= MAX_BOX else np.nan
    faithfulness, null_faithfulness = tables.area_gain(counts, image["curves"], image["random"]), np.nan
    if "null" in image:
        null_faithfulness = tables.area_gain(counts, image["null_curves"], image["null_random"])
    return {
        "correct": float(image["label"] == image["predicted"]),
        "confidence": float(image["confidence"]),
        "cluster": int(image["label"]),
        "stability": float(measures.reliability(*image["halves"])),
        "additivity": tables.additivity_error(values, *image["ends"]) if image["adds_up"] else 0.0,
        "pointing": float(measures.pointing_game(values, inside)) - box_share,
        "mass": float(measures.relevance_mass(values, inside)) - box_share,
        "faithfulness": faithfulness,
        "learned": faithfulness - null_faithfulness,
        **tables.curve_measures(image, counts, image["curves"], image["random"]),
    }


def lines(
    data: Any, positions: Sequence[int], explanations: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Return the lines of explanations.jsonl: id, label, prediction, correct, confidence, box_share, pointing, mass, values, smallest.

    Args:
        data: the data module.
        positions: of the images.
        explanations: of `explain`.
        measured: of `table`.
    """
    classes = [entry["id"] for entry in data.classes]
    result = []
    for number, (position, image) in enumerate(zip(positions, explanations, strict=True)):
        area = float(image["area"])
        result.append(
            {
                "id": data.names[position].encode("utf-8", "backslashreplace").decode(),
                "label": classes[int(image["label"])],
                "prediction": classes[int(image["predicted"])],
                "correct": bool(image["label"] == image["predicted"]),
                "confidence": float(image["confidence"]),
                "box_share": _number_or_none(area),
                "pointing": _number_or_none(measured["pointing"][number] + area),
                "mass": _number_or_none(measured["mass"][number] + area),
                "values": [round(value, 6) for value in image["values"].tolist()],
                "smallest": np.flatnonzero(image["hidden"]).tolist() or None,
            }
        )
    return result


def _number_or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def slices(rows: Sequence[Mapping[str, Any]], explanations: Sequence[Mapping[str, Any]]) -> SliceNames:
    """Return the slices of each image: its class, for few classes, and the size of its object."""
    area = np.array([image["area"] for image in explanations])
    return {**class_slices([row["label"] for row in rows]), **tercile_slices("object", area, "{:.0%}", "no box")}


def report_sections(
    subject: Subject, image_settings: Settings, options: Options, positions: Sequence[int],
    explanations: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[Section]:  # fmt: skip
    """Return the task's sections of the report; see the functions above for the arguments."""
    return image_report.report_sections(
        subject, image_settings, positions, explanations, rows, int(options.section["pictures"])
    )
