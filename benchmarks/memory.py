"""Peak memory at 1 and 8 times the training data, while preparing it and over the same number of training steps.

`python -m benchmarks.memory --data ../shared/data`. Anonymous memory (RssAnon) is what a process needs for itself: pages
of memory-mapped caches belong to the system, which drops them when it likes; they are in the last column. Small models,
so that the data would show.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.question_answering import overrides, prepare

SCALES = (1, 8)


def main() -> None:
    """Prints the table, or, as `--worker`, measures one phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad/ and tiny-imagenet-200-subset.tar")
    parser.add_argument("--questions", type=int, default=900, help="at 1 times the data")
    parser.add_argument("--images", type=int, default=2400, help="at 1 times the data")
    parser.add_argument("--tasks", nargs="*", default=["question answering", "images"])
    parser.add_argument("--worker", choices=("prepare", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--overrides", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _worker(options.worker, options.overrides)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"ISOTRAIN_CACHE": str(folder / "cache")}
        images = _images(folder, options.data, options.images * SCALES[-1])
        for task in options.tasks:
            for scale in SCALES:
                if task == "images":
                    given = _image_overrides(images, options.images * scale)
                    count = options.images * scale
                else:
                    count = options.questions * scale
                    (folder / str(scale)).mkdir()
                    prepare(folder / str(scale), options.data, count, layers=2, width=128)
                    given = overrides(folder / str(scale), "fp32", 0.1)
                # As many steps at each scale: each new width of a batch has kernels of its own.
                given += [f"trainer.max_epochs={SCALES[-1] // scale}"]
                for phase in ("prepare", "train"):
                    found = measure.fresh(
                        "benchmarks.memory", "--worker", phase, "--overrides", *given, env=environment
                    )
                    measure.progress(f"{task} x{scale} {phase}: {found}")
                    numbers = [f"{found[key] / 1024:.0f}" for key in ("before", "peak", "mapped")]
                    rows.append([f"{task}, {phase}", f"{scale}x ({count:,})", *numbers])
    measure.report(
        "Peak memory",
        ["phase", "training data", "MiB after imports", "peak MiB, anonymous", "peak MiB of mapped files"],
        rows,
        "Required: the peak does not grow with the number of training examples.",
    )


def _worker(phase: str, given: list[str]) -> None:
    """One phase in this process; kilobytes."""
    import lightning.pytorch  # noqa: F401  before the first figure
    import timm  # noqa: F401  before the first figure
    import torch  # noqa: F401  before the first figure
    import transformers  # noqa: F401  before the first figure

    from config.compose import compose
    from trainers import hardware
    from trainers.build import build
    from trainers.fit import fit

    hardware.configure_cpu(None)
    config = compose([*given, "trainer.limit_val_batches=0"])
    before, _ = _memory()
    peaks = [0, 0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks[:] = map(max, peaks, _memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        data = build(config, "data")
        data.prepare_data()
        if phase == "train":
            data.setup("fit")
            model = build(config, "model", data=data, optim=config.optim)
            with tempfile.TemporaryDirectory() as folder:
                fit(config, data, model, [], Path(folder))
    finally:
        done.set()
        watcher.join()
    print(json.dumps({"before": before, "peak": peaks[0], "mapped": peaks[1]}))


def _memory() -> tuple[int, int]:
    """Anonymous and file-backed memory of this process, in kilobytes (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]), int(fields["RssFile"].split()[0])


def _images(folder: Path, data: Path | None, count: int) -> Path:
    if data is None:
        from datamodules.samples import shapes

        shapes.write(folder / "shapes", seed=0, train=count, val=100)
        return folder / "shapes"
    with tarfile.open(data / "tiny-imagenet-200-subset.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "tiny-imagenet-200"


def _image_overrides(images: Path, count: int) -> list[Any]:
    return [
        *[
            "model=resnet18",
            "model.name=test_resnet",
            "model.stem=standard",
            "data=tiny_imagenet",
            f"data.path={images}",
        ],
        *[f"data.max_train={count}", "data.max_val=100", "trainer.max_epochs=1", "trainer.accelerator=cpu"],
        *["trainer.precision=32-true", "data.batch_size=64", "optim.lr=1e-3"],
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
