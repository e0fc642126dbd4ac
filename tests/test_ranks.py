"""Several ranks: started differently, interrupted at any moment, or lost; all of them end, with one exit code."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT
from tests.test_distributed import COMMON, QUESTIONS, environment

from config import interrupts
from config.errors import InputError, ProcessLostError, SignalInterrupt
from trainers import checkpoints, peers, rendezvous

LONG = [*QUESTIONS, *COMMON, "trainer.max_epochs=-1", "trainer.max_steps=100000", "trainer.val_check_interval=8"]
END_S = 45  # the longest that a rank may go on after another one has ended, on a loaded machine


class Rank:
    """A rank that is forked from a warm process, as `conftest.forked` does it, and can be signalled."""

    def __init__(self, warm: Path, arguments: list[str], variables: dict[str, str], folder: Path) -> None:
        self.stderr = folder / f"rank{variables['RANK']}.err"
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(str(warm))
        request = {"arguments": arguments, "folder": str(folder), "environment": variables}
        request |= {"stdout": str(self.stderr.with_suffix(".out")), "stderr": str(self.stderr)}
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        self.answers = self.connection.makefile()
        self.pid = int(self.answers.readline())

    def wait(self, seconds: float) -> int:
        """The exit code; a rank that goes on for longer is killed, and the test fails."""
        self.connection.settimeout(seconds)
        try:
            return int(self.answers.readline())
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"{self.stderr.name} goes on: {self.stderr.read_text()[-2000:]}") from None

    def errors(self) -> str:
        return self.stderr.read_text()


Start = Callable[..., list[Rank]]


@pytest.fixture
def start(warm: Path, cache: Path, tmp_path: Path) -> Start:
    """Starts ranks without torchrun; `others` are overrides of all but rank zero."""

    def call(overrides: list[str], others: list[str] | None = None, count: int = 2) -> list[Rank]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {**environment(cache), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [str(ROOT / "train.py"), *overrides, f"hydra.run.dir={tmp_path / 'run'}"]
        return [
            Rank(warm, [*command, *((others or []) if number else [])], {**shared, "RANK": str(number)}, tmp_path)
            for number in range(count)
        ]

    return call


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"there is no {path}"
        time.sleep(0.02)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "run.json").read_text())


def test_ranks_with_different_configurations_are_refused(start: Start, tmp_path: Path) -> None:
    """The settings of the machine may differ; nothing is prepared or written."""
    ranks = start(LONG, ["optim.lr=0.5", "data.batch_size=4", "data.workers=1"])
    assert [rank.wait(END_S) for rank in ranks] == [2, 2]
    for rank in ranks:
        errors = rank.errors()
        assert "optim.lr: 0.05 on rank 0, 0.5 on rank 1" in errors
        assert "data.batch_size: 8 on rank 0, 4 on rank 1" in errors
        assert "data.workers" not in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_a_rank_whose_command_is_refused_ends_the_others(start: Start) -> None:
    """Hydra refuses it before the ranks have met."""
    ranks = start(LONG, ["optim.lrx=1"])
    assert [rank.wait(END_S) for rank in ranks] == [2, 2]
    assert all("unknown key optim.lrx" in rank.errors() for rank in ranks)


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_others_and_is_told(lost: int, start: Start, tmp_path: Path) -> None:
    ranks = start(LONG)
    wait_for(tmp_path / "run" / "metrics.jsonl")
    os.kill(ranks[lost].pid, signal.SIGKILL)
    assert ranks[lost].wait(END_S) == -signal.SIGKILL
    survivor = ranks[1 - lost]
    assert survivor.wait(END_S) == 138, survivor.errors()
    assert f"rank {lost} (process {ranks[lost].pid} on " in survivor.errors()
    assert "was lost" in survivor.errors()
    assert "a bug" not in survivor.errors()
    assert "Traceback" not in survivor.errors()
    if lost == 1:
        fields = record(tmp_path)
        assert (fields["status"], fields["exit_code"]) == ("failed", 138)
        assert fields["reason"].startswith("rank 1 ")


@pytest.mark.slow
def test_the_rank_that_is_lost_is_named_among_three(start: Start, tmp_path: Path) -> None:
    ranks = start([*LONG, "data.batch_size=9", "trainer.val_check_interval=7"], count=3)
    wait_for(tmp_path / "run" / "metrics.jsonl")
    os.kill(ranks[2].pid, signal.SIGKILL)
    assert [rank.wait(END_S) for rank in ranks] == [138, 138, -signal.SIGKILL]
    assert record(tmp_path)["reason"].startswith("rank 2 ")


@pytest.mark.slow
def test_a_rank_that_stands_still_is_lost_after_a_minute(start: Start, tmp_path: Path) -> None:
    """As one whose machine is gone: no connection is closed."""
    ranks = start(LONG)
    wait_for(tmp_path / "run" / "metrics.jsonl")
    os.kill(ranks[1].pid, signal.SIGSTOP)
    try:
        assert ranks[0].wait(peers.LOST_S + END_S) == 138, ranks[0].errors()
    finally:
        os.kill(ranks[1].pid, signal.SIGKILL)
    assert "rank 1 " in record(tmp_path)["reason"]


def interrupt(ranks: list[Rank], number: int, folder: Path) -> None:
    """Send SIGTERM to one rank, and expect that all ranks end as they should."""
    os.kill(ranks[number].pid, signal.SIGTERM)
    codes = [rank.wait(END_S) for rank in ranks]
    errors = [rank.errors() for rank in ranks]
    assert codes == [143, 143], errors
    assert "Traceback" not in "".join(errors), errors
    assert "a bug" not in "".join(errors), errors
    if (folder / "run" / "run.json").exists():
        assert record(folder)["status"] == "interrupted"
    if (folder / "run" / "metrics.jsonl").exists():
        checkpoints.read(folder / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("moment", ["set-up", pytest.param("training", marks=pytest.mark.slow)])
def test_sigterm_to_one_rank_ends_all_of_them(moment: str, start: Start, tmp_path: Path) -> None:
    ranks = start(LONG)
    wait_for(tmp_path / "run" / {"set-up": "run.json", "training": "metrics.jsonl"}[moment])
    interrupt(ranks, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_sigterm_at_any_moment_ends_all_ranks(seed: int, start: Start, tmp_path: Path) -> None:
    """From the first imports of train.py to validations and checkpoints."""
    source = random.Random(seed)
    ranks = start(LONG)
    time.sleep(source.uniform(0.3, 15))
    interrupt(ranks, source.randrange(2), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.4, 1, 2, 4, 6, 9])
def test_sigterm_while_the_interpreter_starts(seconds: float, cache: Path, tmp_path: Path) -> None:
    """Real interpreters. One that ends before it handles signals is missed after the start time-out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, rendezvous.START_VARIABLE: "40"}
    command = [sys.executable, str(ROOT / "train.py"), *LONG, f"hydra.run.dir={tmp_path / 'run'}"]
    ranks = [
        subprocess.Popen(
            command, env={**environment(cache), **shared, "RANK": number}, stderr=subprocess.PIPE, text=True
        )
        for number in ("0", "1")
    ]
    time.sleep(seconds)
    ranks[1].terminate()
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    codes = [rank.returncode for rank in ranks]
    assert codes in ([143, 143], [138, -15], [138, 143]), errors
    assert "Traceback" not in "".join(errors), errors
    assert "a bug" not in "".join(errors), errors


