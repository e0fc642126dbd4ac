"""`python -m pipelines run`: run the compiled pipeline on this machine without Docker, each step in a process."""

import contextlib
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml

from config import files, source_code
from config.errors import ExecutionError, InputError, SignalInterrupt
from config.masking import mask
from config.output_paths import refuse_url
from pipelines import compilation, record, report, retries
from pipelines.arguments import bind_parameters
from pipelines.resources import refuse_resources

_SHOWN_LINE = re.compile(r"isotrain: |\d{4}-\d\d-\d\dT\S+Z epoch=")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run(
    overrides: Sequence[str], assignments: Sequence[str], root: str, name: str | None = None, file: str | None = None
) -> None:
    """Run the pipeline.

    Args:
        overrides: Overrides of train.py.
        assignments: NAME=VALUE of the pipeline's parameters.
        root: Folder of runs and records; an interrupted training or search in it is resumed.
        name: Name of this run; its time by default.
        file: A compiled pipeline; by default it is compiled as `python -m pipelines compile` does.

    Raises:
        InputError: The arguments are invalid; nothing was started.
        ExecutionError: The pipeline failed.
        SignalInterrupt: A signal; trainings have written their checkpoints.
    """
    if name is not None:
        _check_name(name)
    if file:
        spec, *platform = compilation.read_documents(file)
    else:
        spec, *platform = yaml.safe_load_all(compilation.compile_text())
    refuse_resources(assignments)
    arguments = bind_parameters(spec, overrides, assignments, local=True)
    refuse_url(root, "--root ")
    folder_root = str(Path(root).absolute())
    # The digest of the code takes the place of the image's: results of other code are not reused.
    defaults = {"root": folder_root, "image": f"this-machine:{source_code.code_digest()[:12]}"}
    if not any(assignment.startswith("tune_backend=") for assignment in assignments):
        defaults["tune_backend"] = "local"
    arguments = {**defaults, **arguments}
    _check_arguments(arguments)
    if parent := os.environ.pop("MLFLOW_RUN_ID", None):  # of the whole pipeline: each step has a run below it
        os.environ["ISOTRAIN_MLFLOW_PARENT"] = parent
    os.environ[record.RUN_ID] = name or datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    os.environ.setdefault(retries.SECONDS, "0")  # a local process does not recover by waiting, as a server may
    os.environ.setdefault("ISOTRAIN_CACHE", str(Path.home() / ".cache" / "isotrain"))
    folder = record.run_folder(folder_root)
    _check_run_folder(folder)
    for path in (folder / "steps").glob("*.json"):  # of a former run of this name
        if "step" in files.read_json(path):
            path.unlink()
    files.write_json(folder / "parameters.json", arguments)
    error_text = ""
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            with _terminate_steps(), _redirect_output(log):
                _run_component(yaml.safe_dump_all([_without_backoff(spec), *platform]), arguments, folder / "artifacts")
        except SignalInterrupt:
            report.write_report(folder, record.publish_run(folder, "CANCELED", "interrupted"))
            raise
        except RuntimeError as error:  # raised by KFP if a step fails
            error_text = _COLOUR.sub("", str(error))
            print(mask(error_text), file=log)
    steps = record.read_steps(folder)
    print(record.format_steps(steps))
    print(f"isotrain: {folder}; report: {folder / report.FILE}", file=sys.stderr)
    failed = next((step for step in steps if step["state"] != "done"), None)
    if failed:
        error_text = f"{failed['step']}: {failed.get('message', failed['state'])}"
    if error_text:
        raise ExecutionError(f"the pipeline failed: {error_text}; the full log is {folder / 'log.txt'}")


def _check_name(name: str) -> None:
    """Check the name of a run, which is a folder's name.

    Raises:
        InputError: It is empty, or not a single name.
    """
    if not name.strip() or name in (".", "..") or "/" in name or "\0" in name:
        raise InputError(f"--name={name}: must be the name of a folder below DIR/pipelines, not empty and without /")


def _check_run_folder(folder: Path) -> None:
    """Check that the folder of a run is new, or that of a former run of this name.

    Raises:
        InputError: It holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; set another --name or --root")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if names and not {"root", "image"} <= files.read_json(folder / "parameters.json").keys():
        raise InputError(
            f"{folder} is not the folder of a pipeline run (it contains {', '.join(names[:3])}); set another --name or --root"
        )


def _without_backoff(value: Any) -> Any:
    """The specification with immediate retries: a local process does not recover by waiting, as a pod may."""
    if isinstance(value, dict):
        children = {name: _without_backoff(child) for name, child in value.items()}
        return children | {"backoffDuration": "0s"} if "maxRetryCount" in children else children
    return [_without_backoff(child) for child in value] if isinstance(value, list) else value


def _run_component(text: str, arguments: Mapping[str, Any], artifacts: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about image names, resources and volumes, which have no effect here
        from kfp import components, local

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(artifacts))
        components.load_component_from_text(text)(**arguments)


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    store = str(arguments.get("server") or os.environ.get("MLFLOW_TRACKING_URI", ""))
    if store.startswith("sqlite:///"):  # the last step writes to it
        files.check_writable(store.removeprefix("sqlite:///"), "the registry's database", append=True)
    for name, value in arguments.items():
        # KFP's local runner replaces every "python3" by the interpreter's path (kfp 2.13 to 2.17).
        if "python3" in str(value):
            raise InputError(
                f"{name}={value}: KFP's local runner changes python3 in values; use another folder, or a link"
            )
        if len(str(value).encode()) > 100_000:
            raise InputError(f"{name} has more than 100,000 bytes, which is too much for the arguments of a process")


@contextlib.contextmanager
def _terminate_steps() -> Iterator[None]:
    """On SIGINT and SIGTERM, terminate the steps and wait for them: a training writes its checkpoint first."""
    import psutil

    def terminate(number: int, _: FrameType | None) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "kfp.dsl.executor_main" in words and not Path(words[0]).name.endswith("sh"):
                    process.terminate()
        raise SignalInterrupt(number, "interrupted; the same command resumes the run")

    handlers = {number: signal.signal(number, terminate) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _LineWriter(io.TextIOBase):
    """A text stream that passes complete lines to a function."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self.write_line, self.rest = write_line, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.write_line(line)
        return len(text)


@contextlib.contextmanager
def _redirect_output(log: TextIO) -> Iterator[None]:
    """Write the output of KFP and the steps to the log; messages and metric lines also to stderr."""
    stderr = sys.stderr

    def write_line(line: str) -> None:
        plain = mask(_COLOUR.sub("", line))
        print(plain, file=log, flush=True)
        if _SHOWN_LINE.match(plain.lstrip()):  # KFP indents the output of steps
            print(plain.lstrip().removeprefix("isotrain: "), file=stderr, flush=True)

    writer = _LineWriter(write_line)
    with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer):
        yield
