"""A run that was stopped ends as one that was not: same metrics, same weights, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from tests.conftest import ROOT, forked

from config.compose import compose
from config.errors import SignalInterrupt
from runs import metric_lines
from trainers import checkpoints
from trainers.build import build
from trainers.fit import fit
from trainers.hardware import configure_cpu
from trainers.optimizers import schedule_factor
from trainers.reporting import StepSeeds

QUESTIONS = [
    "data=squad_sample",
    "data.sample.train=96",
    "data.sample.val=12",
    "data.batch_size=8",
    "optim.lr=1e-3",
    "~model.architecture",
    "+model.architecture={model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:32}",
    "model.dropout=0.1",
    "model.attention_dropout=0.1",
    "model.vocab_size=300",
]
IMAGES = [
    "model=resnet18",
    "model.name=test_resnet",
    "model.stem=standard",
    "data=shapes",
    "data.sample.train=72",
    "data.sample.val=24",
    "data.batch_size=8",
    "data.augment.mixup=0.2",
]
COMMON = [
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.deterministic=true",
    "trainer.threads=1",
    "trainer.max_epochs=2",
]
VARIED = {"questions": [*QUESTIONS, *COMMON], "images": [*IMAGES, *COMMON]}


class Killed(BaseException):
    """Stands for signal 9: nothing is written after it."""


def train(overrides: list[str], folder: Path) -> dict[str, Any]:
    """train.py's middle, in this process."""
    config = compose(overrides)
    OmegaConf.resolve(config)
    configure_cpu(1)
    torch.manual_seed(config.seed)
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    model = build(config, "model", data=data, optim=config.optim)
    return fit(config, data, model, [], folder)


def result(folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], list[str]]:
    """Metric lines without what depends on the clock, the final weights, the predictions."""
    lines = [
        {
            "epoch": line.epoch,
            "step": line.step,
            **{k: v for k, v in line.values.items() if k.startswith(("val", "train_loss"))},
        }
        for line in metric_lines.read(folder / "metrics.jsonl")
    ]
    state = checkpoints.read(folder / "checkpoints" / "last.ckpt")
    return lines, state["state_dict"], (folder / "predictions.jsonl").read_text().splitlines()


def same(one: Path, other: Path) -> None:
    """Fails unless both runs left the same."""
    lines, weights, rows = result(one)
    other_lines, other_weights, other_rows = result(other)
    assert other_lines == lines
    assert other_rows == rows
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    best = checkpoints.read(one / "checkpoints" / "best.ckpt"), checkpoints.read(other / "checkpoints" / "best.ckpt")
    assert all(torch.equal(best[0]["state_dict"][name], best[1]["state_dict"][name]) for name in best[0]["state_dict"])


ACCUMULATED = ["trainer.val_check_interval=0.4", "trainer.accumulate_grad_batches=2"]
AVERAGED = ["trainer.ema_decay=0.9"]
UNEVEN = ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"]  # the last epoch has a validation of its own


