"""Explanations of image classifications: values of the cells of a grid for the predicted class."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datamodules.images import augmentation
from explain import image_gradients, measures, shapley, shapley_regression
from explain.image_views import Bools, Response, Settings, View, background, box_coverage, logits
from explain.model import Subject
from explain.sample import Chunk, example_seed

Arrays = dict[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explain some images of the validation split.

    Args:
        subject: the model.
        null: the same architecture with random weights.
        chunk: the images.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each image: `values` [K], from both seeds; `halves` [2, K], those of each seed; `adds_up`, whether they add up;
        `ends` [2], the target with no and all cells visible; `counts` [M] of cells; `curves` [2, M], probabilities of insertion and
        deletion at these, and `random` ones; `null` [K], `null_curves` and `null_random` with random weights, for a part of
        the sample; `gradients` [K]; `inside` [K], coverage by the box; `hidden` [K], a minimal set that changes the
        prediction; `label`, `predicted`, `confidence`, and `area` of the box.
    """
    data = subject.data
    positions = np.asarray(chunk.positions, np.int64)
    pixels = torch.from_numpy(data.val.gather(positions)).to(subject.device)
    images = augmentation.normalise_batch(pixels, data.augment)
    backgrounds = background(images, settings.background)
    networks = (subject.network, null)
    predicted, predicted_null = (logits(net, [images], settings).argmax(dim=1).tolist() for net in networks)
    views, rows = [], []
    for number, position in enumerate(positions.tolist()):
        pair = images[number], backgrounds[number]
        view = View(subject.network, *pair, predicted[number], settings)
        null_view = View(null, *pair, predicted_null[number], settings) if position in chunk.null else None
        views.append(view)
        rows.append(_explain_image(data, view, null_view, position))
        progress()
    gradients = image_gradients.integrated_gradients(
        subject.network, images, backgrounds, predicted, views[0].cells, settings
    )
    orders = [np.argsort(-row["values"], kind="stable") for row in rows]
    for row, gradient, hidden in zip(rows, gradients, smallest_sets(views, orders), strict=True):
        row["gradients"], row["hidden"] = gradient, hidden
    return rows


def _explain_image(data: Any, view: View, null_view: View | None, position: int) -> Arrays:
    settings, players = view.settings, view.settings.grid**2
    checksum = zlib.crc32(data.names[position].encode("utf-8", "surrogateescape"))
    seeds = [example_seed(settings.seed + half, checksum) for half in range(2)]
    responses, values, estimates = estimate_values(view, seeds)
    counts = curve_counts(players)
    random = [_random_curves(half, players, counts) for half in responses]
    height, width = view.image.shape[:2]
    coverage = box_coverage(data.boxes[position], height, width, settings.grid)
    row = {
        "values": values,
        "halves": estimates,
        "adds_up": np.array(settings.explainer != "gradient"),
        "ends": responses[0].target[:2],
        "counts": counts,
        "curves": curves(view, values, responses[0], counts),
        "random": np.mean(random, axis=0),
        "inside": coverage,
        "label": np.array(int(data.val.labels[position])),
        "predicted": np.array(view.predicted),
        "confidence": responses[0].probability[1],
        "area": np.array(coverage.mean()),
    }
    if null_view is not None:
        plan = shapley.draw_permutations(players, 1, example_seed(settings.seed, checksum))
        response = null_view.evaluate(plan.masks)
        row["null"] = plan.shapley(response.target)
        row["null_curves"] = curves(null_view, row["null"], response, counts)
        row["null_random"] = _random_curves(response, players, counts)
    return row


