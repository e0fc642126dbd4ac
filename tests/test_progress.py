"""Progress is for a person at a terminal: a bar with the time left there, plain lines elsewhere, never on stdout."""

import fcntl
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


def test_a_bar_on_a_terminal_and_metric_lines_alone_on_stdout(cache: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *QUESTIONS[1:], "hydra.run.dir=run"],
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
    assert re.search(r"training:\s+\d+%\|.*\d+/20 \[[\d:]+<[\d:]+", text), text
    *epochs, best = [parse_metric_line(line).step for line in stdout.splitlines()]
    assert epochs == [10, 20]
    assert best in epochs
    assert "\r" not in stdout


def test_no_bar_in_a_pipe(run: Run) -> None:
    done = run(*QUESTIONS, "trainer.max_steps=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    assert "%|" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