@pytest.mark.parametrize(
    ("task", "extra", "every"),
    [
        ("questions", ACCUMULATED, 4),
        ("images", AVERAGED, 4),
        ("questions", UNEVEN, 23),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("questions", [], 3),
                ("questions", ACCUMULATED, 1),
                ("questions", ["trainer.max_epochs=-1", "trainer.max_steps=17", "trainer.early_stopping=5"], 1),
                ("images", AVERAGED, 1),
                ("questions", UNEVEN, 1),
                ("questions", [*UNEVEN, *AVERAGED, "trainer.max_steps=31"], 3),
                (
                    "images",
                    [
                        "trainer.early_stopping=1",
                        "optim=sgd",
                        "optim.lr=1e-9",
                        "trainer.max_epochs=5",
                        "monitor=val_loss",
                    ],
                    1,
                ),
            )
        ),
    ],
)
def test_stopped_at_any_checkpoint_it_ends_the_same(
    task: str, extra: list[str], every: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    overrides = [*VARIED[task], *extra, "trainer.checkpoint_steps=1"]
    whole = tmp_path / "whole"
    train(overrides, whole)
    saves = _count(overrides, tmp_path, monkeypatch)
    assert saves >= 8
    for k in range(1, saves, every):
        folder = tmp_path / f"stopped-{k}"
        with monkeypatch.context() as patch:
            _kill_after(k, patch)
            with pytest.raises(Killed):
                train(overrides, folder)
        train(overrides, folder)
        same(whole, folder)
        shutil.rmtree(folder)


def _count(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counted = []
    with monkeypatch.context() as patch:
        save = checkpoints.Checkpoints.save
        patch.setattr(
            checkpoints.Checkpoints, "save", lambda self, trainer: (counted.append(1), save(self, trainer))[1]
        )
        train(overrides, tmp_path / "counted")
    return len(counted)


def _kill_after(k: int, patch: pytest.MonkeyPatch) -> None:
    save, saved = checkpoints.Checkpoints.save, []

    def save_and_die(self: Any, trainer: Any) -> None:
        save(self, trainer)
        saved.append(1)
        if len(saved) == k:
            raise Killed

    patch.setattr(checkpoints.Checkpoints, "save", save_and_die)


@pytest.mark.parametrize("task", ["questions", pytest.param("images", marks=pytest.mark.slow)])
def test_killed_by_signal_9_at_a_random_step(task: str, tmp_path: Path, cache: Path, warm: Path) -> None:
    """Through the real command line."""
    overrides = [*VARIED[task], "trainer.max_epochs=3", "trainer.checkpoint_steps=2"]
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert forked(warm, [*command[1:], f"hydra.run.dir={whole}"], tmp_path, environment, 300).returncode == 0
    seed = int.from_bytes(os.urandom(4))
    print(f"random seed {seed}")
    delay = random.Random(seed).uniform(0.0, 0.6)
    process = subprocess.Popen(
        [*command, f"hydra.run.dir={killed}"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for(lambda: (killed / "checkpoints" / "last.ckpt").exists() or process.poll() is not None)
    time.sleep(delay)
    process.kill()
    process.wait()
    done = forked(warm, [*command[1:], f"hydra.run.dir={killed}"], tmp_path, environment, 300)
    assert done.returncode == 0, done.stderr
    same(whole, killed)
    assert _final(whole) == _final(killed)
    model = "model/model.safetensors"
    assert (whole / model).read_bytes() == (killed / model).read_bytes()
    record = json.loads((killed / "run.json").read_text())
    assert record["status"] == "finished"
    # The output is that of a run that was never killed: earlier validations with their first times.
    lines = metric_lines.read(killed / "metrics.jsonl")
    assert done.stdout.splitlines() == [metric_lines.format_line(line) for line in lines]


@pytest.mark.parametrize("kept", ["folder", "copy"])
def test_a_new_pods_collector_sees_the_whole_history(
    kept: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod's own file is lost with it; runs of earlier versions have no other."""
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    copy, folder = tmp_path / "pod" / "metrics.jsonl", tmp_path / "run"
    overrides = [*VARIED["questions"], "trainer.max_epochs=3", "trainer.checkpoint_steps=5", f"metrics_file={copy}"]
    with monkeypatch.context() as patch:
        _kill_after(6, patch)
        with pytest.raises(Killed):
            train(overrides, folder)
    first = metric_lines.read(copy)
    assert len(first) == 2
    assert metric_lines.read(folder / "metrics.jsonl") == first
    for path, name in ((copy, "copy"), (folder / "metrics.jsonl", "folder")):
        if kept != name:
            path.unlink()
    capsys.readouterr()
    train(overrides, folder)
    lines = metric_lines.read(folder / "metrics.jsonl")
    assert lines[:2] == first
    assert [line.epoch for line in lines] == [1, 2, 3]
    assert metric_lines.read(copy) == lines
    assert capsys.readouterr().out.splitlines() == [metric_lines.format_line(line) for line in lines]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_says_so_and_exits(number: int, code: int, tmp_path: Path, cache: Path) -> None:
    overrides = [*VARIED["questions"], "trainer.max_epochs=500"]
    command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    last = errors.strip().splitlines()[-1]
    assert "last.ckpt is written, the same command resumes from it" in last
    assert "Traceback" not in errors
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert record["exit_code"] == code
    checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_a_finished_folder_prints_its_result_again_and_a_changed_command_is_refused(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    overrides = ["train.py", *VARIED["questions"], "trainer.max_epochs=1", "hydra.run.dir=here"]
    first = run(*overrides)
    assert first.returncode == 0, first.stderr
    before = {path: path.read_bytes() for path in sorted((tmp_path / "here").rglob("*")) if path.is_file()}
    again = run(*overrides)
    assert again.returncode == 0
    assert again.stdout.split(" ", 1)[1] == first.stdout.splitlines()[-1].split(" ", 1)[1] + "\n"
    refused = run(*overrides, "optim.lr=5e-4")
    assert refused.returncode == 2
    assert "optim.lr: 0.001 in the folder, now 0.0005" in refused.stderr
    assert "Traceback" not in refused.stderr
    after = {path: path.read_bytes() for path in sorted((tmp_path / "here").rglob("*")) if path.is_file()}
    assert after == before
    # Killed after run.json said "finished", before the page was there or the lock was removed.
    for page in (False, True):
        (tmp_path / "here" / ".lock.json").write_text('{"pid": 1, "host": "gone"}')
        if not page:
            (tmp_path / "here" / "report.html").unlink()
        completed = run(*overrides)
        assert completed.returncode == 0, completed.stderr
        assert {path for path in (tmp_path / "here").rglob("*") if path.is_file()} == before.keys()


def test_a_torn_checkpoint_falls_back_to_the_one_before_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    overrides = [*VARIED["questions"], "trainer.checkpoint_steps=3"]
    train(overrides, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _kill_after(4, patch)
        with pytest.raises(Killed):
            train(overrides, tmp_path / "torn")
    last = tmp_path / "torn" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    train(overrides, tmp_path / "torn")
    assert "is not a complete checkpoint; trying the previous one" in caplog.text
    same(tmp_path / "whole", tmp_path / "torn")


def test_more_steps_under_a_horizon_of_its_own_go_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    overrides = [*VARIED["questions"], "trainer.max_epochs=-1", "optim.horizon=30"]
    train([*overrides, "trainer.max_steps=24"], tmp_path / "whole")
    train([*overrides, "trainer.max_steps=12"], tmp_path / "longer")
    train([*overrides, "trainer.max_steps=24"], tmp_path / "longer")
    same(tmp_path / "whole", tmp_path / "longer")


def test_more_epochs_go_on_after_a_final_validation(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    overrides = [*VARIED["questions"], "optim.horizon=60", "trainer.check_val_every_n_epoch=2", "data.sample.train=48"]
    train([*overrides, "trainer.max_epochs=4"], tmp_path / "whole")
    train([*overrides, "trainer.max_epochs=1"], tmp_path / "longer")
    train([*overrides, "trainer.max_epochs=4"], tmp_path / "longer")
    (whole, weights, _), (longer, other_weights, _) = result(tmp_path / "whole"), result(tmp_path / "longer")
    assert [line["epoch"] for line in whole] == [2, 4]
    assert [line["epoch"] for line in longer] == [1, 2, 4]
    assert longer[-1] == whole[-1]
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_run_without_validations_keeps_its_last_step_and_says_so(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    best = train([*VARIED["questions"], "trainer.max_epochs=1", "trainer.limit_val_batches=0"], tmp_path)
    assert best["step"] == 12
    assert "training ended without a validation (trainer.limit_val_batches=0" in caplog.text
    assert checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 12


def test_overfitting_repeats_batches_and_logs_the_rate_of_each_step(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTRAIN_CACHE", str(cache))
    batches, rates = [], []

    def note(self: Any, trainer: Any, module: Any, batch: Any, index: int) -> None:
        batches.append(batch["input_ids"].tolist())

    class Curves(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            rates.append((step, metrics["lr"])) if "lr" in metrics else None

    monkeypatch.setattr(StepSeeds, "on_train_batch_start", note)
    config = compose(
        [*VARIED["questions"], "trainer.overfit_batches=2", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    )
    OmegaConf.resolve(config)
    data = build(config, "data")
    data.prepare_data()
    data.setup("fit")
    best = fit(config, data, build(config, "model", data=data, optim=config.optim), [Curves(tmp_path)], tmp_path)
    assert batches[:2] == batches[2:4] == batches[4:]
    assert batches[0] != batches[1]
    assert best["step"] in (2, 4, 6)
    warmup = round(config.optim.warmup * 6)
    expected = [(step, config.optim.lr * schedule_factor("linear", warmup, 6, step - 1)) for step in range(1, 7)]
    assert rates == [(step, pytest.approx(rate)) for step, rate in expected]


def test_a_signal_outside_training_acts_at_once() -> None:
    from trainers.signals import Signals

    signals = Signals()
    signals.install()
    try:
        with pytest.raises(SignalInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signals.restore()


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def _final(folder: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((folder / "run.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if name.startswith("val")}
