"""Commands of isotrain as subprocesses of a step: output goes to the step's log, signals go to the command."""

import shlex
import signal
import subprocess
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
from config.errors import ExecutionError, SignalInterrupt
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
    variables = environment()
    variables.pop("_KFP_RUNTIME", None)  # set in a step; with it, importing kfp hides its client
    print(f"$ {text}", flush=True)
    start = time.monotonic()
    # stderr goes to KFP's log at once; stdout, the result, is also returned.
    process = subprocess.Popen(
        command_line(*map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,  # Ctrl-C on a terminal must reach it only once, forwarded
    )
    messages: deque[str] = deque([""], maxlen=1)
    with _forward_signals(process):
        reader = threading.Thread(target=_print_stderr, args=(process.stderr, messages), daemon=True)
        reader.start()
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
        code = process.wait()
        reader.join()
    step["commands"].append({"command": text, "seconds": time.monotonic() - start, "code": code})
    code = 128 - code if code < 0 else code
    step |= {"exit": code, "said": messages[-1]}
    if code not in valid_codes:
        reason = f"{text} ended with exit code {code}, {EXIT_CODES.get(code, 'a bug')}"
        raise ExecutionError(messages[-1] or reason, code)
    return "".join(lines)


def _print_stderr(stream: Any, messages: deque[str]) -> None:
    """Print the lines of stderr, and keep the last message among them."""
    for line in stream:
        print(line, end="", flush=True)
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
