"""Attributions from gradients: a second opinion, and a fast option."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from explain import images, questions

STEPS = 8  # of the integral
SAMPLES = 32  # of the expectation
Values = npt.NDArray[np.float64]


class _Target(nn.Module):
    """A classifier's explained value: log-probabilities, [B, C], or of one class, [B, 1]."""

    def __init__(self, network: Any, predicted: int | None = None) -> None:
        super().__init__()
        self.network, self.predicted = network, predicted

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.network(images).float().log_softmax(dim=1)
        return said if self.predicted is None else said[:, self.predicted, None]


def integrated(
    network: Any, whole: Tensor, behind: Tensor, predicted: list[int], cells: Tensor, settings: "images.Settings"
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
        found = IntegratedGradients(_Target(network)).attribute(
            whole, baselines=behind, target=classes, n_steps=STEPS, internal_batch_size=settings.batch_size
        )
    return [by_cell(each, cells, settings.grid) for each in found]


def expected(view: "images.View", seed: int) -> Values:
    """Expected gradients (Erion et al. 2021) with the background as reference, added up by cell [K]; shap's.

    They do not add up to the prediction: `SAMPLES` are too few for that.
    """
    import shap

    image, behind = (each.permute(2, 0, 1)[None].contiguous() for each in (view.image, view.background))
    explainer = shap.GradientExplainer(_Target(view.network, view.predicted), behind)
    values = explainer.shap_values(image, nsamples=SAMPLES, rseed=seed % 2**32)
    return by_cell(
        torch.from_numpy(np.asarray(values, np.float64).reshape(image.shape[1:])), view.cells, view.settings.grid
    )


def by_cell(values: Tensor, cells: Tensor, grid: int) -> Values:
    """Pixels' values [3, H, W] added up by cell, [K]."""
    found = torch.zeros(grid**2, dtype=torch.float64)
    return found.index_add_(0, cells.cpu().flatten(), values.sum(dim=0).double().cpu().flatten()).numpy()


def of_groups(view: "questions.View", group: npt.NDArray[np.int64], players: int) -> Values:
    """Integrated gradients from hidden tokens to the words themselves, over embeddings, added up by group [players]; captum's.

    Args:
        view: the window.
        group: [L] of each token; -1 stays as it is.
        players: groups.
    """
    from captum.attr import IntegratedGradients

    window = view.window
    ids = torch.from_numpy(window.ids).to(view.device)[None]
    hidden = ids.masked_fill(torch.from_numpy(group >= 0).to(view.device), view.mask_id)
    embed = view.network.get_input_embeddings()

    def target(embeddings: Tensor) -> Tensor:
        inputs: dict[str, Any] = {
            "attention_mask": torch.ones(embeddings.shape[:2], dtype=torch.int64, device=view.device)
        }
        if window.types is not None:
            inputs["token_type_ids"] = torch.from_numpy(window.types).to(view.device).expand(len(embeddings), -1)
        output = view.network(inputs_embeds=embeddings, **inputs)
        start, end = output.start_logits.float().log_softmax(1), output.end_logits.float().log_softmax(1)
        return torch.add(start[:, window.start], end[:, window.end])

    with torch.autocast(view.device.type, torch.bfloat16, enabled=view.settings.bfloat16):
        values = IntegratedGradients(target).attribute(
            embed(ids), baselines=embed(hidden), n_steps=STEPS, internal_batch_size=view.settings.batch_size
        )
    found = np.zeros(players)
    np.add.at(found, group[group >= 0], values[0].sum(dim=1).double().cpu().numpy()[group >= 0])
    return found
