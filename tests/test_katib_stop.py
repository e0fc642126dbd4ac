"""`python -m katib stop` ends the trainings of this installation, and no other process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from config import files
from config.errors import InputError
from katib import shell_command, stop
from runs import folder as folders

Start = Callable[..., subprocess.Popen[bytes]]
# A training: it makes a file, and removes it on SIGTERM. With a folder, it holds the lock of a run folder.
TRAIN = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).unlink()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
import contextlib
from runs import folder
with folder.lock_folder(sys.argv[2]) if len(sys.argv) > 2 else contextlib.nullcontext():
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
"""
# A launcher: it starts a rank, and passes SIGTERM on.
TORCHRUN = """
import signal, subprocess, sys
rank = subprocess.Popen([sys.executable, *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: rank.terminate())
sys.exit(rank.wait() + 1)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a command in a folder of its own, whose train.py is this installation's; waits for its file `ready`."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "torchrun").write_text(TORCHRUN)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.py").write_text(TRAIN)
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    started: list[subprocess.Popen[bytes]] = []

    def call(*command: str, cwd: Path = tmp_path, ready: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=cwd)
        started.append(process)
        end = time.monotonic() + 30
        while ready and not (cwd / ready).exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        return process

    yield call
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


PYTHON = sys.executable


def test_nothing_but_a_training_of_this_installation_is_stopped(start: Start, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    others = [
        start("tail", "-f", "train.py"),
        start("sh", "-c", "sleep 60; true", "train.py"),
        start(PYTHON, "-c", "import time; time.sleep(60)", "train.py"),
        start(PYTHON, "train.py", "ready", cwd=tmp_path / "other", ready="ready"),
        start(PYTHON, str(tmp_path / "other" / "train.py"), "elsewhere", ready="elsewhere"),
        start(PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "0", cwd=tmp_path / "other"),
    ]
    before = set(tmp_path.rglob("*"))
    own = [
        start(PYTHON, "train.py", "one", ready="one"),
        start(PYTHON, "-u", "-X", "utf8", "-W", "ignore", "train.py", "two", ready="two"),
        start(PYTHON, "-Bsu", str(tmp_path / "train.py"), "three", ready="three"),
        start(PYTHON, "../train.py", "four", cwd=tmp_path / "other", ready="four"),
        start("sh", "-c", f"{PYTHON} train.py five && echo completed", ready="five"),
    ]
    assert stop.stop_trainings(30)
    assert {process.wait(10) for process in own} <= {0, 143}  # 0 where psutil got the code
    assert set(tmp_path.rglob("*")) == before  # each has ended by the signal
    assert [process.poll() for process in others] == [None] * len(others)


@pytest.mark.parametrize("launcher", [["torchrun"], ["-u", "torchrun"]])
def test_a_launcher_gets_the_signal_in_place_of_its_ranks(launcher: list[str], start: Start, tmp_path: Path) -> None:
    process = start(PYTHON, *launcher, "train.py", "ready", ready="ready")
    sent: list[int] = []
    send = psutil.Process.send_signal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil.Process, "send_signal", lambda self, number: (sent.append(self.pid), send(self, number)))
        assert stop.stop_trainings(30)
    assert sent == [process.pid]
    process.wait(10)
    assert not (tmp_path / "ready").exists()


def test_copies_of_a_training_are_left_to_it(start: Start, tmp_path: Path) -> None:
    """Data-loading workers are forks: they have the command line of the training."""
    code = TRAIN.replace(
        "    time.sleep(60)", "    import os\n    if (child := os.fork()): os.waitpid(child, 0)\n    time.sleep(60)"
    )
    (tmp_path / "train.py").write_text(code)
    process = start(PYTHON, "train.py", "ready", ready="ready")
    sent: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil.Process, "send_signal", lambda self, number: sent.append(self.pid))
        assert not stop.stop_trainings(0)
    assert sent == [process.pid]


def test_a_run_folder_names_its_training(start: Start, tmp_path: Path) -> None:
    runs = {name: start(PYTHON, "train.py", name, f"run-{name}", ready=name) for name in ("a", "b")}
    with pytest.raises(InputError, match=r"several folders \(.*run-a, .*run-b\): name one"):
        stop.stop_trainings(1)
    assert [process.poll() for process in runs.values()] == [None, None]
    with pytest.raises(InputError, match="no run folder"):
        stop.stop_trainings(1, tmp_path / "run-c")
    (tmp_path / "run-d").mkdir()
    owner = json.loads((tmp_path / "run-a" / folders.OWNER).read_text())
    (tmp_path / "run-d" / folders.OWNER).write_text(
        json.dumps(owner)
    )  # left by a killed process whose id is another's now
    assert stop.stop_trainings(1, tmp_path / "run-d")
    (tmp_path / "run-a" / folders.OWNER).write_text(json.dumps({**owner, "host": "another"}))
    assert stop.stop_trainings(1, tmp_path / "run-a")
    (tmp_path / "run-a" / folders.OWNER).write_text(json.dumps(owner))
    assert [process.poll() for process in runs.values()] == [None, None]
    assert stop.stop_trainings(30, tmp_path / "run-a")
    runs["a"].wait(10)
    assert not (tmp_path / "a").exists()
    assert runs["b"].poll() is None
    os.environ["KATIB_TRIAL_NAME"] = "trial"  # in a trial's pod all are the trial's
    try:
        assert stop.stop_trainings(30)
    finally:
        del os.environ["KATIB_TRIAL_NAME"]
    runs["b"].wait(10)
    assert not (tmp_path / "b").exists()


def test_trainings_of_another_container_are_left_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of a pod may share process ids, not the namespace of mounts."""
    process = start(PYTHON, "train.py", "ready", ready="ready")
    readlink = Path.readlink
    own = Path("/proc/self/ns/mnt")
    monkeypatch.setattr(Path, "readlink", lambda path: Path("mnt:[1]") if path == own else readlink(path))
    assert stop.stop_trainings(0.1)
    assert process.poll() is None


