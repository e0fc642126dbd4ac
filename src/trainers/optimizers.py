"""Parameter groups and learning-rate schedules."""

import contextlib
import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from config.errors import first_line, input_errors

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks|block)\.(\d+)\.")
_FIRST = re.compile(r"embed|pos_embed|cls_token|patch_embed|^(?:model\.)?(?:stem|conv1|bn1)\.")


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Group parameters: no weight decay on biases and norms, layer-wise learning-rate decay.

    A layer k layers below the top one has the learning rate `lr * layer_decay**k`. A parameter of no numbered layer
    belongs to the head (above the top) or, by its name, to an embedding or a stem (below the bottom). The rule is that of
    ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2021).

    Args:
        named: parameters with their names; those without gradient are ignored.
        lr: learning rate of the head.
        weight_decay: weight decay of parameters with two or more dimensions.
        layer_decay: factor from a layer to the one below it, in (0, 1].

    Returns:
        Parameter groups of a torch optimiser.
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
    if layer_decay == 1.0:  # two groups need fewer kernel launches; the order of parameters is that of checkpoints
        merged: dict[bool, dict[str, Any]] = {}
        for (_, decays), group in groups.items():
            merged.setdefault(decays, {**group, "params": []})["params"] += group["params"]
        return list(merged.values())
    return list(groups.values())


def _depth(name: str) -> int | None:
    """0 for embeddings and stems, from 1 for layers or stages, None for the head."""
    if match := re.search(r"(?:^|\.)layer(\d)\.", name):  # ResNets count their stages from 1
        return int(match[1])
    if match := re.search(r"(?:^|\.)stages\.(\d)\.", name) or _LAYER.search(name):
        return int(match[1]) + 1
    return 0 if _FIRST.search(name) else None


def schedule_factor(schedule: str, warmup: int, horizon: int, step: int) -> float:
    """Return the learning rate at a step, as a fraction of its peak.

    It rises linearly over `warmup` steps, then falls to 0 at `horizon`: linearly, by half a cosine, or not at all.

    Args:
        schedule: linear, cosine or constant.
        warmup: steps of the warm-up.
        horizon: the step at which the schedule ends.
        step: the optimiser step.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, horizon - warmup))
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def check_optimizer(config: DictConfig) -> None:
    """Make one step with the optimiser on a small parameter, before data is prepared: torch checks values only then.

    Raises:
        InputError: the optimiser refuses an argument.
    """
    optim = config.optim
    if optim.lr is None:  # of a baseline, which is not optimised
        return
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros_like(parameter)
    with optimizer_errors():
        build_optimizer = instantiate(optim.optimizer, _partial_=True, _convert_="all")
        groups = [{"params": [parameter], "lr": optim.lr, "weight_decay": optim.weight_decay}]
        build_optimizer(groups, lr=optim.lr).step(lambda: torch.zeros(()))


def optimizer_errors() -> contextlib.AbstractContextManager[None]:
    """Return a context that turns errors of an optimiser into an InputError."""
    return input_errors(lambda error: f"optim.optimizer: {first_line(error.__cause__ or error)}")


def build_scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, warmup: float, horizon: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build torch's scheduler, to be stepped after every optimiser step.

    Args:
        optimizer: optimiser whose learning rates are scaled.
        schedule: linear, cosine or constant.
        warmup: below 1 a fraction of the horizon, otherwise steps.
        horizon: the step at which the schedule ends.
    """
    steps = round(warmup * horizon) if warmup < 1 else int(warmup)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(schedule, steps, horizon, step))
