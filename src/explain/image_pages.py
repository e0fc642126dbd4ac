"""What the report shows of images: overlays, maps of classes, confusions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datamodules.images import augmentation
from explain import pictures
from explain.image_views import Settings, View, background
from explain.model import Subject, inference_context
from runs.page import escaped
from trainers import inference

Line = Mapping[str, Any]

EVALUATIONS = 256  # of a fine picture
CLASSES = 12
CONFUSED = 6


def parts(
    subject: Subject, settings: Settings, chosen: Sequence[int], explained: Sequence[Mapping[str, Any]],
    lines: Sequence[Line], count: int,
) -> list[str]:  # fmt: skip
    """HTML.

    Args:
        subject: the model and its data.
        settings: of the explanations.
        chosen: positions of the images.
        explained: of `explain.image_values`.
        lines: of `explain.image_explainer`.
        count: images shown on their own.
    """
    # "n01443537" says little.
    called = {each["id"]: each["name"].split(",")[0] for each in subject.data.classes}
    lines = [{**line, **{key: called[line[key]] for key in ("label", "prediction")}} for line in lines]
    wrong = [at for at, line in enumerate(lines) if not line["correct"]]
    right = [at for at, line in enumerate(lines) if line["correct"]]
    surest = sorted(wrong, key=lambda at: -lines[at]["confidence"])[: count // 2]
    shown = [*_spread(right, count - len(surest)), *surest]
    cards = "".join(_card(subject, settings, chosen[at], explained[at], lines[at]) for at in shown)
    return [
        "<h2>Images</h2>",
        f"<p class='small'>Red speaks for the predicted class, blue against it. In each row: the image with its box; the measured "
        f"values of {settings.grid} x {settings.grid} cells; a finer picture, by shap's Partition explainer, that nothing is "
        "measured from; and the smallest set of cells found without which the class is another.</p>",
        f"<div class='grid' style='grid-template-columns:repeat(auto-fill,minmax(22rem,1fr))'>{cards}</div>"
        if shown
        else "",
        "<h2>Classes</h2>",
        _classes(settings, explained, lines),
        *_confusions(settings, explained, lines),
    ]


def _spread(places: Sequence[int], count: int) -> list[int]:
    return [places[at] for at in np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)] if places else []


def _card(subject: Subject, settings: Settings, at: int, each: Mapping[str, Any], line: Line) -> str:
    data = subject.data
    pixels = data.val.gather(np.array([at]))[0]
    box, grid = data.boxes[at], (settings.grid, settings.grid)
    fine = _fine(subject, settings, pixels, int(each["predicted"]))
    shown = [
        (pictures.plain(pixels, box, 96), "the image"),
        (pictures.overlay(pixels, each["values"].reshape(grid), box, side=96), "values"),
        (pictures.overlay(pixels, fine, box, smooth=True, side=96), "finer"),
    ]
    if each["hidden"].any():
        shown.append(
            (
                pictures.plain(_without(subject, settings, pixels, each["hidden"]), side=96),
                f"without {each['hidden'].sum()}",
            )
        )
    figures = "".join(
        f"<figure><img alt='' src='{uri}'><figcaption>{said}</figcaption></figure>" for uri, said in shown
    )
    head = f"{line['prediction']} ({line['confidence']:.0%})" + ("" if line["correct"] else f", is {line['label']}")
    return f"<div class='card'><h3>{escaped(head)}</h3><div class='pictures'>{figures}</div><p class='small'>{escaped(line['id'])}</p></div>"


def _without(subject: Subject, settings: Settings, pixels: Any, hidden: Any) -> Any:
    """The pixels of an image with some cells hidden."""
    data = subject.data
    image = augmentation.normalise_batch(torch.from_numpy(pixels[None]), data.augment)
    view = View(None, image[0], background(image, settings.background)[0], 0, settings)
    shown = view.render(~np.asarray(hidden, bool)[None])[0].permute(1, 2, 0).numpy()
    back = (shown * np.array(data.std) + np.array(data.mean)) * 255
    return np.asarray(back.round().clip(0, 255), np.uint8)


def _fine(subject: Subject, settings: Settings, pixels: Any, predicted: int) -> npt.NDArray[np.float64]:
    """Values of pixels [H, W], by shap's Partition explainer with the same background: for the eye alone."""
    import shap

    image = augmentation.normalise_batch(torch.from_numpy(pixels[None]), subject.data.augment)
    behind = background(image, settings.background)
    array, other = (each[0].permute(1, 2, 0).numpy().astype(np.float64) for each in (image, behind))

    def model(batch: Any) -> Any:
        inputs = torch.from_numpy(np.asarray(batch, np.float32)).permute(0, 3, 1, 2).to(subject.device)
        with inference_context(subject.device, settings.bfloat16):
            likely = inference.image_logits(subject.network, inputs).log_softmax(dim=1)
        return likely[:, predicted].cpu().numpy()

    explainer = shap.explainers.Partition(model, shap.maskers.Image(other, array.shape))
    found = explainer(array[None], max_evals=EVALUATIONS, batch_size=settings.batch_size, silent=True)
    values: npt.NDArray[np.float64] = np.asarray(found.values[0], np.float64).reshape(array.shape).sum(axis=2)
    return values


