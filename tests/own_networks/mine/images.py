"""A network for images, as one writes it without isotrain."""

import torch
from torch import nn


class SmallNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 8, pretrained: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=4),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, pixels):
        return self.head(self.features(pixels).amax((2, 3)))


def focal(logits, targets, gamma: float):
    """Lin et al. 2017."""
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    return ((1 - torch.exp(-losses)) ** gamma * losses).mean()
