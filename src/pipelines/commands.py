"""Commands of isotrain, and of the user, as subprocesses of a step: output goes to the step's log, signals go to the command."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.reasons import EXIT_CODES
from config.child_process import PREFIX, command_line, environment
from config.errors import ExecutionError, InputError, SignalInterrupt
from config.files import PROJECT
from config.masking import mask_command


def experiment_path(file: str) -> Path:
    """Return the file of an Experiment, relative to the present folder or to the project (the image has the latter)."""
    return Path(file) if Path(file).exists() else PROJECT / file


def run_command(step: dict[str, Any], *command: str | Path, valid_codes: Sequence[int] = (0,)) -> str:
    """Run `python COMMAND` and add it to the record of the step.

    Args:
        step: Record of the step; gets `commands`, `exit` (the exit code) and `said` (the last message on stderr).
        command: Words after python: "train.py", or "-m", "quality", and arguments.
        valid_codes: Exit codes that are not a failure of the step.

    Returns:
        Its stdout; each line is printed, too.

    Raises:
        ExecutionError: Another exit code; the message is the last one of the command.
    """
    text = shlex.join(mask_command(["python", *map(str, command)]))
    lines, message, _ = _run(step, command_line(*map(str, command)), text)
    if step["exit"] not in valid_codes:
        reason = f"{text} ended with exit code {step['exit']}, {EXIT_CODES.get(step['exit'], 'a bug')}"
        raise ExecutionError(message or reason, step["exit"])
    return "".join(lines)


def run_program(step: dict[str, Any], words: Sequence[str]) -> None:
    """Run a command of the user's own, without a shell, and add it to the record of the step; see `run_command`.

    Args:
        step: Record of the step.
        words: Words of the command; "python" is this interpreter.

    Raises:
        InputError: There is no such program.
        ExecutionError: The command failed; the message has its exit code and the last line on stderr.
    """
    text = shlex.join(mask_command(list(words)))
    program = sys.executable if words[0] == "python" else shutil.which(words[0])
    if program is None:
        raise InputError(f"{words[0]}: there is no such program in this environment, or image")
    _, message, last = _run(step, [program, *words[1:]], text)
    if step["exit"]:
        raise ExecutionError(
            message or f"{text} ended with exit code {step['exit']}{last and f': {last}'}", step["exit"]
        )


def set_environment(root: str) -> None:
    """Share prepared data on the volume, and wait for folders that another pipeline run uses."""
    os.environ.setdefault("ISOTRAIN_CACHE", str(Path(root).absolute() / "cache"))
    os.environ.setdefault("ISOTRAIN_WAIT", "1")


def _run(step: dict[str, Any], arguments: Sequence[str], text: str) -> tuple[list[str], str, str]:
    """Run a command and record it: lines of stdout, the last message of isotrain and the last line on stderr."""
    variables = environment()
    variables.pop("_KFP_RUNTIME", None)  # set in a step; with it, importing kfp hides its client
    print(f"$ {text}", flush=True)
    start = time.monotonic()
    # stderr goes to KFP's log at once; stdout, the result, is also returned.
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,  # Ctrl-C on a terminal must reach it only once, forwarded
    )
    messages: deque[str] = deque([""], maxlen=1)
    last: deque[str] = deque([""], maxlen=1)
    with _forward_signals(process):
        reader = threading.Thread(target=_print_stderr, args=(process.stderr, messages, last), daemon=True)
        reader.start()
        lines = []
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line)
        except BrokenPipeError:  # the pod is deleted: a checkpoint may still be written
            process.terminate()
            raise
        code = process.wait()
        reader.join()
    step["commands"].append({"command": text, "seconds": time.monotonic() - start, "code": code})
    code = 128 - code if code < 0 else code
    step |= {"exit": code, "said": messages[-1]}
    return lines, messages[-1], last[-1]


def _print_stderr(stream: Any, messages: deque[str], last: deque[str]) -> None:
    """Print the lines of stderr, and keep the last message among them, and the last line that is not empty."""
    for line in stream:
        print(line, end="", flush=True)
        if line.strip():
            last.append(line.strip())
        if line.strip().startswith(PREFIX):
            messages.append(line.strip().removeprefix(PREFIX))


@contextmanager
def _forward_signals(process: subprocess.Popen[str]) -> Iterator[None]:
    """Forward SIGTERM to the command and wait until it ends, so that it can write its checkpoint.

    SIGINT is ignored: `pipelines.local` turns it into a SIGTERM for each step.
    """

    outer = signal.getsignal(signal.SIGTERM)

    def forward(number: int, frame: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)
        # That of the step records the interruption at once. It must not raise before the command ends.
        if callable(outer):
            with suppress(SignalInterrupt):
                outer(number, frame)

    handlers = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
