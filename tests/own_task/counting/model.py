"""A small network that counts."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainers.task import Task


def network(width):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 1))


def forward(model, pixels):
    """The count, float32 [B], of pixels [B, H, W]."""
    return model(pixels)[:, 0].float()


def load(folder, width):
    model = network(width)
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.eval()


class Counter(Task):
    def __init__(self, data, optim, pretrained=None, width: int = 8):
        super().__init__(optim)
        self.data, self.width = data, width
        if pretrained:
            self.model = load(pretrained, width)
        else:
            self.model = network(width)
            self.model(torch.zeros(1, data.side, data.side))

    def on_fit_start(self):
        self.train()

    def training_step(self, batch, _):
        return nn.functional.mse_loss(forward(self.model, batch["pixels"]), batch["labels"])

    def validation_step(self, batch, _):
        self.collected.append((batch["index"].cpu(), batch["labels"].cpu(), forward(self.model, batch["pixels"]).cpu()))

    def score(self, collected):
        index, labels, counts = (torch.cat(column) for column in zip(*collected, strict=True))
        order = index.argsort()
        labels, counts = labels[order], counts[order]
        off = (counts - labels).double()
        metrics = {"val_loss": float((off**2).mean()), "val_mae": float(off.abs().mean())}
        rows = [
            {"id": f"dots-{number}", "label": float(label), "prediction": float(count)}
            for number, (label, count) in enumerate(zip(labels, counts, strict=True))
        ]
        return metrics, rows, {}

    def export(self, folder):
        save_file(
            {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()},
            f"{folder}/model.safetensors",
        )
        Path(folder, "config.json").write_text(json.dumps({"width": self.width}))
