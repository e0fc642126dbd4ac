"""Training ResNet-18 on 64-pixel images, end to end: images per second against timm's own recipe.

`python -m benchmarks.images_training --data <unpacked tiny-imagenet-200>`; without --data, generated shapes. The peer is
what timm's train.py does with its defaults (create_dataset, create_loader with two workers, its prefetcher, random
resized crop and flip, SGD), without colour jitter. Ours goes through the same `fit` as `train.py`, with the same
augmentation. Every contestant is a fresh process with the same weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.recipe import rates

BATCH, SIZE, SKIP, SEED = 64, 64, 5, 0
# Both clocks at the end of each step, and the seconds that each step waited for its batch.
Clocks = tuple[list[tuple[float, float]], list[float]]
CONTESTANTS = {
    ("ours", "fp32"): "isotrain",
    ("ours", "bf16"): "isotrain",
    ("timm", "fp32"): "timm's recipe as it comes",
    ("timm", "bf16"): "timm's recipe, --amp --amp-dtype bfloat16 --channels-last",
}


def main() -> None:
    """Prints the table, or, as `--worker`, measures one contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an unpacked tiny-imagenet-200")
    parser.add_argument("--steps", type=int, default=60, help=f"of which the first {SKIP} do not count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        who, precision = options.worker
        ends, waits = (_ours if who == "ours" else _timm)(options.folder, options.data, precision, options.steps)
        waiting = sum(waits[SKIP:]) / (ends[-1][0] - ends[SKIP - 1][0])
        print(json.dumps({**rates(ends, SKIP, BATCH), "waiting": waiting}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or _shapes(folder)
        environment = {"OMP_NUM_THREADS": str(options.threads), "ISOTRAIN_CACHE": str(folder / "cache")}
        given = ["--folder", str(folder), "--data", str(data), "--steps", str(options.steps)]
        waiting: dict[tuple[str, str], list[float]] = {each: [] for each in CONTESTANTS}

        def run(contestant: tuple[str, str]) -> float:
            result = measure.fresh("benchmarks.images_training", "--worker", *contestant, *given, env=environment)
            waiting[contestant].append(100 * float(result["waiting"]))
            return float(result["rate"])

        _weights(folder, _classes(data))
        run(("ours", "fp32"))  # fills the cache
        waiting["ours", "fp32"].clear()
        found = measure.alternate({each: functools.partial(run, each) for each in CONTESTANTS}, options.repeats)
    rows = []
    for (who, precision), title in CONTESTANTS.items():
        sample = found[who, precision]
        over = [measure.ratio(sample, found["timm", p]).text(2) if who == "ours" else "" for p in (precision, "fp32")]
        share = measure.Sample(tuple(waiting[who, precision]))
        rows.append([title, precision, sample.text(0), *over, share.text(1)])
    measure.report(
        "Training, images",
        [
            "contestant",
            "precision",
            "images/s",
            "over timm at this precision",
            "over timm as it comes",
            "% of a step for data",
        ],
        rows,
        f"{'Tiny ImageNet (subset)' if options.data else 'Generated shapes'}, ResNet-18 with its standard stem, {SIZE} "
        f"pixels, batches of {BATCH}, {options.steps - SKIP} steps, {options.threads} threads; medians of "
        f"{options.repeats} (smallest to largest). Required: 1.35 over timm as it comes, 1.1 at equal precision.",
    )


def _timm(folder: Path, data: Path, precision: str, steps: int) -> Clocks:
    """What timm's train.py does for one epoch."""
    import torch
    from timm import create_model
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter

    torch.manual_seed(SEED)
    fast = precision == "bf16"
    device = torch.device("cpu")
    model = create_model("resnet18", num_classes=_classes(data))
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    model.to(memory_format=torch.channels_last if fast else torch.contiguous_format)
    loader = create_loader(
        create_dataset("", root=str(data), split="train"),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=True,
        no_aug=False,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.0,
        interpolation="random",
        num_workers=2,
        device=device,
    )
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05, momentum=0.9, weight_decay=2e-5)
    schedule, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=1, updates_per_epoch=len(loader))
    loss_function, losses = torch.nn.CrossEntropyLoss(), AverageMeter()
    ends: list[tuple[float, float]] = []
    waits: list[float] = []
    model.train()
    before = time.time()
    for step, (images, labels) in enumerate(loader):
        waits.append(time.time() - before)
        if fast:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = loss_function(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        schedule.step_update(num_updates=step, metric=losses.avg)
        before = time.time()
        ends.append((before, time.process_time()))
        if len(ends) == steps:
            break
    return ends, waits


def _ours(folder: Path, data: Path, precision: str, steps: int) -> Clocks:
    """What train.py does between its record and its export; augmentation, part of our step, counts as waiting."""
    import torch

    from config.compose import compose
    from datamodules.images import augmentation
    from trainers import hardware
    from trainers.build import build
    from trainers.fit import fit

    hardware.configure_cpu(int(os.environ["OMP_NUM_THREADS"]))
    overrides = [
        *[
            "model=resnet18",
            "model.stem=standard",
            "data=tiny_imagenet",
            f"data.path={data}",
            f"data.batch_size={BATCH}",
        ],
        *[
            "data.augment.random_resized_crop=[0.08,1.0]",
            "data.augment.crop_padding=0",
            "data.augment.label_smoothing=0",
        ],
        *["optim=sgd", "optim.lr=0.05", "optim.weight_decay=2e-5", "optim.warmup=0", "trainer.gradient_clip_val=null"],
        *[f"trainer.max_steps={steps}", "trainer.limit_val_batches=0", "trainer.accelerator=cpu"],
        f"trainer.precision={'bf16-mixed' if precision == 'bf16' else '32-true'}",
    ]
    config = compose(overrides)
    module = build(config, "data")
    module.prepare_data()
    module.setup("fit")
    model = build(config, "model", data=module, optim=config.optim)
    model.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    ends: list[tuple[float, float]] = []
    waits: list[float] = []
    plain = augmentation.augment_batch

    def start(*_: Any) -> None:
        waits.append(time.time() - ends[-1][0] if ends else 0.0)

    def train_batch(*given: Any) -> Any:
        before = time.time()
        made = plain(*given)
        waits[-1] += time.time() - before
        return made

    def end(*_: Any) -> None:
        ends.append((time.time(), time.process_time()))

    model.on_train_batch_start, model.on_train_batch_end, augmentation.augment_batch = start, end, train_batch
    with tempfile.TemporaryDirectory() as name:
        fit(config, module, model, [], Path(name))
    return ends, waits


def _classes(data: Path) -> int:
    return sum(each.is_dir() for each in (data / "train").iterdir())


def _weights(folder: Path, classes: int) -> None:
    import torch
    from timm import create_model

    torch.manual_seed(SEED)
    torch.save(create_model("resnet18", num_classes=classes).state_dict(), folder / "weights.pt")


def _shapes(folder: Path) -> Path:
    from datamodules.samples import shapes

    shapes.write(folder / "shapes", seed=SEED, train=4000, val=100, classes=12)
    return folder / "shapes"


if __name__ == "__main__":
    main()
