"""Attributions of a text's parts from gradients: a second opinion."""

import numpy as np
import torch
from torch import Tensor

from explain.tokens import Floats, Ints, View

STEPS = 8  # of the integral


def integrated_gradients(view: View, group: Ints, players: int) -> Floats:
    """Integrated gradients (Sundararajan et al. 2017) from hidden tokens to the words themselves, over embeddings; captum's.

    Args:
        view: the input.
        group: [L] of each token; -1 stays as it is.
        players: groups.

    Returns:
        [players] added up by group.
    """
    from captum.attr import IntegratedGradients

    ids = torch.from_numpy(view.ids).to(view.device)[None]
    hidden = ids.masked_fill(torch.from_numpy(group >= 0).to(view.device), view.mask_id)
    embed = view.network.get_input_embeddings()

    def target(embeddings: Tensor) -> Tensor:
        return view.target(view.outputs(view.batch(inputs_embeds=embeddings)))

    with torch.autocast(view.device.type, torch.bfloat16, enabled=view.settings.bfloat16):
        values = IntegratedGradients(target).attribute(
            embed(ids), baselines=embed(hidden), n_steps=STEPS, internal_batch_size=view.settings.batch_size
        )
    sums = np.zeros(players)
    np.add.at(sums, group[group >= 0], values[0].sum(dim=1).double().cpu().numpy()[group >= 0])
    return sums
