"""The process from which `python -m katib run --warm` forks its trials, after it has imported what a training imports.

`python fork_server.py SOCKET LIFELINE PADDING` with the numbers of two open files: a socket with one line of JSON for each
request and answer, and a pipe whose other end only the search has. Each trial is two processes, as behind `sh -c`: the one
in the place of the shell waits for the training, and then becomes the shell that runs the rest of the line. Both are
children of the search, which is the reaper of its descendants, and outlive this process; they end if the search is killed.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path[0] = str(ROOT)  # as for train.py
    START_PATH = list(sys.path)
    sys.path.insert(0, str(ROOT / "src"))

TRIAL_VARIABLE = "KATIB_TRIAL_NAME"  # the only variable in which the environments of trials may differ
# What train.py imports in its functions, and what these modules import later; not what starts a thread (pyarrow, Soda).
MODULES = (
    *("hydra", "lightning.pytorch", "config.sweep_jobs", "trainers.run", "trainers.run_end", "trainers.finished_run"),
    *("explain.gate", "quality.gate", "trainers.advice", "trainers.build", "trainers.fit", "trainers.initial_weights"),
    *("trainers.optimizers", "trainers.loggers", "trainers.saved_model", "quality.contract", "quality.report"),
    *("runs.prediction_table",),
)


def import_modules(overrides: Sequence[str]) -> None:
    """Import what a training with these overrides imports: `MODULES`, and the modules that its configuration names."""
    from config import search_path
    from config.check import iter_targets
    from config.compose import compose
    from config.libraries import configure_libraries

    configure_libraries()
    for name in MODULES:
        importlib.import_module(name)
    # A configuration that does not compose, or a module that is missing, is an error of the trial, which reports it.
    with contextlib.suppress(Exception), search_path.adopted(overrides):
        config = compose([word for word in overrides if not word.startswith("hydra.")])
        names = [
            str(config.task.module),
            *(str(node["_target_"]).rpartition(".")[0] for _, node in iter_targets(config)),
        ]
        if model_type := (config.model.get("architecture") or {}).get("model_type"):
            names.append(f"transformers.models.{model_type}.modeling_{model_type}")
        for name in names:
            module = importlib.import_module(name)
            for late_name in getattr(module, "LATE_IMPORTS", ()):  # which its functions import
                importlib.import_module(late_name)


def find_obstacle() -> str:
    """Return why this process must not be forked: it has threads, uses a GPU, or has old sources; "" if it may."""
    threads = [Path(path, "comm").read_text().strip() for path in Path("/proc/self/task").iterdir()]
    if len(threads) > 1:
        return f"the imported modules have started threads ({', '.join(sorted(threads))})"
    files = (_link(path) for path in Path("/proc/self/fd").iterdir())
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if any(file.startswith("/dev/nvidia") for file in files) or (cuda is not None and cuda.is_initialized()):
        return "the imported modules use a GPU"
    return find_change()


def find_change() -> str:
    """Return which file has changed since `note_sources`, or ""."""
    return next((f"{path} has changed" for path, time in _sources.items() if _time(path) != time), "")


_sources: dict[str, int | None] = {}  # files of modules that a user may change, and times of their last change


def note_sources() -> None:
    """Note the files of all modules that a user may change."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths = [file for file in files if file and not file.startswith((sys.prefix, sys.base_prefix))]
    _sources.update({file: _time(file) for file in [*paths, str(ROOT / "train.py")]})


def _time(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return Path(path).stat().st_mtime_ns
    return None


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):  # of the listing itself
        return str(path.readlink())
    return ""


