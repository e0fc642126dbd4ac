"""A classifier's response to an image while some cells of a grid are hidden."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from config.ranges import Range
from explain import shapley
from explain.model import inference_context
from trainers import inference

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """Settings that the values depend on; conf/explain describes them."""

    grid: Annotated[int, Range(low=2, high=32)]
    rounds: Annotated[int, Range(low=1, high=1000)]
    background: Literal["blur", "mean", "grey"]
    target: Literal["log_probability", "probability", "logit"]
    explainer: Literal["regression", "permutation", "gradient"]
    batch_size: int
    seed: int
    bfloat16: bool


@dataclass(frozen=True)
class ExtraSettings:
    """Settings of the report; conf/explain describes them."""

    pictures: Annotated[int, Range(low=0, high=100)]


@dataclass(frozen=True)
class Response:
    """The response of a network to one image in which cells are hidden.

    Attributes:
        target: [E] the explained value, by `Settings.target`.
        probability: [E] of the class that is predicted for the whole image.
    """

    target: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]


class View:
    """One image in which cells can be replaced by a background."""

    def __init__(self, network: Any, image: Tensor, background: Tensor, predicted: int, settings: Settings) -> None:
        """Initialise the view.

        Args:
            network: of timm.
            image: [3, H, W] normalised.
            background: [3, H, W].
            predicted: class that the network predicts for the whole image.
            settings: of the explanation.
        """
        self.network, self.predicted, self.settings = network, predicted, settings
        self.image, self.background = (pixels.permute(1, 2, 0).contiguous() for pixels in (image, background))
        self.cells = cell_map(image.shape[1], image.shape[2], settings.grid).to(image.device)

    def render(self, masks: Bools) -> Tensor:
        """Return the images [E, 3, H, W] (channels last) with the cells of masks [E, K] visible."""
        visible = torch.from_numpy(masks).to(self.cells.device)[:, self.cells]
        return torch.where(visible[..., None], self.image, self.background).permute(0, 3, 1, 2)

    def evaluate(self, masks: Bools) -> Response:
        """Return the response with the cells of masks [E, K] visible."""
        batches = [self.render(batch) for batch in shapley.split_batches(masks, self.settings.batch_size)]
        scores = logits(self.network, batches, self.settings)
        likely = scores.log_softmax(dim=1)[:, self.predicted].double()
        target = {"log_probability": likely, "probability": likely.exp(), "logit": scores[:, self.predicted].double()}
        return Response(target[self.settings.target].cpu().numpy(), likely.exp().cpu().numpy())


def logits(network: Any, batches: Iterable[Tensor], settings: Settings) -> Tensor:
    """Return a network's logits, float32 [E, C], of batches [B, 3, H, W]."""
    parts = []
    for batch in batches:
        with inference_context(batch.device, settings.bfloat16):
            parts.append(inference.image_logits(network, batch))
    return torch.cat(parts)


def cell_map(height: int, width: int, grid: int) -> Tensor:
    """Return the cell of each pixel, int64 [H, W], counted row by row."""
    rows, columns = (torch.arange(size) * grid // size for size in (height, width))
    return rows[:, None] * grid + columns


def box_coverage(box: npt.NDArray[np.float32], height: int, width: int, grid: int) -> npt.NDArray[np.float64]:
    """Return the share of each cell [K] in a box x0, y0, x1, y1 of outermost pixels inside; NaN without a box."""
    if np.isnan(box).any():
        return np.full(grid**2, np.nan)
    # Boxes can lie between pixels after the image was resized.
    across, down = (
        np.clip(np.minimum(np.arange(size) + 1, high + 1) - np.maximum(np.arange(size), low), 0, 1)
        for size, low, high in ((width, box[0], box[2]), (height, box[1], box[3]))
    )
    covered = down[:, None] * across
    cell = cell_map(height, width, grid).numpy().ravel()
    return np.bincount(cell, covered.ravel()) / np.bincount(cell)


def background(images: Tensor, kind: str) -> Tensor:
    """Return what replaces hidden cells, [B, 3, H, W].

    Args:
        images: [B, 3, H, W] normalised.
        kind: "blur" (Gaussian, sigma an eighth of the side), "mean" (of each image's colours) or "grey" (the data's mean).
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
