"""Parameter groups, learning-rate schedules, and the optimiser that a configuration asks for."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks|block)\.(\d+)\.")
_FIRST = re.compile(r"embed|pos_embed|cls_token|patch_embed|^(?:model\.)?(?:stem|conv1|bn1)\.")


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups without weight decay on biases and norms, and with layer-wise learning-rate decay.

    A layer that lies k layers below the top one learns at `lr * layer_decay**k`; what is no numbered layer is the head
    (above the top), or, by its name, an embedding or a stem (below the bottom). The rule is that of ELECTRA
    (Clark et al. 2020) and BEiT (Bao et al. 2021).

    Args:
        named: parameters with their names; those that need no gradient are left out.
        lr: the head's learning rate.
        weight_decay: of parameters with two or more dimensions.
        layer_decay: factor from a layer to the one below it, in (0, 1].
    """
    parameters = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    depths = {name: _depth(name) for name, _ in parameters}
    top = max((depth for depth in depths.values() if depth is not None), default=0) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        depth = depths[name]
        height = top if depth is None else depth
        decays = parameter.ndim >= 2
        scale = layer_decay ** (top - height)
        group = groups.setdefault(
            (height, decays), {"params": [], "lr": lr * scale, "weight_decay": weight_decay if decays else 0.0}
        )
        group["params"].append(parameter)
    if layer_decay == 1.0:  # two groups: fewer launches for the same arithmetic
        merged: dict[bool, dict[str, Any]] = {}
        for (_, decays), group in groups.items():
            merged.setdefault(decays, {**group, "params": []})["params"] += group["params"]
        return list(merged.values())
    return list(groups.values())


def _depth(name: str) -> int | None:
    """0 for embeddings and stems, from 1 for layers or stages, None for the head."""
    if found := re.search(r"(?:^|\.)layer(\d)\.", name):  # ResNets count their stages from 1
        return int(found[1])
    if found := re.search(r"(?:^|\.)stages\.(\d)\.", name):
        return int(found[1]) + 1
    if found := _LAYER.search(name):
        return int(found[1]) + 1
    return 0 if _FIRST.search(name) else None


def schedule_factor(schedule: str, warmup: int, horizon: int, step: int) -> float:
    """The learning rate at a step, as a share of its peak.

    Rises linearly over `warmup` steps, then falls to 0 at `horizon`: linearly, by half a cosine, or not at all.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, horizon - warmup))
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def build_scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, warmup: float, horizon: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as torch's scheduler, to be stepped after every optimiser step.

    Args:
        optimizer: whose learning rates it scales.
        schedule: linear, cosine or constant.
        warmup: below 1 a share of the horizon, otherwise steps.
        horizon: the step at which the schedule ends.
    """
    steps = round(warmup * horizon) if warmup < 1 else int(warmup)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(schedule, steps, horizon, step))
