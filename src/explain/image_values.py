"""Explanations of image classifications: which cells of a grid speak for the predicted class."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datamodules.images import augmentation
from explain import image_gradients, measures, shapley
from explain.image_views import Bools, Response, Settings, View, background, box_coverage, logits
from explain.model import Subject
from explain.sample import Chunk, example_seed

Arrays = dict[str, npt.NDArray[Any]]


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explains some images of the validation split.

    Args:
        subject: the model.
        null: the same architecture at random weights.
        chunk: the images.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each image: `values` [K], the mean of `halves` [2, K] of two seeds; `ends` [2] of the target with nothing and all
        shown; `counts` [M] of cells; `curves` [2, M] probabilities of insertion and deletion at these, and `random` ones;
        `null` [K], `null_curves` and `null_random` of the random weights, if they were asked; `gradients` [K]; `inside` [K]
        of the box; `hidden` [K] the smallest set found that changes the prediction; `label`, `predicted`, `confidence`,
        `area` of the box.
    """
    data = subject.data
    index = np.asarray(chunk.positions, np.int64)
    pixels = torch.from_numpy(data.val.gather(index)).to(subject.device)
    whole = augmentation.normalise_batch(pixels, data.augment)
    behind = background(whole, settings.background)
    classes = [logits(network, [whole], settings).argmax(dim=1).tolist() for network in (subject.network, null)]
    views, rows = [], []
    for number, (at, image, hidden) in enumerate(zip(index.tolist(), whole, behind, strict=True)):
        view = View(subject.network, image, hidden, classes[0][number], settings)
        # What needs random weights is asked of a part: a null is known well enough from fewer.
        random = View(null, image, hidden, classes[1][number], settings) if at in chunk.null else None
        views.append(view)
        rows.append(_one(data, view, random, at))
        progress()
    integrated = image_gradients.integrated_gradients(
        subject.network, whole, behind, classes[0], views[0].cells, settings
    )
    for row, gradients in zip(rows, integrated, strict=True):
        row["gradients"] = gradients
    orders = [np.argsort(-row["values"], kind="stable") for row in rows]
    for row, hidden_cells in zip(rows, smallest_sets(views, orders), strict=True):
        row["hidden"] = hidden_cells
    return rows


def _one(data: Any, view: View, random: View | None, at: int) -> Arrays:
    settings, players = view.settings, view.settings.grid**2
    name = zlib.crc32(data.names[at].encode("utf-8", "surrogateescape"))
    rounds = settings.rounds if settings.explainer == "permutation" else 1
    plans = [shapley.draw_permutations(players, rounds, example_seed(settings.seed + half, name)) for half in range(2)]
    both = view.ask(np.concatenate([plan.masks for plan in plans]))
    halves = zip(np.split(both.target, 2), np.split(both.probability, 2), strict=True)
    responses = [Response(target, probability) for target, probability in halves]
    if settings.explainer == "permutation":
        estimates = np.stack([plan.shapley(half.target) for plan, half in zip(plans, responses, strict=True)])
    else:
        estimates = np.stack([image_gradients.expected_gradients(view, settings.seed + half) for half in range(2)])
    values, counts = estimates.mean(axis=0), curve_counts(players)
    chance = [_random_curves(plan, half, counts) for plan, half in zip(plans, responses, strict=True)]
    height, width = view.image.shape[:2]
    covered = box_coverage(data.boxes[at], height, width, settings.grid)
    return {
        "values": values,
        "halves": estimates,
        "adds_up": np.array(settings.explainer == "permutation"),
        "ends": responses[0].target[:2],
        "counts": counts,
        "curves": curves(view, values, responses[0], counts),
        "random": np.mean(chance, axis=0),
        **_at_random(random, example_seed(settings.seed, name), counts),
        "inside": covered,
        "label": np.array(int(data.val.labels[at])),
        "predicted": np.array(view.predicted),
        "confidence": responses[0].probability[1],
        "area": np.array(covered.mean()),
    }


