"""Training on the CPU of a machine that has a GPU: nothing is copied for the GPU, and memory and messages are the CPU's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules import base
from trainers import distributed, reporting


@pytest.mark.parametrize("used", ["cpu", "cuda"])
def test_memory_is_pinned_for_a_gpu_that_is_used(used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(base, "DataLoader", lambda *_, **settings: made.append(settings))
    data = base.PreparedData(SimpleNamespace(root=None), 1, 1, 0, 0)  # type: ignore[arg-type]
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(used)))  # type: ignore[assignment]
    data._splits = {"val": []}  # type: ignore[dict-item]
    data._loader("val", None)  # type: ignore[arg-type]
    assert made[0]["pin_memory"] == (used == "cuda")


def test_peak_memory_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert reporting.peak_memory_mib() > 10


def test_processes_talk_without_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [distributed.choose_backend(name) for name in ("cpu", "auto", "gpu")] == ["gloo", "nccl", "nccl"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.choose_backend("auto") == "gloo"
