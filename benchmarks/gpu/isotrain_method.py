"""isotrain: what train.py does between its record and its export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu import data as files
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.workloads import Workload


def train(
    workload: Workload, compile_: str, folder: Path, images: Path | None, clock: Clock, overrides: list[str]
) -> None:
    """Train until the clock ends it; `compile_` is the value of trainer.compile."""
    import torch
    from omegaconf import OmegaConf

    from config.compose import compose
    from trainers import hardware
    from trainers.build import build
    from trainers.fit import fit

    config = compose([*_overrides(workload, compile_, folder, images), *overrides])
    OmegaConf.resolve(config)
    hardware.configure_cpu(None)
    torch.manual_seed(config.seed)
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    model = build(config, "model", data=data, optim=config.optim)
    if workload.kind == "images":
        model.model.load_state_dict(torch.load(files.weights(workload, folder), weights_only=True))

    def end(outputs: Any, *_: Any) -> None:
        clock.step()

    model.on_train_batch_end = end
    with tempfile.TemporaryDirectory() as name:
        fit(config, data, model, [], Path(name))


def lengths(workload: Workload, folder: Path) -> Any:
    """Tokens of each training example, [N]; of images None."""
    if workload.kind == "images":
        return None
    from config.compose import compose
    from trainers.build import build

    data = build(compose(_overrides(workload, "false", folder, None)), "data")
    data.prepare_data()
    data.setup("fit")
    return (data.train_windows if workload.kind == "questions" else data.train).lengths


def prepare(workload: Workload, folder: Path, images: Path | None) -> None:
    """Fill isotrain's cache."""
    from config.compose import compose
    from trainers.build import build

    build(compose(_overrides(workload, "false", folder, images)), "data").prepare_data()


def _overrides(workload: Workload, compile_: str, folder: Path, images: Path | None) -> list[str]:
    common = [
        f"data.batch_size={workload.batch}",
        "trainer.max_epochs=100000",
        "trainer.limit_val_batches=0",
        "trainer.checkpoint_minutes=null",
        "trainer.precision=bf16-mixed",
        f"trainer.compile={compile_}",
        "optim.warmup=0",
    ]
    if workload.kind == "images":
        return [
            *common,
            *["model=resnet18", f"model.name={workload.network}", "model.pretrained=false", "model.stem=standard"],
            *["data=tiny_imagenet", f"data.path={files.image_folder(workload, folder, images)}"],
            f"data.image_size={workload.size}",
            # As timm's recipe.
            *["data.augment.random_resized_crop=[0.08,1.0]", "data.augment.crop_padding=0"],
            *["data.augment.label_smoothing=0", "trainer.gradient_clip_val=null"],
            *["optim=sgd", "optim.lr=0.05", "optim.weight_decay=2e-5"],
        ]
    train_file, val_file = files.texts(workload, folder)
    weights = files.weights(workload, folder)
    chosen = {"questions": ["model=bert", "data=squad"], "texts": ["model=bert_classifier", "data=text_folder"]}
    return [
        *common,
        *chosen[workload.kind],
        *[f"model.pretrained={weights}", f"data.train_file={train_file}", f"data.val_file={val_file}"],
        f"data.max_length={workload.size}",
        *([f"data.stride={workload.size // 3}"] if workload.kind == "questions" else []),
        *([f"data.max_query_length={workload.size // 6}"] if workload.kind == "questions" else []),
        "optim.lr=3e-5",
    ]
