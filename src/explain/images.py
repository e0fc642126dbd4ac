"""Explanations of image classifications: which cells of a grid speak for the predicted class."""

import zlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from config.ranges import Range
from datamodules import augment
from explain import gradients, measures, shapley
from explain.model import Subject, arithmetic

FORMAT = 5  # part of the cache's key: raise it when what is found changes
TARGETS = ("log_probability", "probability", "logit")

Arrays = dict[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """What decides the values; conf/explain says what each does."""

    grid: Annotated[int, Range(low=2, high=32)]
    rounds: Annotated[int, Range(low=1, high=1000)]
    background: Literal["blur", "mean", "grey"]
    target: Literal["log_probability", "probability", "logit"]
    explainer: Literal["permutation", "gradient"]
    batch_size: int
    seed: int
    bfloat16: bool


@dataclass(frozen=True)
class Extent:
    """What else is explained; conf/explain says what each does."""

    pictures: Annotated[int, Range(low=0, high=100)]


@dataclass(frozen=True)
class Asked:
    """What a network says of one image while some cells are hidden.

    Attributes:
        target: [E] what is explained, as `Settings.target` says.
        probability: [E] of the class that it predicts of the whole image.
    """

    target: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]


class View:
    """One image, with some cells shown and the others replaced by a background that was made once."""

    def __init__(self, network: Any, image: Tensor, background: Tensor, predicted: int, settings: Settings) -> None:
        """Takes an image.

        Args:
            network: of timm.
            image: [3, H, W] normalised.
            background: [3, H, W].
            predicted: the class that the network sees in the whole image.
            settings: of the explanation.
        """
        self.network, self.predicted, self.settings = network, predicted, settings
        self.image, self.background = (each.permute(1, 2, 0).contiguous() for each in (image, background))
        self.cells = cells(image.shape[1], image.shape[2], settings.grid).to(image.device)

    def shown(self, masks: Bools) -> Tensor:
        """The images [E, 3, H, W] (channels last) with these cells [E, K] shown."""
        seen = torch.from_numpy(masks).to(self.cells.device)[:, self.cells]
        return torch.where(seen[..., None], self.image, self.background).permute(0, 3, 1, 2)

    def ask(self, masks: Bools) -> Asked:
        """What the network says with these cells [E, K] shown."""
        parts = [self.shown(part) for part in evenly(masks, self.settings.batch_size)]
        said = logits(self.network, parts, self.settings)
        likely = said.log_softmax(dim=1)[:, self.predicted].double()
        target = {"log_probability": likely, "probability": likely.exp(), "logit": said[:, self.predicted].double()}
        return Asked(target[self.settings.target].cpu().numpy(), likely.exp().cpu().numpy())


