"""Networks that isotrain cannot train."""

import lightning.pytorch as pl
import torch
from torch import nn

from mine.images import SmallNet


class OtherClasses(SmallNet):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes + 1)


class OtherInputs(nn.Module):
    def __init__(self, vocab_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab_size, num_classes)

    def forward(self, tokens):
        return self.embedding(tokens)


class OtherProtocol(pl.LightningModule):
    def __init__(self, width: int = 8) -> None:
        super().__init__()


def no_network(num_classes: int):
    return {"classes": num_classes}


def losses(logits, targets):
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
