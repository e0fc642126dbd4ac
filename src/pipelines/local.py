"""`python -m pipelines run`: the compiled pipeline on this machine, without Docker, step by step in processes of their own."""

import contextlib
import io
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml

from config import source_code
from config.errors import ExecutionError, InputError, SignalInterrupt
from pipelines import compilation, record, table
from pipelines.arguments import bind_parameters

_SHOWN = re.compile(r"isotrain: |\d{4}-\d\d-\d\dT\S+Z epoch=")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run(
    overrides: Sequence[str], given: Sequence[str], root: str, name: str | None = None, file: str | None = None
) -> None:
    """Runs the pipeline.

    Args:
        overrides: train.py's.
        given: NAME=VALUE of the pipeline's parameters.
        root: folder of runs and records; a training or search that was begun in it goes on.
        name: of this run; its time if not given.
        file: a compiled pipeline; if not given, it is compiled as `python -m pipelines compile` does.

    Raises:
        InputError: what cannot run; nothing has been started.
        ExecutionError: the pipeline failed.
        SignalInterrupt: by a signal; trainings have written their checkpoints.
    """
    spec, *rest = compilation.read_documents(file) if file else _documents(compilation.compile_text())
    arguments = bind_parameters(spec, overrides, given)
    place = Path(root).absolute()
    # What another code trained is not taken for ours.
    here = {"root": str(place), "image": f"this-machine:{source_code.code_digest()[:12]}"}
    if not any(each.startswith("tune_backend=") for each in given):
        here["tune_backend"] = "local"
    arguments = {**here, **arguments}
    _refuse(arguments)
    name = name or datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    os.environ[record.RUN_ID] = name
    os.environ.setdefault("ISOTRAIN_CACHE", str(Path.home() / ".cache" / "isotrain"))
    folder = record.run_folder(str(place))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "steps", ignore_errors=True)  # of a run of this name before
    record.write(folder / "parameters.json", arguments)
    said = ""
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            with _signals(), _shown(log):
                _call(yaml.safe_dump_all([at_once(spec), *rest]), arguments, folder / "artifacts")
        except SignalInterrupt:
            record.publish_run(folder, "CANCELED", "interrupted")
            raise
        except RuntimeError as error:  # KFP's way to say that a step failed
            said = _COLOUR.sub("", str(error))
            print(said, file=log)
    steps = record.read_steps(folder)
    print(table.format_steps(steps))
    print(f"isotrain: {folder}", file=sys.stderr)
    wrong = [each for each in steps if each["state"] != "done"]
    if said or wrong:
        why = f"{wrong[0]['step']}: {wrong[0].get('message', wrong[0]['state'])}" if wrong else said
        raise ExecutionError(f"the pipeline failed: {why}; all that was said is in {folder / 'log.txt'}")


def _documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def at_once(value: Any) -> Any:
    """The specification with retries that do not wait: what a cluster may get over in a minute, a process does not."""
    if isinstance(value, dict):
        found = {name: at_once(each) for name, each in value.items()}
        return found | {"backoffDuration": "0s"} if "maxRetryCount" in found else found
    return [at_once(each) for each in value] if isinstance(value, list) else value


def _call(text: str, arguments: Mapping[str, Any], artifacts: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of image names, resources and volumes, which mean nothing here
        from kfp import components, local

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(artifacts))
        components.load_component_from_text(text)(**arguments)


def _refuse(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        # KFP's local runner puts the interpreter's path in the place of every "python3" (kfp 2.13 to 2.17).
        if "python3" in str(value):
            raise InputError(
                f"{name}={value}: KFP's local runner changes python3 in values; choose another folder or link"
            )
        if len(str(value).encode()) > 100_000:
            raise InputError(f"{name} has more than 100,000 bytes; a process takes no such arguments")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """On SIGINT and SIGTERM the steps are told, and waited for: a training writes its checkpoint first."""
    import psutil

    def told(number: int, _: FrameType | None) -> None:
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = each.cmdline()
                if "kfp.dsl.executor_main" in words and not Path(words[0]).name.endswith("sh"):
                    each.terminate()
        raise SignalInterrupt(number, "interrupted; the same command goes on with what was begun")

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lines(io.TextIOBase):
    """Writes whole lines to a function."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self.told, self.rest = told, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.told(line)
        return len(text)


@contextlib.contextmanager
def _shown(log: TextIO) -> Iterator[None]:
    """Keeps all that KFP and the steps say in the log; what a person waits for is shown, too."""
    stderr = sys.stderr

    def told(line: str) -> None:
        plain = _COLOUR.sub("", line)
        print(plain, file=log, flush=True)
        if _SHOWN.match(plain.lstrip()):  # KFP indents what steps say
            print(plain.lstrip().removeprefix("isotrain: "), file=stderr, flush=True)

    lines = _Lines(told)
    with contextlib.redirect_stdout(lines), contextlib.redirect_stderr(lines):
        yield
