"""`train.py -m`: a job that fails does not end the others; a signal ends all, with a checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT, Run
from tests.test_resume import QUESTIONS

SMALL = ["-m", *QUESTIONS, "quality=off", "logger=none", "trainer.threads=1", "hydra.sweep.dir=sweep"]


def test_jobs_go_on_after_one_that_fails(run: Run, tmp_path: Path) -> None:
    done = run("train.py", *SMALL, "trainer.max_steps=1", "seed=-1,3,-2,4")
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    statuses = [json.loads((tmp_path / "sweep" / job / "run.json").read_text())["status"] for job in ("1", "3")]
    assert statuses == ["finished", "finished"]
    assert done.stderr.count("isotrain: seed=-") == 2  # the messages of the jobs
    (message,) = [line for line in done.stderr.splitlines() if "jobs of the sweep failed" in line]
    assert [f"#{job} (" in message for job in range(4)] == [True, False, True, False]
    assert "seed=-1) with exit code 2; #2 (" in message
    assert message.endswith("seed=-2) with exit code 2")


def test_a_signal_in_a_later_job_ends_the_sweep_with_a_checkpoint(cache: Path, tmp_path: Path) -> None:
    later = tmp_path / "sweep" / "1" / "metrics.jsonl"
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "trainer.max_steps='${data.max_train}'"]
    command += ["trainer.max_epochs=-1", "data.max_train=40,100000,50", "trainer.val_check_interval=20"]
    command += ["trainer.check_val_every_n_epoch=null"]
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 300
        while not later.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        try:
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 143, stderr
    record = json.loads((later.parent / "run.json").read_text())
    assert record["status"] == "interrupted", record
    assert (later.parent / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "sweep" / "2").exists()