def evenly(masks: Bools, size: int) -> list[Bools]:
    """Rows in batches of at most `size`, all as large as can be: a small last one costs nearly as much as a whole."""
    return np.array_split(masks, -(-len(masks) // size))


def logits(network: Any, batches: Iterable[Tensor], settings: Settings) -> Tensor:
    """A network's logits, float32 [E, C], of batches [B, 3, H, W]."""
    found = []
    for batch in batches:
        with arithmetic(batch.device, settings.bfloat16):
            found.append(network(batch).float())
    return torch.cat(found)


def cells(height: int, width: int, grid: int) -> Tensor:
    """The cell of each pixel, int64 [H, W]: row by row."""
    rows, columns = (torch.arange(size) * grid // size for size in (height, width))
    return rows[:, None] * grid + columns


def inside(box: npt.NDArray[np.float32], height: int, width: int, grid: int) -> npt.NDArray[np.float64]:
    """The share of each cell [K] that lies in a box x0, y0, x1, y1 of outermost pixels inside; NaN without a box."""
    if np.isnan(box).any():
        return np.full(grid**2, np.nan)
    # Boxes may lie between pixels where the image was resized.
    across, down = (
        np.clip(np.minimum(np.arange(size) + 1, high + 1) - np.maximum(np.arange(size), low), 0, 1)
        for size, low, high in ((width, box[0], box[2]), (height, box[1], box[3]))
    )
    covered = down[:, None] * across
    of = cells(height, width, grid).numpy()
    return np.bincount(of.ravel(), covered.ravel()) / np.bincount(of.ravel())


def background(images: Tensor, kind: str) -> Tensor:
    """What stands where a cell is hidden, [B, 3, H, W]: made from each image once, before anything is hidden.

    Args:
        images: [B, 3, H, W] normalised.
        kind: "blur" (Gaussian, of an eighth of the side), "mean" (of each image's colours) or "grey" (the data's mean).
    """
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if kind == "grey":
        return torch.zeros_like(images)
    from torchvision.transforms.v2.functional import gaussian_blur

    side = min(images.shape[2:])
    width = 2 * min(side // 2 - 1, 3 * side // 8) + 1
    blurred: Tensor = gaussian_blur(images, [width, width], [side / 8, side / 8])
    return blurred


def explain(
    subject: Subject,
    null: Any,
    chosen: Sequence[int],
    against: Container[int],
    settings: Settings,
    progress: Callable[[], None],
) -> list[Arrays]:
    """Explains some images of the validation split.

    Args:
        subject: the model.
        null: the same architecture at random weights.
        chosen: positions of the images.
        against: those that the random weights are asked about too.
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
    index = np.asarray(chosen, np.int64)
    pixels = torch.from_numpy(data.val.gather(index)).to(subject.device)
    whole = augment.evaluation_batch(pixels, data.augment)
    behind = background(whole, settings.background)
    classes = [logits(network, [whole], settings).argmax(dim=1).tolist() for network in (subject.network, null)]
    views, found = [], []
    for number, (at, image, hidden) in enumerate(zip(index.tolist(), whole, behind, strict=True)):
        view = View(subject.network, image, hidden, classes[0][number], settings)
        # What needs random weights is asked of a part: a null is known well enough from fewer.
        strange = View(null, image, hidden, classes[1][number], settings) if at in against else None
        views.append(view)
        found.append(_one(data, view, strange, at))
        progress()
    opinions = gradients.integrated(subject.network, whole, behind, classes[0], views[0].cells, settings)
    for each, opinion in zip(found, opinions, strict=True):
        each["gradients"] = opinion
    orders = [np.argsort(-each["values"], kind="stable") for each in found]
    for each, hidden_cells in zip(found, _smallest(views, orders), strict=True):
        each["hidden"] = hidden_cells
    return found


def _one(data: Any, view: View, strange: View | None, at: int) -> Arrays:
    settings, players = view.settings, view.settings.grid**2
    name = zlib.crc32(data.names[at].encode("utf-8", "surrogateescape"))
    rounds = settings.rounds if settings.explainer == "permutation" else 1
    plans = [shapley.permutations(players, rounds, hash_of(settings.seed + half, name)) for half in range(2)]
    both = view.ask(np.concatenate([plan.masks for plan in plans]))
    asked = [Asked(*each) for each in zip(np.split(both.target, 2), np.split(both.probability, 2), strict=True)]
    if settings.explainer == "permutation":
        halves = np.stack([plan.shapley(each.target) for plan, each in zip(plans, asked, strict=True)])
    else:
        halves = np.stack([gradients.expected(view, settings.seed + half) for half in range(2)])
    values, counts = halves.mean(axis=0), steps(players)
    random = np.mean([_random_curves(plan, each, counts) for plan, each in zip(plans, asked, strict=True)], axis=0)
    height, width = view.image.shape[:2]
    covered = inside(data.boxes[at], height, width, settings.grid)
    return {
        "values": values,
        "halves": halves,
        "adds_up": np.array(settings.explainer == "permutation"),
        "ends": asked[0].target[:2],
        "counts": counts,
        "curves": _curves(view, values, asked[0], counts),
        "random": random,
        **_at_random(strange, hash_of(settings.seed, name), counts),
        "inside": covered,
        "label": np.array(int(data.val.labels[at])),
        "predicted": np.array(view.predicted),
        "confidence": asked[0].probability[1],
        "area": np.array(covered.mean()),
    }


def steps(players: int) -> npt.NDArray[np.int64]:
    """How many cells are shown, or hidden, along a curve: eighths of them, and the shares of `measures.SHARES`."""
    eighths = [round(players * eighth / 8) for eighth in range(9)]
    return np.unique([*eighths, *measures.counts(players)])


def _at_random(strange: View | None, seed: int, counts: npt.NDArray[np.int64]) -> Arrays:
    """Values [K] at random weights, and their curves and random ones [2, M]; NaN where they are not asked for."""
    if strange is None:
        return {}
    plan = shapley.permutations(strange.settings.grid**2, 1, seed)
    asked = strange.ask(plan.masks)
    values = plan.shapley(asked.target)
    curves = _curves(strange, values, asked, counts)
    return {"null": values, "null_curves": curves, "null_random": _random_curves(plan, asked, counts)}


def _random_curves(plan: shapley.Permutations, asked: Asked, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Insertion and deletion [2, M] in random orders: the very steps that the values were made from."""
    there, back = plan.paths(asked.probability)
    return np.stack([there.mean(axis=0)[counts], back.mean(axis=0)[counts]])


def _curves(view: View, values: Any, ends: Asked, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Insertion and deletion [2, M], the highest cells first."""
    place = np.argsort(np.argsort(-values, kind="stable"))
    inner = counts[1:-1, None]
    asked = view.ask(np.concatenate([place < inner, place >= inner]))
    (nothing, whole), (shown, hidden) = ends.probability[:2], np.split(asked.probability, 2)
    return np.array([[nothing, *shown, whole], [whole, *hidden, nothing]])


def hash_of(seed: int, name: int) -> int:
    """A seed for one example: its own, whatever else is explained."""
    return (seed << 32) | name


def _smallest(views: Sequence[View], orders: Sequence[npt.NDArray[np.int64]]) -> list[Bools]:
    """For each image, cells [K] without which the class is another, and none of which can be spared; none if it never is.

    The highest cells are hidden, a few more each time, until the class changes; then each is shown again, the lowest
    first, where the class stays changed. All images take each step together.
    """
    settings, players = views[0].settings, len(orders[0])
    hidden = [np.zeros(players, bool) for _ in views]

    def changes(asked: Sequence[int], masks: Sequence[Bools]) -> list[bool]:
        batch = torch.cat([views[at].shown(~mask[None]) for at, mask in zip(asked, masks, strict=True)])
        classes = logits(views[0].network, batch.split(settings.batch_size), settings).argmax(dim=1).tolist()
        return [found != views[at].predicted for at, found in zip(asked, classes, strict=True)]

    open_ = list(range(len(views)))
    first = [0] * len(views)
    for count in steps(players)[1:].tolist():
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
        rows = {at: [cell for cell in orders[at][::-1].tolist() if hidden[at][cell]] for at in left}
        for turn in range(max(map(len, rows.values()))):
            asked = [at for at in left if turn < len(rows[at])]
            tried = [hidden[at].copy() for at in asked]
            for at, mask in zip(asked, tried, strict=True):
                mask[rows[at][turn]] = False
            for at, mask, changed in zip(asked, tried, changes(asked, tried), strict=True):
                if changed:
                    hidden[at] = mask
        left = [at for at in left if hidden[at].sum() < before[at]]
    return hidden
