"""Commands in processes forked from this one, which has imported what takes seconds."""

import contextlib
import ctypes
import faulthandler
import importlib
import os
import resource
import select
import signal
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests import warm
from tests.fuzz.world import ROOT

MEMORY = 4 * 2**30
SECONDS = 60  # of processor time: the machine may be busy
PATIENCE = 180  # seconds of the clock
_MODULES = (
    *("hydra", "torch", "torchvision", "lightning.pytorch", "transformers", "timm", "pandas", "pyarrow.parquet", "scipy.stats"),
    *("PIL.Image", "duckdb", "optuna", "jinja2", "yaml", "ruamel.yaml", "shap", "sqlalchemy", "safetensors.torch"),
    *("transformers.models.bert.modeling_bert", "transformers.models.auto.modeling_auto"),
    *("trainers.run", "trainers.fit", "trainers.build", "explain.gate", "explain.run", "quality.gate", "quality.drift"),
    *("tasks.question_answering", "tasks.text_classification", "tasks.image_classification", "trainers.predict"),
    *("katib.check", "katib.run", "pipelines.compilation", "runs.compare", "runs.report", "mlflow"),
)  # fmt: skip


class Result(NamedTuple):
    """How a command ended."""

    code: int  # of the process; minus the number of the signal that ended it
    stdout: str
    stderr: str
    seconds: float  # of processor time
    memory: int  # bytes, of the largest process
    in_time: bool  # it ended within PATIENCE


def warm_up() -> None:
    """Import what the commands import, so that forked processes need not."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
    for module in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


class Process(NamedTuple):
    """A running command: its id, and the ends of pipes with its stdout and stderr."""

    id: int
    stdout: int
    stderr: int


def drop_rights() -> None:
    """Let root be refused as any user is: without the capabilities that override permissions."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of capget and capset
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for i in (0, 1, 2):  # effective, permitted, inheritable
        data[i] &= ~(1 << 1 | 1 << 2 | 1 << 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def start(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Path,
    file_size: int = MEMORY,
    rights: bool = True,
) -> Process:
    """Start a command, the leader of a process group.

    Args:
        arguments: `train.py` or `-m` and a package, then the arguments.
        folder: Where it starts.
        environment: All of its environment.
        output: A folder for pipes with its stdout and stderr.
        file_size: Bytes after which a file cannot grow, as on a full disk.
        rights: Whether root has root's rights.
    """
    head = [str(ROOT / "train.py")] if arguments[0] == "train.py" else [arguments[0]]
    request = {"arguments": [*head, *arguments[1:]], "folder": str(folder), "environment": dict(environment)}
    ends = []
    for name in ("stdout", "stderr"):
        request[name] = str(output / name)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(output / name)
        ends.append(os.open(output / name, os.O_RDONLY | os.O_NONBLOCK))
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with this process
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY + 2**30, MEMORY + 2**30))  # the machine outlives a bomb
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, MEMORY))
            if not rights:
                drop_rights()
            faulthandler.register(signal.SIGUSR2, 2, all_threads=True)
            for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
                finalizer.atexit = False  # temporary folders are the parent's, and stay
            code = warm.command(request)
        finally:
            os._exit(code)
    return Process(process, *ends)


def finish(process: Process, patience: float = PATIENCE) -> Result:
    """Wait for a command, and end it and what it left running after `patience` seconds."""
    end = time.monotonic() + patience
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    while True:
        for file in select.select(list(texts), [], [], 0.01)[0]:
            with contextlib.suppress(BlockingIOError):
                texts[file] += os.read(file, 1 << 20)
        ended, status, usage = os.wait4(process.id, os.WNOHANG)
        if ended or time.monotonic() > end:
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not ended:
            os.kill(process.id, signal.SIGUSR2)  # writes where it hangs to stderr
            time.sleep(1)
        os.killpg(process.id, signal.SIGKILL)
    if in_time := bool(ended):
        code = os.waitstatus_to_exitcode(status)
    else:
        _, status, usage = os.wait4(process.id, 0)
        code = -signal.SIGKILL
    for file, text in texts.items():
        with contextlib.suppress(BlockingIOError):
            while block := os.read(file, 1 << 20):
                text += block
        os.close(file)
    stdout, stderr = (text.decode("utf-8", "backslashreplace") for text in texts.values())
    return Result(code, stdout, stderr, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, in_time)


def run(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path, **limits: Any) -> Result:
    """Run a command to its end; `limits` are those of `start`."""
    return finish(start(arguments, folder, environment, output, **limits))
