"""Attributions of image classifications from gradients: a second opinion, and a fast option."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from explain.image_views import Settings, View
from trainers import inference

STEPS = 8  # of the integral
SAMPLES = 32  # of the expectation
Values = npt.NDArray[np.float64]


class _Target(nn.Module):
    """A classifier's explained value: log-probabilities, [B, C], or of one class, [B, 1]."""

    def __init__(self, network: Any, predicted: int | None = None) -> None:
        super().__init__()
        self.network, self.predicted = network, predicted

    def forward(self, images: Tensor) -> Tensor:
        likely = inference.image_logits(self.network, images).log_softmax(dim=1)
        return likely if self.predicted is None else likely[:, self.predicted, None]


def integrated_gradients(
    network: Any, whole: Tensor, behind: Tensor, predicted: list[int], cells: Tensor, settings: Settings
) -> list[Values]:
    """Integrated gradients (Sundararajan et al. 2017) from backgrounds to images, added up by cell, [K] for each; captum's.

    Args:
        network: of timm.
        whole: images [B, 3, H, W], normalised.
        behind: their backgrounds.
        predicted: their classes.
        cells: [H, W], the cell of each pixel.
        settings: of the explanation.
    """
    from captum.attr import IntegratedGradients

    classes = torch.tensor(predicted, device=whole.device)
    with torch.autocast(whole.device.type, torch.bfloat16, enabled=settings.bfloat16):
        values = IntegratedGradients(_Target(network)).attribute(
            whole, baselines=behind, target=classes, n_steps=STEPS, internal_batch_size=settings.batch_size
        )
    return [sum_by_cell(row, cells, settings.grid) for row in values]


def expected_gradients(view: View, seed: int) -> Values:
    """Expected gradients (Erion et al. 2021) with the background as reference, added up by cell [K]; shap's.

    They do not add up to the prediction: `SAMPLES` are too few for that.
    """
    import shap

    image, behind = (pixels.permute(2, 0, 1)[None].contiguous() for pixels in (view.image, view.background))
    explainer = shap.GradientExplainer(_Target(view.network, view.predicted), behind)
    values = explainer.shap_values(image, nsamples=SAMPLES, rseed=seed % 2**32)
    return sum_by_cell(
        torch.from_numpy(np.asarray(values, np.float64).reshape(image.shape[1:])), view.cells, view.settings.grid
    )


def sum_by_cell(values: Tensor, cells: Tensor, grid: int) -> Values:
    """Pixels' values [3, H, W] added up by cell, [K]."""
    sums = torch.zeros(grid**2, dtype=torch.float64)
    return sums.index_add_(0, cells.cpu().flatten(), values.sum(dim=0).double().cpu().flatten()).numpy()