def test_a_training_that_does_not_end_is_waited_for(start: Start, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN.replace("    sys.exit(143)\n", ""))
    process = start(PYTHON, "train.py", "ready", ready="ready")
    assert not stop.stop_trainings(0.2)
    process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["python", "train.py", "-c"], ("script", "train.py")),
        (["python3.11", "-c", "code", "train.py"], ("", "")),
        (["python", "-ic", "code", "train.py"], ("", "")),
        (["python", "-m", "pdb", "train.py"], ("module", "pdb")),
        (["python", "-um", "pdb", "train.py"], ("module", "pdb")),
        (["python", "-mtorch.distributed.run", "train.py"], ("module", "torch.distributed.run")),
        (["python", "-Xutf8", "-W", "train.py", "a.py"], ("script", "a.py")),
        (["python", "--check-hash-based-pycs", "always", "a.py"], ("script", "a.py")),
        (["python", "-"], ("", "")),
        (["python"], ("", "")),
        ([], ("", "")),
    ],
)
def test_the_program_of_a_command_line(words: list[str], program: tuple[str, str]) -> None:
    assert stop._program(words) == program


def test_the_wrapper_for_early_stopping_ends_with_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with 1, as after a failure: the pod is replaced."""
    program, ready = tmp_path / "program.py", tmp_path / "ready"
    program.write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    line = f"{sys.executable} {program}"
    words = shell_command.wrap(["sh", "-c", line], "StdOut", f"{tmp_path}/metrics.log", stops_early=True)
    shell = psutil.Popen([*words[:2], shell_command.expand(words[2], {})])
    try:
        while not ready.exists():
            time.sleep(0.05)
        pids = [child.pid for child in shell.children()]
        monkeypatch.setattr(stop, "_is_training", lambda process: process.pid in pids)
        assert stop.stop_trainings(10)
        assert shell.wait(10) == -signal.SIGTERM
    finally:
        for process in (*shell.children(), shell) if shell.is_running() else ():
            process.kill()