def curve_counts(players: int) -> npt.NDArray[np.int64]:
    """How many cells are shown, or hidden, along a curve: eighths of them, and the shares of `measures.SHARES`."""
    eighths = [round(players * eighth / 8) for eighth in range(9)]
    return np.unique([*eighths, *measures.share_counts(players)])


def _at_random(view: View | None, seed: int, counts: npt.NDArray[np.int64]) -> Arrays:
    """Values [K] at random weights, and their curves and random ones [2, M]; nothing where they are not asked for."""
    if view is None:
        return {}
    plan = shapley.draw_permutations(view.settings.grid**2, 1, seed)
    response = view.ask(plan.masks)
    values = plan.shapley(response.target)
    return {
        "null": values,
        "null_curves": curves(view, values, response, counts),
        "null_random": _random_curves(plan, response, counts),
    }


def _random_curves(
    plan: shapley.Permutations, response: Response, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Insertion and deletion [2, M] in random orders: the very steps that the values were made from."""
    there, back = plan.paths(response.probability)
    return np.stack([there.mean(axis=0)[counts], back.mean(axis=0)[counts]])


def curves(view: View, values: Any, ends: Response, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Insertion and deletion [2, M], the highest cells first.

    Args:
        view: the image.
        values: [K] of its cells.
        ends: what the network says of nobody and everybody, first.
        counts: [M] of cells.
    """
    place = np.argsort(np.argsort(-values, kind="stable"))
    inner = counts[1:-1, None]
    response = view.ask(np.concatenate([place < inner, place >= inner]))
    (nothing, whole), (shown, hidden) = ends.probability[:2], np.split(response.probability, 2)
    return np.array([[nothing, *shown, whole], [whole, *hidden, nothing]])


def smallest_sets(views: Sequence[View], orders: Sequence[npt.NDArray[np.int64]]) -> list[Bools]:
    """For each image, cells [K] without which the class is another, and none of which can be spared; none if it never is.

    The highest cells are hidden, a few more each time, until the class changes; then each is shown again, the lowest
    first, where the class stays changed. All images take each step together.
    """
    settings, players = views[0].settings, len(orders[0])
    hidden = [np.zeros(players, bool) for _ in views]

    def changes(tried: Sequence[int], masks: Sequence[Bools]) -> list[bool]:
        batch = torch.cat([views[at].shown(~mask[None]) for at, mask in zip(tried, masks, strict=True)])
        classes = logits(views[0].network, batch.split(settings.batch_size), settings).argmax(dim=1).tolist()
        return [predicted != views[at].predicted for at, predicted in zip(tried, classes, strict=True)]

    open_ = list(range(len(views)))
    first = [0] * len(views)
    for count in curve_counts(players)[1:].tolist():
        masks = [np.isin(np.arange(players), orders[at][:count]) for at in open_]
        if not open_:
            break
        for at, mask, changed in zip(list(open_), masks, changes(open_, masks), strict=True):
            if changed:
                hidden[at], first[at] = mask, count
                open_.remove(at)
    left = [at for at in range(len(views)) if first[at]]
    while left:  # once more where a pass has spared some: what could not be spared before may be now
        before = {at: hidden[at].sum() for at in left}
        cells = {at: [cell for cell in orders[at][::-1].tolist() if hidden[at][cell]] for at in left}
        for turn in range(max(map(len, cells.values()))):
            tried = [at for at in left if turn < len(cells[at])]
            masks = [hidden[at].copy() for at in tried]
            for at, mask in zip(tried, masks, strict=True):
                mask[cells[at][turn]] = False
            for at, mask, changed in zip(tried, masks, changes(tried, masks), strict=True):
                if changed:
                    hidden[at] = mask
        left = [at for at in left if hidden[at].sum() < before[at]]
    return hidden