@pytest.mark.slow
def test_sigterm_after_the_last_step_ends_all_ranks(start: Start, tmp_path: Path) -> None:
    """Rank one has nothing to do any more, while rank zero exports."""
    ranks = start([*QUESTIONS, *COMMON, "trainer.max_steps=8"])
    wait_for(tmp_path / "run" / "predictions.jsonl")
    os.kill(ranks[1].pid, signal.SIGTERM)
    codes = [rank.wait(END_S) for rank in ranks]
    assert codes in ([143, 143], [0, 0]), [rank.errors() for rank in ranks]
    assert record(tmp_path)["status"] == ("interrupted" if codes[0] else "finished")


# --- in this process


@pytest.fixture
def handlers() -> Iterator[interrupts.Interrupts]:
    previous = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    signals = interrupts.Interrupts()
    signals.install()
    yield signals
    signals.restore()
    for number, handler in previous.items():
        signal.signal(number, handler)


def test_a_signal_raises_unless_it_is_deferred(handlers: interrupts.Interrupts) -> None:
    handlers.deferred = True
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # torchrun repeats it at once
    assert handlers.received == signal.SIGTERM
    with pytest.raises(SignalInterrupt) as raised:
        handlers.end_deferral()
    assert raised.value.exit_code == 143
    handlers.ended = True
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_exception_of_another_thread_interrupts_a_wait(handlers: interrupts.Interrupts) -> None:
    handlers.deferred = True
    ending = peers.Ending(1, "failed", 8, "no space left", "elsewhere")
    threading.Timer(0.1, lambda: handlers.post(peers.ProcessEnding(ending))).start()
    started = time.monotonic()
    with pytest.raises(peers.ProcessEnding, match="no space left") as raised:
        time.sleep(20)
    assert raised.value.exit_code == 8
    assert time.monotonic() - started < interrupts.REPEAT_S


