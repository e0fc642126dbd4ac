"""The trainer inside a trial: metrics pushed, weights handed on, signals, the trial's name."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import torch
from kubeflow.katib import katib_api_pb2 as messages
from kubeflow.katib import katib_api_pb2_grpc as services
from tests.conftest import Run

from config.check import check_config
from config.compose import compose
from config.errors import InputError, UnreachableError
from katib.shell_command import expand, wrap
from runs.metric_lines import format_line, read, repeat, write
from runs.push import push_metric_lines
from trainers import initial_weights

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("model=resnet18", "model.name=test_resnet", "model.stem=standard", "data=shapes", "data.sample.train=96"),
    *(
        "data.sample.val=16",
        "data.batch_size=16",
        "trainer.threads=1",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=2",
    ),
]


class Manager(services.DBManagerServicer):
    """Katib's DB manager: keeps what is reported, and refuses as often as it is told."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, str, str]] = []
        self.refuse = 0

    def ReportObservationLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.refuse:
            self.refuse -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        for log in request.observation_log.metric_logs:
            self.kept.append((request.trial_name, log.time_stamp, log.metric.name, log.metric.value))
        return messages.ReportObservationLogReply()

    def GetObservationLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Times as Go's RFC3339Nano writes them: without zeros at the end (pkg/db/v1beta1/mysql of Katib)."""
        logs = [
            messages.MetricLog(
                time_stamp=time.rstrip("Z").rstrip("0").rstrip(".") + "Z",
                metric=messages.Metric(name=name, value=value),
            )
            for trial, time, name, value in sorted(self.kept)
            if trial == request.trial_name
        ]
        return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=logs))


@pytest.fixture
def manager() -> Iterator[tuple[Manager, str]]:
    server = grpc.server(ThreadPoolExecutor(2))
    found = Manager()
    services.add_DBManagerServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("refused", [0, 1])
