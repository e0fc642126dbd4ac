"""Two processes: one line of metrics, every example once, and the arithmetic of one process at the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import ROOT, forked, parse_metric_line

from runs import metric_lines
from trainers import checkpoints

QUESTIONS = [
    "data=squad_sample",
    "data.sample.train=64",
    "data.sample.val=13",
    "data.batch_size=8",
    "data.eval_batch_size=5",
    "~model.architecture",
    "+model.architecture={model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:32}",
    "model.dropout=0",
    "model.attention_dropout=0",
    "model.vocab_size=300",
]
# A model without batch norm, and augmentation off: the ranks draw different numbers.
IMAGES = [
    "model=convnext_tiny",
    "model.name=test_convnext",
    "data=shapes",
    "data.sample.train=48",
    "data.sample.val=24",
    "data.batch_size=8",
    "data.eval_batch_size=5",
    "data.augment.flip=false",
    "data.augment.crop_padding=0",
]
COMMON = [
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.deterministic=true",
    "trainer.threads=1",
    "trainer.max_epochs=2",
    "trainer.precision=32-true",
    "optim=sgd",
    "optim.lr=0.05",
]  # not AdamW, whose first steps are but signs


def environment(cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ISOTRAIN_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def launch(processes: int, cache: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line under torchrun, on loopback."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*torchrun, *arguments],
        cwd=folder,
        env=environment(cache),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        QUESTIONS,
        pytest.param(IMAGES, marks=pytest.mark.slow),
        pytest.param([*QUESTIONS, "data.eval_batch_size=100"], marks=pytest.mark.slow),
    ],
    ids=["questions", "images", "one batch to validate"],
)
def test_two_processes_agree_with_one(overrides: list[str], cache: Path, tmp_path: Path, warm: Path) -> None:
    lines, weights = {}, {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [str(ROOT / "train.py"), *overrides, *COMMON, f"hydra.run.dir={folder}"]
        if processes == 1:
            done = forked(warm, command, tmp_path, environment(cache), 300)
        else:
            done = launch(processes, cache, tmp_path, *command)
        assert done.returncode == 0, done.stderr
        lines[processes] = [parse_metric_line(line) for line in done.stdout.splitlines()]
        weights[processes] = checkpoints.read(folder / "checkpoints" / "last.ckpt")["state_dict"]
        ids = [json.loads(row)["id"] for row in (folder / "predictions.jsonl").read_text().splitlines()]
        assert len(set(ids)) == len(ids) == (24 if overrides is IMAGES else 13)
    assert len(lines[1]) == len(lines[2]) == 3, "each metric line once: two epochs and the result"
    for one, two in zip(lines[1], lines[2], strict=True):
        assert (one.epoch, one.step) == (two.epoch, two.step)
        for name, value in one.values.items():
            if name.startswith(("val", "train_loss")):
                assert two.values[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[2][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [QUESTIONS, IMAGES], ids=["questions", "images"])
def test_one_checkpoint_scores_the_same_by_one_and_by_two(
    overrides: list[str], cache: Path, tmp_path: Path, warm: Path
) -> None:
    command = [str(ROOT / "train.py"), *overrides, *COMMON, "trainer.max_epochs=1", "hydra.run.dir=run"]
    train = forked(warm, command, tmp_path, environment(cache), 300)
    assert train.returncode == 0, train.stderr
    outputs = []
    for processes in (1, 2):
        done = _evaluate(processes, cache, tmp_path)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        outputs.append((parse_metric_line(line).values, (tmp_path / str(processes) / "predictions.jsonl").read_text()))
    assert outputs[0] == outputs[1]
    trained = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    validated = {name: value for name, value in trained.items() if name.startswith("val")}
    assert outputs[0][0] == metric_lines.round_metrics(validated, metric_lines.LINE_DIGITS)


def _evaluate(processes: int, cache: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return launch(
        processes,
        cache,
        folder,
        "--module",
        "trainers",
        "evaluate",
        "run=run",
        "trainer.threads=1",
        f"--output={processes}",
    )


def test_a_batch_that_does_not_divide_is_refused(cache: Path, tmp_path: Path) -> None:
    done = launch(2, cache, tmp_path, str(ROOT / "train.py"), *QUESTIONS, *COMMON, "data.batch_size=7")
    assert done.returncode != 0
    message = "data.batch_size=7 is the total of all processes and must be a multiple of their number, 2; use 8"
    assert message in done.stderr
    assert list((tmp_path / "outputs").rglob("best.ckpt")) == []


@pytest.mark.parametrize("kind", ["PyTorchJob", "TrainJob", "TrainJob with torchrun"])
def test_two_pods_with_the_variables_that_kubeflow_sets(kind: str, cache: Path, tmp_path: Path) -> None:
    """PyTorchJob: the operator's variables and plain python. TrainJob: PET_ variables, and plain python or torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    pods = []
    for rank in ("0", "1"):
        if kind == "PyTorchJob":
            given = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            command = [sys.executable]
        else:
            given = {
                "PET_NNODES": "2",
                "PET_NPROC_PER_NODE": "1",
                "PET_NODE_RANK": rank,
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
            }
            command = [sys.executable, *(["-m", "torch.distributed.run"] if "torchrun" in kind else [])]
        variables = {**environment(cache), **given}  # without OMP_NUM_THREADS, as in a pod
        pods.append(
            subprocess.Popen(
                [*command, str(ROOT / "train.py"), *QUESTIONS, *COMMON, "trainer.max_epochs=1", "hydra.run.dir=run"],
                cwd=tmp_path,
                env={name: value for name, value in variables.items() if name != "OMP_NUM_THREADS"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [pod.communicate(timeout=300) for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], outputs
    assert "2 processes, each on cpu (1 thread)" in outputs[0][1], "trainer.threads"
    assert "1 epoch, batch size 8\n" in outputs[0][1], "the total of both processes"
    printed = [line for out, _ in outputs for line in out.splitlines()]
    assert len(printed) == 2, "one epoch and the result, once"
    ids = [json.loads(row)["id"] for row in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(set(ids)) == len(ids) == 13


def test_a_process_ends_while_it_exchanges_signs_of_life(tmp_path: Path) -> None:
    """The interpreter must not shut down while a thread is in the store's bindings: it aborts once in two times then."""
    script = """
import datetime, time
import torch.distributed as dist
from trainers import peers

peers._BEAT_S = 0
store = dist.TCPStore("127.0.0.1", 0, 1, True, datetime.timedelta(seconds=30), wait_for_workers=False, multi_tenant=True)
peers.Peers(store, 0, [{}, {}], "rank 0", lambda error: None)
time.sleep(0.2)
"""
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