def test_a_signal_waits_for_the_end_of_an_import(
    handlers: interrupts.Interrupts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extension modules crash where their import is interrupted."""
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.3)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SignalInterrupt):
        wait_after_import()
    assert sys.modules.pop("slow_module").done


def wait_after_import() -> None:
    import slow_module  # type: ignore[import-not-found]

    assert slow_module.done
    time.sleep(10)


def test_a_main_thread_that_does_not_react_is_ended() -> None:
    """It is inside a library: no handler runs."""
    code = (
        "import os, signal, threading\n"
        "from config import interrupts\n"
        "interrupts.STUCK_S = 1.0\n"
        "signals = interrupts.install()\nsignals.deferred = False\n"
        "signals.on_stuck = lambda error: print('record', flush=True)\n"
        "threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()\n"
        "import ctypes\n"
        "seconds = ctypes.CDLL(None).sleep\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"  # another thread gets it, as sleep would end
        "seconds(20)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 143, done.stderr
    assert done.stdout == "record\n"
    assert done.stderr == "isotrain: interrupted\n"
    assert time.monotonic() - started < 9


def description(**changes: Any) -> dict[str, Any]:
    return {"host": "a", "pid": 1, "processes": 2, "code of isotrain": "x", "config": {"seed": 1}, **changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"config": {"seed": 2}}, "seed: 1 on rank 0, 2 on rank 1"),
        ({"code of isotrain": "y"}, "code of isotrain"),
        ({"processes": 3}, "processes: 2 on rank 0, 3 on rank 1"),
        ({"config": {"seed": 1, "data": {"cache_dir": "/b"}}}, ""),
        ({"host": "b", "pid": 7}, ""),
    ],
)
def test_what_ranks_must_have_in_common(changes: dict[str, Any], text: str) -> None:
    ranks = [description(), description(**changes)]
    if not text:
        rendezvous.compare(ranks)
        return
    with pytest.raises(InputError, match=text):
        rendezvous.compare(ranks)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("NCCL error in: x, remote process exited or there was a network error"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_errors_of_collectives_are_told_from_others(error: Exception, lost: bool) -> None:
    assert peers.is_lost_connection(error) == lost


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_variable_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(InputError, match=missing):
        rendezvous.join(1)


def test_a_server_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProcessLostError, match="rank 0 does not answer"):
        rendezvous.join(0.1)
