"""Our command lines, run by a step: their output goes on to the step's log, a signal goes on to them."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from config.errors import ExecutionError
from config.source_code import PROJECT

MEANS = {
    2: "refused", 3: "training diverged", 4: "the data contract is broken", 5: "the explanation gate failed",
    6: "the search failed", 7: "a server is out of reach", 8: "out of disk or memory",
    130: "interrupted", 143: "interrupted",
}  # fmt: skip


def experiment_path(file: str) -> Path:
    """The file of an Experiment: one of this folder, or of the project, which an image has."""
    return Path(file) if Path(file).exists() else PROJECT / file


def run_command(mine: dict[str, Any], *command: str | Path, good: Sequence[int] = (0,)) -> str:
    """Runs `python COMMAND`, and keeps what it did in the step's record.

    Args:
        mine: the step's record.
        command: after python: "train.py", or "-m", "quality", and arguments.
        good: exit codes that are no failure of the step.

    Returns:
        What it wrote to stdout; each line has been passed on, too.

    Raises:
        ExecutionError: another exit code; the message ends with the last that it said.
    """
    words = [str(PROJECT / word) if word == "train.py" else str(word) for word in command]
    shown = re.sub(r"://[^/@\s]+@", "://***@", shlex.join(["python", *map(str, command)]))
    environment = {**os.environ}
    path = [str(PROJECT / "src"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment.pop("_KFP_RUNTIME", None)  # KFP's own mark of a step would hide its client from our commands
    print(f"$ {shown}", flush=True)
    began = time.monotonic()
    # stderr joins KFP's log at once; stdout is read, for it is the result.
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C on a terminal reaches it once, from us
    )
    said: list[str] = []
    with _forwarding(process):
        errors = _reader(process.stderr, said)
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
        code = process.wait()
        errors.join()
    mine["commands"].append({"command": shown, "seconds": time.monotonic() - began, "code": code})
    mine["exit"] = code = 128 - code if code < 0 else code
    mine["said"] = next(
        (each.removeprefix("isotrain: ") for each in reversed(said) if each.startswith("isotrain: ")), ""
    )
    if code not in good:
        raise ExecutionError(mine["said"] or f"{shown} ended with {code}, {MEANS.get(code, 'a bug')}", code)
    return "".join(lines)


def _reader(stream: Any, said: list[str]) -> Any:
    import threading

    def read() -> None:
        for line in stream:
            print(line, end="", flush=True)
            if line.strip():
                said.append(line.strip())
                del said[:-50]

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


@contextmanager
def _forwarding(process: subprocess.Popen[str]) -> Iterator[None]:
    """Passes SIGTERM on, and waits for the checkpoint instead of leaving the command behind.

    Ctrl-C comes as SIGTERM, too: from whoever started the steps (`pipelines.local`).
    """

    def forward(number: int, _: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
