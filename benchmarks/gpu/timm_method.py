"""timm's train.py with `--amp --amp-dtype bfloat16 --channels-last`, and a worker for each core."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.gpu import data as files
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.workloads import Workload

LOG_STEPS = 50  # between two losses that are read, as train.py's --log-interval


def train(workload: Workload, compiled: bool, folder: Path, images: Path | None, clock: Clock) -> None:
    """Train until the clock ends it."""
    import torch
    from timm import create_model
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    root = files.image_folder(workload, folder, images)
    model = create_model(workload.network, num_classes=files.classes(root), **files.network_arguments(workload))
    model.load_state_dict(torch.load(files.weights(workload, folder), weights_only=True))
    model.to(device=device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05, momentum=0.9, weight_decay=2e-5)
    loader = create_loader(
        create_dataset("", root=str(root), split="train"),
        input_size=(3, workload.size, workload.size),
        batch_size=workload.batch,
        is_training=True,
        use_prefetcher=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.0,
        interpolation="random",
        num_workers=min(len(os.sched_getaffinity(0)), 16),
        device=device,
    )
    schedule, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=100, updates_per_epoch=len(loader))
    loss_function = torch.nn.CrossEntropyLoss()
    network = torch.compile(model, backend="inductor") if compiled else model
    network.train()
    step = 0
    while True:
        for images_, labels in loader:
            batch = images_.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_function(network(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % LOG_STEPS == 0:
                loss.item()
            schedule.step_update(num_updates=step)
            clock.step()