def serve(connection: socket.socket, lifeline: int) -> list[str]:
    """Import, and fork a trial for each request, until the search ends or something forbids another fork.

    Returns:
        Only in the process of a training: the words of its command, from `python` on.
    """
    environment = dict(os.environ)
    os.environ.pop(TRIAL_VARIABLE, None)
    lines = connection.makefile("rb")
    import_modules(json.loads(lines.readline())["overrides"])
    note_sources()
    gc.collect()
    gc.freeze()  # no collection touches, and so copies, what all trials share
    # OpenBLAS ends its threads before a fork, and starts them again when they are needed.
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    while line := lines.readline():
        request = json.loads(line)
        if obstacle := find_obstacle():
            connection.sendall(json.dumps({"obstacle": obstacle}).encode() + b"\n")
            break
        answer, answer_end = os.pipe()
        # The process between this one and the trial ends at once, which makes the search the trial's parent.
        if (pid := os.fork()) == 0:
            if os.fork() > 0:
                os._exit(0)
            lines.close()
            connection.close()
            os.close(answer)
            return lead(request, environment | {TRIAL_VARIABLE: request["name"]}, answer_end, lifeline)
        os.close(answer_end)
        os.waitpid(pid, 0)
        with os.fdopen(answer, "rb") as file:
            connection.sendall(json.dumps({"pid": int(file.read() or 0)}).encode() + b"\n")
    sys.exit(0)


def lead(request: dict[str, Any], environment: dict[str, str], answer: int, lifeline: int) -> list[str]:
    """Be the shell of a trial: start the training, wait for it, and run the rest of the line.

    Returns:
        In the process of the training; the shell's does not return.
    """
    shell: list[str] = request["shell"]
    words: list[str] = request["words"]
    os.setsid()
    show_command([*shell, request["line"]], environment)
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    _redirect(request["output"], os.O_APPEND, 1)
    os.dup2(1, 2)
    os.write(answer, str(os.getpid()).encode())
    os.close(answer)
    if (pid := os.fork()) == 0:
        os.close(lifeline)
        show_command(words, environment)
        for descriptor, target in request["redirects"]:
            if isinstance(target, int):
                os.dup2(target, descriptor)
            else:
                _redirect(target, os.O_TRUNC, descriptor)
        os.environ[TRIAL_VARIABLE] = environment[TRIAL_VARIABLE]
        return words
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # which Python handles
        signal.signal(number, signal.SIG_DFL)
    result = _wait(pid, lifeline)
    # In a shell, the result of a command that a signal ended is the signal's.
    ending = f"(exit {result})" if result >= 0 else f"sh -c 'kill {result} $$'"
    os.execvpe(shell[0], [*shell, ending + request["rest"]], environment)


def _redirect(path: str, flag: int, descriptor: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666)
    os.dup2(file, descriptor)
    os.close(file)


def _wait(pid: int, lifeline: int) -> int:
    """Wait for the training, and return its exit code, or the negative number of a signal; end it all if the search ends."""
    child = os.pidfd_open(pid)
    while child not in (ready := select.select([child, lifeline], [], [])[0]):
        if ready:
            os.killpg(0, signal.SIGKILL)
    os.close(child)
    os.close(lifeline)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def show_command(words: Sequence[str], environment: dict[str, str]) -> None:
    """Show a command, and the trial's name among its variables, as those of this process, to `ps` and `katib stop`.

    Linux shows the memory in which it once passed them; behind the command are empty words.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    arguments, arguments_end, variables, variables_end = map(int, fields[45:49])
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        size = arguments_end - arguments
        memory.seek(arguments)
        memory.write("\0".join(words).encode()[: size - 1].ljust(size, b"\0"))
        memory.seek(variables)
        name = f"\0{TRIAL_VARIABLE}=".encode()
        index = (b"\0" + memory.read(variables_end - variables)).find(name)
        if index >= 0:
            memory.seek(variables + index + len(name) - 1)
            memory.write(environment[TRIAL_VARIABLE].encode())  # all names of a search are equally long


def seed_generators() -> None:
    """Seed numpy's generator as at its import; Python's own does so after each fork, and torch's has a constant seed."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def run_script(words: Sequence[str]) -> None:
    """Execute train.py as `python train.py` does, in this process.

    Args:
        words: the command, from `python` on.
    """
    path = str(ROOT / "train.py")
    sys.argv, sys.orig_argv = list(words[1:]), list(words)
    sys.path[:] = START_PATH
    seed_generators()
    main = types.ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    exec(compile(Path(path).read_bytes(), path, "exec"), main.__dict__)


if __name__ == "__main__":
    server_module = sys.modules["__main__"]  # its functions are on the stack
    run_script(serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