def test_metrics_are_pushed_as_they_are_printed(
    refused: int, manager: tuple[Manager, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, address = manager
    kept.refuse = refused
    monkeypatch.setenv("KATIB_TRIAL_NAME", "search-abcd")
    done = run("train.py", *SMALL, f"push_metrics={address}", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    lines = read(tmp_path / "run" / "metrics.jsonl")
    expected = [
        ("search-abcd", line.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), name, repr(value))
        for line in lines
        for name, value in line.values.items()
    ]
    assert kept.kept == expected
    assert len(lines) == 3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["trial"] == "search-abcd"
    if refused:
        return
    # The pod is lost after the training: another one reports the same, at the same times.
    copy = tmp_path / "pod" / "metrics.jsonl"
    done = run("train.py", *SMALL, f"push_metrics={address}", f"hydra.run.dir={tmp_path}/run", f"metrics_file={copy}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [format_line(line) for line in lines]
    assert read(copy) == read(tmp_path / "run" / "metrics.jsonl") == lines
    assert kept.kept == expected


def test_repeated_lines_are_pushed_once(
    manager: tuple[Manager, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an earlier pod that arrived are not sent again, and those that did not are."""
    kept, address = manager
    monkeypatch.setenv("KATIB_TRIAL_NAME", "search-abcd")
    path = tmp_path / "metrics.jsonl"
    pod = contextlib.ExitStack()
    pod.enter_context(push_metric_lines(address))
    write({"val_loss": 0.5, "val_f1": 1.0}, 1, 10, jsonl_path=path)
    kept.refuse = 100
    write({"val_loss": 0.25, "val_f1": 2.0}, 2, 20, jsonl_path=path)
    with pytest.raises(UnreachableError):
        pod.close()
    assert [value for *_, value in kept.kept] == ["0.5", "1.0"]
    kept.refuse = 0
    kept.kept[0] = (kept.kept[0][0], "2026-01-01T00:00:00.120000Z", *kept.kept[0][2:])  # zeros that Go does not write
    history = [line._replace(time=datetime(2026, 1, 1, 0, 0, 0, 120000, UTC)) for line in read(path)[:1]]
    kept.kept[1] = (kept.kept[1][0], kept.kept[0][1], *kept.kept[1][2:])
    with push_metric_lines(address):
        repeat([*history, read(path)[1]])
        write({"val_loss": 0.75, "val_f1": 3.0}, 3, 30)
    assert [value for *_, value in kept.kept] == ["0.5", "1.0", "0.25", "2.0", "0.75", "3.0"]


@pytest.mark.slow
def test_a_manager_that_is_not_there_is_said_before_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("train.py", *SMALL, "push_metrics=127.0.0.1:9", f"hydra.run.dir={tmp_path}/a")
    assert (done.returncode, "KATIB_TRIAL_NAME" in done.stderr) == (2, True)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "search-abcd")
    done = run("train.py", *SMALL, "push_metrics=127.0.0.1:9", f"hydra.run.dir={tmp_path}/b")
    assert (done.returncode, "push_metrics=127.0.0.1:9: no answer" in done.stderr) == (7, True), done.stderr
    assert "epoch=" not in done.stdout
    done = run("train.py", *SMALL, "push_metrics=manager", f"hydra.run.dir={tmp_path}/c")
    assert (done.returncode, "must be host:port" in done.stderr) == (2, True)


def test_what_did_not_arrive_at_the_end_is_said(
    manager: tuple[Manager, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, address = manager
    kept.refuse = 100
    monkeypatch.setenv("KATIB_TRIAL_NAME", "search-abcd")
    done = run("train.py", *SMALL, f"push_metrics={address}", f"hydra.run.dir={tmp_path}/run")
    assert (done.returncode, "could not be sent" in done.stderr) == (7, True), done.stderr
    assert (tmp_path / "run" / "model").is_dir()  # the run itself is whole


def test_weights_are_handed_on_in_a_population(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "population"
    first = run("train.py", *SMALL, f"population_dir={folder}", f"hydra.run.dir={tmp_path}/1")
    assert first.returncode == 0, first.stderr
    best = torch.load(tmp_path / "1" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    left = torch.load(folder / "weights.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(left[name], best[name]) for name in best)
    # The next generation, with another learning rate, begins with them.
    again = [*SMALL, "optim.lr=1e-12", "optim.weight_decay=0", "trainer.max_steps=1", f"hydra.run.dir={tmp_path}/2"]
    second = run("train.py", *again, f"population_dir={folder}")
    assert second.returncode == 0, second.stderr
    now = torch.load(tmp_path / "2" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(
        torch.allclose(now[name], best[name], atol=1e-6)
        for name in best
        if "running" not in name and "num_" not in name
    )
    record = json.loads((tmp_path / "2" / "run.json").read_text())
    assert record["parent"]["init_from"] == str(folder / "weights.ckpt")
    for key in ("population_dir", "population_parent"):
        with pytest.raises(InputError, match="both name initial weights"):
            check_config(compose([*SMALL, f"{key}={folder}", "init_from=x"]))
    # Without a folder of its own: from the parent's run folder; a first generation has no parent.
    assert initial_weights.find_source(compose([f"population_parent={tmp_path}/1"])) == f"{tmp_path}/1"
    assert initial_weights.find_source(compose([f"population_parent={tmp_path}/"])) is None
    child = [*SMALL, "trainer.max_steps=1", f"population_parent={tmp_path}/1", f"hydra.run.dir={tmp_path}/3"]
    assert run("train.py", *child, "optim.lr=1e-12", "optim.weight_decay=0").returncode == 0
    record = json.loads((tmp_path / "3" / "run.json").read_text())
    parent = json.loads((tmp_path / "1" / "run.json").read_text())
    assert record["parent"] == {"init_from": f"{tmp_path}/1", "config_hash": parent["config_hash"]}


def started(folder: Path, steps: int = 2) -> None:
    """Waits until training has begun."""
    end = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*.ckpt")):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_under_torchrun_an_early_stop_ends_with_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    longer = [each for each in SMALL if "max_epochs" not in each]
    command = [
        str(Path(sys.executable).parent / "torchrun"),
        "--nproc-per-node=2",
        "--standalone",
        "train.py",
        *longer,
    ]
    command += ["trainer.max_epochs=500", "trainer.checkpoint_steps=2", f"hydra.run.dir={folder}"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        started(folder)
        running.send_signal(signal.SIGTERM)  # the collector knows this process alone
        _, said = running.communicate(timeout=60)
    finally:
        for process in [*psutil.Process(running.pid).children(recursive=True)] if running.poll() is None else []:
            process.kill()
        running.kill()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("interrupted", 143), said
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0
    alive = [each for each in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(each.info["cmdline"] or [])]
    assert not alive


@pytest.mark.parametrize("stops_early", [False, True])
def test_the_pods_hook_ends_training_with_a_checkpoint(stops_early: bool, tmp_path: Path) -> None:
    """The pod's exit code is 143, with Katib's wrapper for early stopping, too, which turns every other into 1."""
    folder = tmp_path / "run"
    longer = [each for each in SMALL if "max_epochs" not in each]
    line = " ".join(
        [
            sys.executable,
            "train.py",
            *longer,
            "trainer.max_epochs=500",
            "trainer.checkpoint_steps=2",
            f"hydra.run.dir={folder}",
        ]
    )
    wrapped = wrap(["sh", "-c", line], "StdOut", f"{tmp_path}/metrics.log", stops_early)
    running = subprocess.Popen(
        [*wrapped[:2], expand(wrapped[2], {})],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started(folder)
        mine = {each.pid for each in psutil.Process(running.pid).children(recursive=True)}
        others = [
            each.pid
            for each in psutil.process_iter()
            if each.pid not in mine and any(word.endswith("train.py") for word in _words(each))
        ]
        if others:
            pytest.skip("other trainings run on this machine, and the hook would end them")
        done = subprocess.run([sys.executable, "-m", "katib", "stop"], cwd=ROOT, check=False, timeout=60)
        assert done.returncode == 0
        assert running.wait(10) in ((-signal.SIGTERM,) if stops_early else (143,))
    finally:
        running.kill()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("interrupted", 143)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()[:8]
    except psutil.Error:
        return []


def test_output_in_a_pipe_is_lines_without_colour(run: Run, tmp_path: Path) -> None:
    done = run("train.py", *SMALL, f"hydra.run.dir={tmp_path}/run", FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    for line in done.stdout.splitlines():
        assert line.split(" ")[0].endswith("Z")