def estimate_values(view: View, seeds: Sequence[int]) -> tuple[list[Response], Floats, Floats]:
    """Estimate the Shapley values of the cells of an image.

    Args:
        view: the image.
        seeds: two, of the coalitions.

    Returns:
        The responses to the coalitions of each seed, values [K] from all of them, and values [2, K] from those of each seed.
    """
    settings, players = view.settings, view.settings.grid**2
    rounds = 1 if settings.explainer == "gradient" else settings.rounds
    if settings.explainer == "regression":
        masks = [shapley_regression.draw_coalitions(players, rounds, seed) for seed in seeds]
    else:
        plans = [shapley.draw_permutations(players, rounds, seed) for seed in seeds]
        masks = [plan.masks for plan in plans]
    both = view.evaluate(np.concatenate(masks))
    halves = zip(np.split(both.target, 2), np.split(both.probability, 2), strict=True)
    responses = [Response(target, probability) for target, probability in halves]
    targets = [response.target for response in responses]
    if settings.explainer == "regression":
        near = shapley_regression.grid_triples(settings.grid)
        pairs = zip(masks, targets, strict=True)
        estimates = np.stack([shapley_regression.estimate([mask], [target], near) for mask, target in pairs])
        return responses, shapley_regression.estimate(masks, targets, near), estimates
    if settings.explainer == "permutation":
        estimates = np.stack([plan.shapley(target) for plan, target in zip(plans, targets, strict=True)])
    else:
        estimates = np.stack([image_gradients.expected_gradients(view, settings.seed + half) for half in range(2)])
    return responses, estimates.mean(axis=0), estimates


def curve_counts(players: int) -> Ints:
    """Return the numbers of visible, or hidden, cells along a curve: eighths, and the shares of `measures.SHARES`."""
    eighths = [round(players * eighth / 8) for eighth in range(9)]
    return np.unique([*eighths, *measures.share_counts(players)])


def _random_curves(response: Response, players: int, counts: Ints) -> Floats:
    """Return insertion and deletion [2, M] of the random coalitions that the values are computed from."""
    insertion, deletion = shapley.by_size(response.probability, players)
    return np.stack([insertion.mean(axis=0)[counts], deletion.mean(axis=0)[counts]])


def curves(view: View, values: Any, ends: Response, counts: Ints) -> Floats:
    """Compute insertion and deletion [2, M], the highest cells first.

    Args:
        view: the image.
        values: [K] of its cells.
        ends: response whose first two rows are those of no and of all cells.
        counts: [M] of cells.
    """
    rank = np.argsort(np.argsort(-values, kind="stable"))
    inner = counts[1:-1, None]
    response = view.evaluate(np.concatenate([rank < inner, rank >= inner]))
    (none, everything), (insertion, deletion) = ends.probability[:2], np.split(response.probability, 2)
    return np.array([[none, *insertion, everything], [everything, *deletion, none]])


def smallest_sets(views: Sequence[View], orders: Sequence[Ints]) -> list[Bools]:
    """Find minimal sets of cells without which the class changes.

    The highest cells are hidden, in growing numbers, until the class changes; then cells are made visible again, the lowest
    first, if the class stays changed. All images are evaluated together.

    Args:
        views: the images.
        orders: [K] the cells of each, the highest first.

    Returns:
        [K] for each image; no cell if the class never changes.
    """
    settings, players = views[0].settings, len(orders[0])
    hidden = [np.zeros(players, bool) for _ in views]

    def class_changes(images: Sequence[int], masks: Sequence[Bools]) -> list[bool]:
        batch = torch.cat([views[image].render(~mask[None]) for image, mask in zip(images, masks, strict=True)])
        classes = logits(views[0].network, batch.split(settings.batch_size), settings).argmax(dim=1).tolist()
        return [predicted != views[image].predicted for image, predicted in zip(images, classes, strict=True)]

    unchanged, changed = list(range(len(views))), []
    for count in curve_counts(players)[1:].tolist():
        if not unchanged:
            break
        images = list(unchanged)
        masks = [np.isin(np.arange(players), orders[image][:count]) for image in images]
        for image, mask, changes in zip(images, masks, class_changes(images, masks), strict=True):
            if changes:
                hidden[image] = mask
                unchanged.remove(image)
                changed.append(image)
    remaining = sorted(changed)
    while remaining:  # after a pass that made cells visible, others may have become unnecessary
        sizes = {image: hidden[image].sum() for image in remaining}
        cells = {image: [cell for cell in orders[image][::-1].tolist() if hidden[image][cell]] for image in remaining}
        for turn in range(max(map(len, cells.values()))):
            images = [image for image in remaining if turn < len(cells[image])]
            masks = [hidden[image].copy() for image in images]
            for image, mask in zip(images, masks, strict=True):
                mask[cells[image][turn]] = False
            for image, mask, changes in zip(images, masks, class_changes(images, masks), strict=True):
                if changes:
                    hidden[image] = mask
        remaining = [image for image in remaining if hidden[image].sum() < sizes[image]]
    return hidden
