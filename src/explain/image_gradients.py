"""Gradient attributions of image classifications: for the measure `agreement`, and as a fast explainer."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from config.errors import InputError
from explain.image_views import Settings, View
from trainers import inference
from trainers.onnx_network import is_onnx_network

STEPS = 8  # of the integral
SAMPLES = 32  # of the expectation
Values = npt.NDArray[np.float64]


class _LogProbability(nn.Module):
    """The log-probabilities of a classifier, [B, C], or of one class, [B, 1]."""

    def __init__(self, network: Any, predicted: int | None = None) -> None:
        super().__init__()
        self.network, self.predicted = network, predicted

    def forward(self, images: Tensor) -> Tensor:
        values = inference.image_logits(self.network, images).log_softmax(dim=1)
        return values if self.predicted is None else values[:, self.predicted, None]


def integrated_gradients(
    network: Any, images: Tensor, backgrounds: Tensor, predicted: list[int], cells: Tensor, settings: Settings
) -> list[Values]:
    """Compute captum's integrated gradients (Sundararajan et al. 2017) from backgrounds to images, summed by cell.

    Args:
        network: of timm.
        images: [B, 3, H, W], normalised.
        backgrounds: of the images.
        predicted: classes of the images.
        cells: [H, W], the cell of each pixel.
        settings: of the explanation.

    Returns:
        [K] for each image; NaN for a network in ONNX, which has no gradients.
    """
    if is_onnx_network(network):
        return [np.full(settings.grid**2, np.nan) for _ in images]
    from captum.attr import IntegratedGradients

    classes = torch.tensor(predicted, device=images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.bfloat16):
        values = IntegratedGradients(_LogProbability(network)).attribute(
            images, baselines=backgrounds, target=classes, n_steps=STEPS, internal_batch_size=settings.batch_size
        )
    return [sum_by_cell(row, cells, settings.grid) for row in values]


def expected_gradients(view: View, seed: int) -> Values:
    """Compute shap's expected gradients (Erion et al. 2021) with the background as reference, summed by cell [K].

    `SAMPLES` are too few for the values to add up to the prediction.
    """
    if is_onnx_network(view.network):
        raise InputError(
            "explainer=gradient needs gradients, which a model in ONNX does not have: use explainer=regression"
        )
    import shap

    image, background = (pixels.permute(2, 0, 1)[None].contiguous() for pixels in (view.image, view.background))
    explainer = shap.GradientExplainer(_LogProbability(view.network, view.predicted), background)
    values = explainer.shap_values(image, nsamples=SAMPLES, rseed=seed % 2**32)
    pixels = torch.from_numpy(np.asarray(values, np.float64).reshape(image.shape[1:]))
    return sum_by_cell(pixels, view.cells, view.settings.grid)


def sum_by_cell(values: Tensor, cells: Tensor, grid: int) -> Values:
    """Sum values of pixels [3, H, W] by cell, [K]."""
    sums = torch.zeros(grid**2, dtype=torch.float64)
    return sums.index_add_(0, cells.cpu().flatten(), values.sum(dim=0).double().cpu().flatten()).numpy()
