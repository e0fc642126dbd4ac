"""Training on a CUDA device: equal to training on a CPU, resumed exactly, and never waiting for the device within a step."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tests.conftest import ROOT, parse_metric_line

from config.compose import compose
from runs import metric_lines
from trainers import checkpoints
from trainers.build import build
from trainers.fit import fit

pytestmark = pytest.mark.gpu

ENCODER = "{model_type:bert,hidden_size:64,num_hidden_layers:2,num_attention_heads:2,intermediate_size:128}"
TEXT = [
    "~model.architecture",
    f"+model.architecture={ENCODER}",
    "model.vocab_size=400",
    "model.dropout=0.1",
    "model.attention_dropout=0.1",
    "optim.lr=1e-3",
]
TASKS = {
    "questions": ["data=squad_sample", "data.sample.train=160", "data.sample.val=24", "data.batch_size=8", *TEXT],
    "texts": [
        *["model=bert_tiny_classifier", "data=topics_sample", "data.sample.train=160", "data.sample.val=24"],
        *["data.batch_size=8", *TEXT],
    ],
    "images": [
        *["model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=160"],
        *["data.sample.val=24", "data.batch_size=8", "data.augment.mixup=0.2"],
    ],
}
# Padding far from all tokens attends to nothing.
LOCAL = [*TASKS["questions"][:4], "optim.lr=1e-3", "model.vocab_size=400"]
GPU = ["trainer.accelerator=gpu", "logger=none", "trainer.max_epochs=2", "quality=off"]
# Calls by which the host waits for the device, as a profile names them.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
# Some environments have packages on the path, too.
PATH = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    """Skips, loudly, where there is no CUDA device."""
    if not torch.cuda.is_available():
        warnings.warn("there is no CUDA device: the tests of training on one are skipped", stacklevel=1)
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Takes back what a deterministic Trainer sets in this process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True


def train(
    overrides: list[str], folder: Path, end_of_step: Callable[[Any, Any], None] | None = None
) -> tuple[dict[str, Any], list[float]]:
    """train.py's middle, in this process: the result of `fit`, and the loss of each step."""
    config = compose(overrides)
    OmegaConf.resolve(config)
    torch.manual_seed(config.seed)
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    model = build(config, "model", data=data, optim=config.optim)
    losses: list[torch.Tensor] = []

    def end(outputs: Any, batch: Any, *_: Any) -> None:
        losses.append(outputs["loss"].detach())
        if end_of_step is not None:
            end_of_step(model, batch)

    model.on_train_batch_end = end
    best = fit(config, data, model, [], folder)
    return best, torch.stack(losses).tolist()


