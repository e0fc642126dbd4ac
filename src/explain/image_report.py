"""Sections of the report on images: overlays, mean maps of classes, confusions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from config.numbers import format_count
from datamodules.images import augmentation
from explain import image_overlays
from explain.image_views import Settings, View, background
from explain.model import Subject, inference_context
from explain.report import Card, Section
from reports.page import format_percent
from trainers import inference

Row = Mapping[str, Any]

MAX_EVALUATIONS = 256  # of a finer map
MAX_CLASSES = 12
MAX_CONFUSIONS = 6


def report_sections(
    subject: Subject, settings: Settings, positions: Sequence[int], explanations: Sequence[Mapping[str, Any]],
    rows: Sequence[Row], count: int,
) -> list[Section]:  # fmt: skip
    """Return the sections.

    Args:
        subject: the model and its data.
        settings: of the explanations.
        positions: of the images in the validation split.
        explanations: of `explain.image_values`.
        rows: of explanations.jsonl.
        count: images with a card.
    """
    # Ids of classes such as n01443537 are replaced by their names.
    names = {entry["id"]: entry["name"] for entry in subject.data.classes}
    rows = [{**row, **{key: names[row[key]] for key in ("label", "prediction")}} for row in rows]
    errors = [index for index, row in enumerate(rows) if not row["correct"]]
    correct = [index for index, row in enumerate(rows) if row["correct"]]
    errors = sorted(errors, key=lambda index: -rows[index]["confidence"])[: count // 2]
    spread = np.linspace(0, len(correct) - 1, min(count - len(errors), len(correct))).astype(int)
    cards = [
        _card(subject, settings, positions[index], explanations[index], rows[index])
        for index in [*(correct[number] for number in spread), *errors]
    ]
    note = (
        "Red speaks for the predicted class, blue against it. Each card has the image with its box; the measured values of "
        f"{settings.grid} x {settings.grid} cells; a finer map of shap's Partition explainer, from which nothing is "
        "measured; and the image without the smallest set of cells whose absence changes the class."
    )
    maps = [_scale(explanation["values"].reshape(settings.grid, settings.grid)) for explanation in explanations]
    return [Section("Images", note, cards), _class_section(maps, rows), *_confusion_sections(maps, rows)]


def _card(subject: Subject, settings: Settings, position: int, explanation: Mapping[str, Any], row: Row) -> Card:
    data = subject.data
    pixels = data.val.gather(np.array([position]))[0]
    box, values = data.boxes[position], explanation["values"].reshape(settings.grid, settings.grid)
    finer = _finer_map(subject, settings, pixels, int(explanation["predicted"]))
    figures = [
        (image_overlays.draw_image(pixels, box), ["image"]),
        (image_overlays.draw_overlay(pixels, values, box), ["values"]),
        (image_overlays.draw_overlay(pixels, finer, box, smooth=True), ["finer map"]),
    ]
    if explanation["hidden"].any():
        remaining = _hide_cells(subject, settings, pixels, explanation["hidden"])
        figures.append((image_overlays.draw_image(remaining), [f"without {explanation['hidden'].sum()} cells"]))
    label = "" if row["correct"] else f", true class {row['label']}"
    title = f"{row['prediction']} ({format_percent(row['confidence'])}){label}"
    return Card(title, row["correct"], row["id"], figures=figures)


def _hide_cells(subject: Subject, settings: Settings, pixels: Any, hidden: Any) -> Any:
    """The pixels of an image with some cells replaced by the background."""
    data = subject.data
    image = augmentation.normalise_batch(torch.from_numpy(pixels[None]), data.augment)
    view = View(None, image[0], background(image, settings.background)[0], 0, settings)
    visible = view.render(~np.asarray(hidden, bool)[None])[0].permute(1, 2, 0).numpy()
    values = (visible * np.array(data.std) + np.array(data.mean)) * 255
    return np.asarray(values.round().clip(0, 255), np.uint8)


def _finer_map(subject: Subject, settings: Settings, pixels: Any, predicted: int) -> npt.NDArray[np.float64]:
    """Values of pixels [H, W] by shap's Partition explainer with the same background; not measured."""
    import shap

    image = augmentation.normalise_batch(torch.from_numpy(pixels[None]), subject.data.augment)
    replacement = background(image, settings.background)
    array, masked = (batch[0].permute(1, 2, 0).numpy().astype(np.float64) for batch in (image, replacement))

    def model(batch: Any) -> Any:
        inputs = torch.from_numpy(np.asarray(batch, np.float32)).permute(0, 3, 1, 2).to(subject.device)
        with inference_context(subject.device, settings.bfloat16):
            scores = inference.image_logits(subject.network, inputs).log_softmax(dim=1)
        return scores[:, predicted].cpu().numpy()

    explainer = shap.explainers.Partition(model, shap.maskers.Image(masked, array.shape))
    result = explainer(array[None], max_evals=MAX_EVALUATIONS, batch_size=settings.batch_size, silent=True)
    values: npt.NDArray[np.float64] = np.asarray(result.values[0], np.float64).reshape(array.shape).sum(axis=2)
    return values


def _class_section(maps: Sequence[Any], rows: Sequence[Row]) -> Section:
    """Mean maps of the classes with the lowest share of positive values in their objects."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row["label"]].append(index)

    def mean_mass(name: str) -> float:
        masses = [mass for index in members[name] if (mass := rows[index]["mass"]) is not None]
        return float(np.mean(masses)) if masses else np.nan

    figures = []
    for name in sorted(members, key=lambda name: (np.nan_to_num(mean_mass(name), nan=9.0), name))[:MAX_CLASSES]:
        indices = members[name]
        accuracy = float(np.mean([rows[index]["correct"] for index in indices]))
        lines = [name, f"accuracy {format_percent(accuracy)} of {len(indices)}"]
        if not np.isnan(mean_mass(name)):
            lines.append(f"{format_percent(mean_mass(name))} in the object")
        figures.append((image_overlays.draw_map(np.mean([maps[index] for index in indices], axis=0)), lines))
    subject = f"the {MAX_CLASSES} of {len(members)} classes" if len(members) > MAX_CLASSES else "all classes"
    note = f"Mean maps of {subject}, in the order of the share of values in their objects, the lowest first."
    return Section("Classes", note, figures=figures)


def _confusion_sections(maps: Sequence[Any], rows: Sequence[Row]) -> list[Section]:
    """Mean maps of the most frequent confusions."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if not row["correct"]:
            members[row["label"], row["prediction"]].append(index)
    figures = [
        (
            image_overlays.draw_map(np.mean([maps[index] for index in indices], axis=0)),
            [f"{label} as {prediction}", format_count(len(indices), "image")],
        )
        for (label, prediction), indices in sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))[
            :MAX_CONFUSIONS
        ]
    ]
    return [Section("Confusions", "Mean maps of the values for the wrong class.", figures=figures)] if figures else []


def _scale(values: Any) -> Any:
    return values / (np.abs(values).max() or 1.0)
