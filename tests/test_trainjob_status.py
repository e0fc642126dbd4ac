"""Progress and metrics in the status of a TrainJob: in the server's form, and without effect on the training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests import trainjob_double
from tests.conftest import ROOT, Run
from tests.test_resume import QUESTIONS

from runs import metric_lines, trainjob_status
from runs.metric_lines import MetricLine

SMALL = [*QUESTIONS, "quality=off", "logger=none", "trainer.threads=1", "trainer.accelerator=cpu"]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trainjob_double.Server]:
    with trainjob_double.serve(tmp_path_factory.mktemp("server")) as double:
        yield double


@pytest.fixture
def status(server: trainjob_double.Server, monkeypatch: pytest.MonkeyPatch) -> trainjob_double.Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trainjob_status, "INTERVAL_S", 0.05)
    return server


def line(**values: float) -> MetricLine:
    return MetricLine(datetime.now(UTC), 1, 1, values)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def values(post: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {metric["name"]: metric["value"] for metric in post["metrics"]}


def test_a_training_ends_with_100_and_its_best_value(run: Run, server: trainjob_double.Server, tmp_path: Path) -> None:
    done = run("train.py", *SMALL, "trainer.max_epochs=3", "hydra.run.dir=run", **server.environment)
    assert done.returncode == 0, done.stderr
    assert server.refused == []
    last = server.posts[-1]
    assert (last["progressPercentage"], last["estimatedRemainingSeconds"]) == (100, 0)
    lines = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert values(last)["val_f1"] == repr(max(float(row["val_f1"]) for row in lines))
    assert {"train_loss", "val_loss"} <= set(values(last))
    before = len(server.posts)
    again = run("train.py", *SMALL, "trainer.max_epochs=3", "hydra.run.dir=run", **server.environment)
    assert again.returncode == 0, again.stderr
    assert len(server.posts) > before
    assert server.posts[-1]["progressPercentage"] == 100
    assert values(server.posts[-1]) == values(last)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("away", "URLError: "),
        ("other certificate", "CERTIFICATE_VERIFY_FAILED"),
        ("no certificate", "KUBEFLOW_TRAINER_SERVER_CA_CERT: "),
        ("413", "(413: Payload too large)"),
        ("no token", "KUBEFLOW_TRAINER_SERVER_TOKEN: "),
    ],
)
def test_no_server_stops_a_training(
    trouble: str, words: str, run: Run, server: trainjob_double.Server, tmp_path: Path
) -> None:
    environment = dict(server.environment)
    if trouble == "away":
        server.server.shutdown()
        server.server.server_close()
    elif trouble == "other certificate":
        (tmp_path / "other").mkdir()
        trainjob_double.write_certificate(tmp_path / "other" / "ca.crt", tmp_path / "other" / "key.pem")
        environment["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = str(tmp_path / "other" / "ca.crt")
    elif trouble == "no certificate":
        environment["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = str(tmp_path / "other" / "ca.crt")
    elif trouble == "413":
        server.code = 413
    else:
        server.token.unlink()
    done = run("train.py", *SMALL, "trainer.max_steps=2", "hydra.run.dir=run", **environment)
    assert done.returncode == 0, done.stderr
    (warning,) = (row for row in done.stderr.splitlines() if "is not updated" in row)
    assert words in warning
    assert "Traceback" not in done.stderr
    assert server.posts == []


def test_posts_are_complete_and_the_best_value_counts(status: trainjob_double.Server) -> None:
    with trainjob_status.post_status("val_f1", maximize=True):
        trainjob_status.report_step(0, 10)
        metric_lines.listeners[-1](line(val_f1=50.0, val_loss=2.0))
        wait_for(lambda: status.posts and "val_f1" in values(status.posts[-1]))
        trainjob_status.report_step(5, 10)
        metric_lines.listeners[-1](line(val_f1=40.0, val_loss=1.5))
        wait_for(lambda: values(status.posts[-1]).get("val_loss") == "1.5")
        post = status.posts[-1]
        assert values(post) == {"val_f1": "50.0", "val_loss": "1.5"}
        assert post["progressPercentage"] == 50
        assert isinstance(post["estimatedRemainingSeconds"], int)
        status.token.write_text("second\n")  # the token is replaced while a process runs
        trainjob_status.report_step(10, 10)
        wait_for(lambda: status.posts[-1]["progressPercentage"] == 99)
        trainjob_status.report_completion()
    assert status.posts[-1]["progressPercentage"] == 100
    assert values(status.posts[-1]) == {"val_f1": "50.0", "val_loss": "1.5"}
    assert status.refused == []


def test_an_outage_is_one_warning(
    server: trainjob_double.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("INFO", logger=trainjob_status.logger.name)
    address = server.environment[trainjob_status.URL]
    status = trainjob_status.TrainJobStatus(address, "val_loss", maximize=False)
    # A controller's pod that is replaced gives several errors: refused, unreachable. Here the second is its certificate.
    for url in ("https://localhost:1", address.replace("localhost", "127.0.0.1")):
        status.url = url
        status.advance(1, 4)
        assert not status._post()
    for _ in range(2):
        status.url = address
        status.advance(2, 4)
        assert status._post()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], caplog.text
    assert "updated again" in caplog.text
    assert server.posts[-1]["progressPercentage"] == 50
    status.close()


def test_a_run_that_fails_does_not_say_100(status: trainjob_double.Server) -> None:
    with trainjob_status.post_status("val_loss", maximize=False):
        trainjob_status.report_step(3, 4)
    assert [post["progressPercentage"] for post in status.posts][-1] == 75
    assert trainjob_status._active == []


def test_what_the_server_would_refuse_is_not_sent(status: trainjob_double.Server) -> None:
    with trainjob_status.post_status("val_loss", maximize=False):
        metric_lines.listeners[-1](line(val_loss=1.0, **{"n" * 65: 1.0}, **{f"m{index}": 1.0 for index in range(300)}))
        trainjob_status.report_completion()
    assert status.refused == []
    assert values(status.posts[-1])["val_loss"] == "1.0"
    assert len(values(status.posts[-1])) == 256


def test_the_form_is_that_of_transformers(status: trainjob_double.Server) -> None:
    from transformers.integrations.integration_utils import KubeflowCallback

    callback = KubeflowCallback()
    state = SimpleNamespace(is_world_process_zero=True, max_steps=10, global_step=5, epoch=0.5)
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs={"loss": 2.0})
    callback._last_update_time = 0.0
    callback.on_step_end(None, state, None)
    theirs = status.posts[-1]
    with trainjob_status.post_status("loss", maximize=False):
        trainjob_status.report_step(0, 10)
        trainjob_status.report_step(5, 10)
        metric_lines.listeners[-1](line(loss=2.0))
    ours = status.posts[-1]
    assert ours.keys() == theirs.keys()
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    assert ours["progressPercentage"] == theirs["progressPercentage"]
    assert values(ours)["loss"] == values(theirs)["loss"]


def test_the_token_is_sent_over_tls_only(status: trainjob_double.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trainjob_status.URL, status.environment[trainjob_status.URL].replace("https", "http"))
    with trainjob_status.post_status("val_loss", maximize=False):
        assert trainjob_status._active == []


def test_a_slow_server_does_not_slow_a_training(status: trainjob_double.Server) -> None:
    status.delay = 0.5
    with trainjob_status.post_status("val_loss", maximize=False):
        for step in range(100_000):
            trainjob_status.report_step(step, 100_000)
        reached = len(status.posts)
        trainjob_status.report_completion()
    assert reached < 100  # steps do not wait for posts
    assert status.posts[-1]["progressPercentage"] == 100


@pytest.mark.slow
def test_one_rank_posts_and_a_signal_leaves_the_last_status(
    cache: Path, server: trainjob_double.Server, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(ROOT / "train.py"),
    ]
    command += [*SMALL, "trainer.max_epochs=-1", "trainer.max_steps=100000", "hydra.run.dir=run"]
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", **server.environment}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: (server.posts and values(server.posts[-1])) or process.poll() is not None, 240)
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert server.refused == []
    assert server.posts[-1]["progressPercentage"] < 100, stderr
    steps = [post["progressPercentage"] for post in server.posts]
    assert steps == sorted(steps)
    gaps = [
        (
            datetime.fromisoformat(later["lastUpdatedTime"]) - datetime.fromisoformat(post["lastUpdatedTime"])
        ).total_seconds()
        for post, later in zip(server.posts, server.posts[1:-1], strict=False)
    ]
    assert all(gap >= trainjob_status.INTERVAL_S - 0.1 for gap in gaps), gaps