def command(*overrides: str, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """Starts train.py."""
    return subprocess.Popen(
        [*(launcher or (sys.executable,)), str(ROOT / "train.py"), *overrides],
        env={**os.environ, "PYTHONPATH": PATH, "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for success, and returns standard error."""
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    return stderr


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_those_of_a_cpu(task: str, tmp_path: Path) -> None:
    """In float32, without what is drawn at random on the device."""
    exact = {
        "images": ["data.augment.mixup=0", "data.augment.flip=false", "data.augment.crop_padding=0"],
    }.get(task, ["model.dropout=0", "model.attention_dropout=0"])
    torch.backends.cudnn.allow_tf32 = False  # torch's default is tf32 in convolutions
    steady = [*TASKS[task], *GPU, *exact, "trainer.precision=32-true", "trainer.max_epochs=1", "optim.lr=1e-4"]
    _, on_gpu = train(steady, tmp_path / "gpu")
    _, on_cpu = train([*steady, "trainer.accelerator=cpu"], tmp_path / "cpu")
    assert on_gpu == pytest.approx(on_cpu, rel=2e-3)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_is_close_to_float32(precision: str, task: str, tmp_path: Path) -> None:
    """With dropout, augmentation and clipping, whose random numbers are the same in all precisions."""
    overrides = [*TASKS[task], *GPU, "trainer.gradient_clip_val=1.0", "optim.lr=1e-4", "trainer.max_epochs=1"]
    _, full = train([*overrides, "trainer.precision=32-true"], tmp_path / "full")
    _, mixed = train([*overrides, f"trainer.precision={precision}"], tmp_path / "mixed")
    assert mixed == pytest.approx(full, rel=0.03)


def test_local_attention_learns_from_padded_batches(tmp_path: Path) -> None:
    """That of bert_tiny, the default model."""
    _, losses = train([*LOCAL, *GPU, "trainer.precision=bf16-mixed"], tmp_path)
    assert all(map(math.isfinite, losses)), losses
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_scaled_loss_learns_with_clipping(optimizer: str, tmp_path: Path) -> None:
    overrides = [*TASKS["images"], *GPU, "trainer.precision=16-mixed", "trainer.gradient_clip_val=0.5"]
    lr = {"adamw": "optim.lr=3e-3", "sgd": "optim.lr=0.1"}[optimizer]
    _, losses = train([*overrides, f"optim={optimizer}", lr, "trainer.max_epochs=6"], tmp_path)
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


@pytest.mark.parametrize("task", ["questions", "images"])
def test_killed_by_signal_9_it_ends_the_same(task: str, tmp_path: Path) -> None:
    overrides = [*TASKS[task], *GPU, "trainer.deterministic=true", "trainer.checkpoint_steps=2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    other = command(*overrides, f"hydra.run.dir={whole}")
    process = command(*overrides, f"hydra.run.dir={killed}")
    until = time.monotonic() + 200
    while not (killed / "checkpoints" / "last.ckpt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()[1]
    assert "resuming from" in finish(command(*overrides, f"hydra.run.dir={killed}"))
    finish(other)
    one, two = (checkpoints.read(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (whole, killed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (whole / "predictions.jsonl").read_bytes() == (killed / "predictions.jsonl").read_bytes()
    lines = [
        [
            (line.step, line.values["val_loss"], line.values.get("train_loss"))
            for line in metric_lines.read(folder / "metrics.jsonl")
        ]
        for folder in (whole, killed)
    ]
    assert lines[0] == lines[1]


def test_the_record_and_an_evaluation_are_of_the_device(tmp_path: Path) -> None:
    stderr = finish(command(*TASKS["questions"], *GPU, f"hydra.run.dir={tmp_path / 'run'}"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    name = torch.cuda.get_device_name(0)
    assert name in " ".join(stderr.split())
    assert record["hardware"]["gpus"][0]["name"] == name
    assert record["metrics"]["peak_memory_mib"] > 1
    evaluated = subprocess.run(
        [
            sys.executable,
            "-m",
            "trainers",
            "evaluate",
            f"run={tmp_path / 'run'}",
            "--output",
            str(tmp_path / "evaluated"),
        ],
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    line = parse_metric_line(evaluated.stdout.splitlines()[-1])
    assert line.values["val_loss"] == pytest.approx(record["metrics"]["val_loss"], rel=1e-2)


def test_nccl_with_one_rank(tmp_path: Path) -> None:
    overrides = [*TASKS["questions"], *GPU, "trainer.deterministic=true"]
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1")
    distributed = command(
        *overrides, "trainer.strategy=ddp", f"hydra.run.dir={tmp_path / 'ddp'}", launcher=launcher, NCCL_DEBUG="VERSION"
    )
    finish(command(*overrides, f"hydra.run.dir={tmp_path / 'one'}"))
    stdout, stderr = distributed.communicate(timeout=200)
    assert distributed.returncode == 0, stderr
    assert "NCCL version" in stdout + stderr
    found = [json.loads((tmp_path / name / "run.json").read_text())["metrics"] for name in ("ddp", "one")]
    assert found[0]["val_loss"] == pytest.approx(found[1]["val_loss"], rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_no_step_waits_for_the_device(task: str, tmp_path: Path) -> None:
    from torch.profiler import ProfilerActivity, profile

    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    steps: list[int] = []

    def end(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            torch.cuda.synchronize()
            profiler.__enter__()
        if len(steps) == 14:
            profiler.__exit__(None, None, None)

    # The loss is looked at every `log_every_n_steps` steps.
    train([*TASKS[task], *GPU, "trainer.log_every_n_steps=50", "trainer.precision=bf16-mixed"], tmp_path, end)
    waits = {each.key: each.count for each in profiler.key_averages() if each.key in WAITS}
    # In ten steps; the start and the end of the profiler wait, too.
    assert sum(waits.values()) < 10, waits


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_copied_whole(workers: int, tmp_path: Path) -> None:
    """From pinned memory, while other steps run: each batch on the device is the one that the data set has."""
    batches: list[dict[str, torch.Tensor]] = []
    overrides = [*TASKS["images"], *GPU, f"data.workers={workers}", "trainer.max_epochs=1"]
    kept: list[Any] = []

    def end(model: Any, batch: Any) -> None:
        kept.append(model.data)
        batches.append({name: value.clone() for name, value in batch.items()})

    train(overrides, tmp_path, end)
    images = kept[0].train
    seen = set()
    for batch in batches:
        index = batch["index"].tolist()
        seen |= set(index)
        assert batch["pixels"].device.type == "cuda"
        assert torch.equal(batch["pixels"].cpu(), torch.from_numpy(images.gather(batch["index"].cpu().numpy())))
        assert batch["labels"].tolist() == images.labels[index].tolist()
    assert len(seen) == len(images)


def test_another_stream_gives_the_same_losses(tmp_path: Path) -> None:
    overrides = [*TASKS["questions"], *GPU, "trainer.deterministic=true", "trainer.max_epochs=1"]
    _, expected = train(overrides, tmp_path / "default")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _, losses = train(overrides, tmp_path / "stream")
    assert losses == expected


@pytest.mark.parametrize("mode", ["true", "reduce-overhead"])
@pytest.mark.parametrize("task", ["questions", "images"])
def test_compiled_steps_learn_alike(task: str, mode: str, tmp_path: Path) -> None:
    exact = {"images": []}.get(task, ["model.dropout=0", "model.attention_dropout=0"])
    overrides = [*TASKS[task], *GPU, *exact, "trainer.max_epochs=1", "optim.lr=1e-4", "trainer.precision=bf16-mixed"]
    _, eager = train(overrides, tmp_path / "eager")
    _, compiled = train([*overrides, f"trainer.compile={mode}"], tmp_path / "compiled")
    assert compiled == pytest.approx(eager, rel=0.03)