def _classes(settings: Settings, explained: Sequence[Mapping[str, Any]], lines: Sequence[Line]) -> str:
    """Mean maps of the classes with the lowest share of values in their objects."""
    members: dict[str, list[int]] = defaultdict(list)
    for at, line in enumerate(lines):
        members[line["label"]].append(at)

    def mass(of: Sequence[int]) -> float:
        known = [lines[at]["mass"] for at in of if lines[at]["mass"] is not None]
        return float(np.mean(known)) if known else np.nan

    ordered = sorted(members, key=lambda name: (np.nan_to_num(mass(members[name]), nan=9.0), name))[:CLASSES]
    figures = []
    for name in ordered:
        of = members[name]
        values = np.mean([_scaled(explained[at]["values"]) for at in of], axis=0)
        right = np.mean([lines[at]["correct"] for at in of])
        said = f"{name}<br>{right:.0%} of {len(of)} right" + (
            "" if np.isnan(mass(of)) else f"<br>{mass(of):.0%} in the object"
        )
        figures.append(
            f"<figure><img alt='' src='{pictures.heat(values.reshape(settings.grid, settings.grid))}'><figcaption>{said}</figcaption></figure>"
        )
    shown = (
        f"{len(ordered)} of {len(members)} classes, those whose values lie least in their objects"
        if len(members) > CLASSES
        else "all classes"
    )
    return f"<p class='small'>Mean maps of {shown}.</p><div class='pictures'>{''.join(figures)}</div>"


def _scaled(values: Any) -> Any:
    return values / (np.abs(values).max() or 1.0)


def _confusions(settings: Settings, explained: Sequence[Mapping[str, Any]], lines: Sequence[Line]) -> list[str]:
    pairs = Counter((line["label"], line["prediction"]) for line in lines if not line["correct"])
    if not pairs:
        return []
    figures = []
    for (label, prediction), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:CONFUSED]:
        of = [at for at, line in enumerate(lines) if (line["label"], line["prediction"]) == (label, prediction)]
        values = np.mean([_scaled(explained[at]["values"]) for at in of], axis=0)
        said = f"{escaped(label)} taken for {escaped(prediction)}<br>{'once' if count == 1 else f'{count} times'}"
        figures.append(
            f"<figure><img alt='' src='{pictures.heat(values.reshape(settings.grid, settings.grid))}'><figcaption>{said}</figcaption></figure>"
        )
    return [
        "<h2>Confusions</h2>",
        "<p class='small'>Mean maps of what speaks for the wrong class.</p>",
        f"<div class='pictures'>{''.join(figures)}</div>",
    ]
