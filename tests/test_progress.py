"""Progress is for a person at a terminal: a bar with the time left there, plain lines elsewhere, never on stdout."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.conftest import ROOT, Run, parse_metric_line
from tests.test_train import QUESTIONS

from katib.metric_filter import find_values
from runs.metric_lines import KATIB_FILTER

NOISY = """import logging
from trainers.question_answering import QuestionAnswering


class Noisy(QuestionAnswering):
    def training_step(self, batch, index):
        logging.getLogger("noisy").warning("a message of step %d", self.trainer.global_step)
        return super().training_step(batch, index)
"""


def test_a_bar_on_a_terminal_and_metric_lines_alone_on_stdout(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {
        **os.environ,
        "ISOTRAIN_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "80",
        "TERM": "xterm",
        "PYTHONPATH": str(tmp_path),
    }
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *QUESTIONS[1:], "hydra.run.dir=run", "model._target_=noisy.Noisy"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    stdout, _ = process.communicate()
    assert process.returncode == 0, shown
    text = shown.decode()
    assert re.search(r"training:\s+\d+%\|.*\d+/20 \[[\d:]+<[\d:]+,.*(step/s|s/step)", text), text
    assert re.search(r"training: [^\r]*, loss [\d.]+\]", text), text
    visible = [re.sub(r"\x1b\[\w", "", line) for line in re.split(r"[\r\n]+", text)]
    assert max(len(line) for line in visible if " " in line.strip()) <= 80, visible  # a path is not broken
    bars = {line.split(":")[0] for line in visible if "%|" in line}
    assert bars <= {"training", "validating", "tokenising"}, bars
    messages = [line for line in visible if "a message of step" in line]
    assert messages == [f"WARNING noisy: a message of step {step}" for step in range(20)], messages
    *epochs, best = [parse_metric_line(line).step for line in stdout.splitlines()]
    assert epochs == [10, 20]
    assert best in epochs
    assert "\r" not in stdout


def test_no_bar_in_a_pipe_and_a_block_at_both_ends(run: Run, tmp_path: Path) -> None:
    done = run(*QUESTIONS, "trainer.max_steps=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    blocks = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line[:1].islower()}
    assert re.fullmatch(r"bert_tiny: [\d,]+ parameters, random weights", blocks["model"]), lines
    assert re.fullmatch(r"squad_sample: \d+ questions to train on, \d+ to validate on", blocks["data"]), lines
    assert re.fullmatch(r"cpu \(1 thread\), precision \S+", blocks["device"]), lines
    assert re.fullmatch(r"2 steps, 0\.\d+ epochs, batch size \d+", blocks["training"]), lines
    assert (blocks["folder"], blocks["report"]) == ("run", "run/report.html")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert blocks["best"].startswith(f"epoch 1, step 2: val_loss={record['metrics']['val_loss']:.6g} "), lines
    commands = [line.removeprefix("next").strip() for line in lines if " python -m " in line]
    assert commands == [
        "python -m trainers evaluate run=run",
        "python -m trainers predict run=run FILE",
        "python -m runs compare run OTHER_RUN",
    ]
    assert "\r" not in done.stderr
    assert "%|" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_a_trials_stderr_has_no_metrics(run: Run, tmp_path: Path) -> None:
    """Katib collects it with stdout: each validation counts once."""
    done = run(*QUESTIONS, "trainer.max_steps=2", "hydra.run.dir=run", KATIB_TRIAL_NAME="a-1")
    assert done.returncode == 0, done.stderr
    assert "best       epoch 1, step 2: val_loss " in done.stderr
    monitored = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    values = [name for line in done.stderr.splitlines() for name, _ in find_values(KATIB_FILTER, line)]
    assert not set(values) & set(monitored), done.stderr
    assert {name for line in done.stdout.splitlines() for name, _ in find_values(KATIB_FILTER, line)} >= set(monitored)
