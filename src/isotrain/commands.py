"""What needs torch, as a child process: fit, evaluate, predict, explain and check_data."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config import errors
from config.child_process import command_line, environment, last_message
from config.errors import InputError
from config.files import read_json
from isotrain.analysis import Folder, folder_name, load
from isotrain.run import Run, data_frame

_ERRORS: dict[int, type[Exception]] = {
    error.exit_code: error
    for error in (
        errors.InputError, errors.DivergenceError, errors.ContractError, errors.ExplanationError, errors.UnreachableError,
        errors.ResourceError,
    )
}  # fmt: skip


def fit(*overrides: str, folder: str | os.PathLike[str] | None = None, show: bool = True) -> Run:
    """Train, as `python train.py OVERRIDES`; a folder that holds a run of the same configuration is resumed.

    Args:
        *overrides: Hydra overrides: "model=bert", "data=squad".
        folder: The run folder; by default outputs/DATE/TIME.
        show: Whether to print metric lines and messages.

    Returns:
        The finished run.

    Raises:
        InputError: The configuration or the data is refused.
        DivergenceError, ContractError, ExplanationError, ResourceError: As the exit codes of the command; the folder remains.
        KeyboardInterrupt: Interrupted, after a checkpoint was written; the same call resumes the run.
    """
    if sweep := [word for word in overrides if word.startswith("-")]:
        raise InputError(f"{sweep[0]}: fit takes overrides only; call it once for each run of a sweep")
    if any(word.startswith("hydra.run.dir=") for word in overrides):
        raise InputError("hydra.run.dir=…: name the folder with folder=")
    path = Path(folder) if folder is not None else Path("outputs", *f"{datetime.now():%Y-%m-%d/%H-%M-%S}".split("/"))
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    _call(["train.py", *overrides, f"hydra.run.dir='{quoted}'"], show=show)
    return load(path)


def evaluate(
    run: Folder, *overrides: str, output: str | os.PathLike[str] | None = None, show: bool = False
) -> dict[str, float]:
    """Evaluate a saved model on a validation split, as `python -m trainers evaluate`.

    Args:
        run: A run, a run folder or a model folder.
        *overrides: Hydra overrides; "data=squad" for other data than the run's.
        output: Folder for the predictions, which `compare` reads.
        show: Whether to print the metric line and messages.

    Returns:
        The metrics.

    Raises:
        InputError: The model cannot be loaded, or does not fit the data.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.fspath(output) if output is not None else str(Path(temporary) / "evaluation")
        _call(["-m", "trainers", "evaluate", f"run={folder_name(run)}", *overrides, "--output", folder], show=show)
        return dict(read_json(Path(folder) / "run.json")["metrics"])


def predict(
    run: Folder,
    inputs: Any,
    *,
    batch_size: int = 32,
    no_answer_threshold: float | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Predict, as `python -m trainers predict`.

    Args:
        run: A run, a run folder or a model folder.
        inputs: A path or a list of paths; or rows, as a pandas data frame or a list of mappings: question and context, or text.
        batch_size: Inputs in a forward pass.
        no_answer_threshold: SQuAD 2.0: score above which a question has no answer.
        trust_remote_code: Whether code that the model folder contains or names is executed.

    Returns:
        A pandas data frame with a row for each input.

    Raises:
        InputError: The model or an input cannot be read.
    """
    files, rows = _read_inputs(inputs)
    words = ["-m", "trainers", "predict", f"run={folder_name(run)}", *files, "--batch-size", str(batch_size)]
    words += [] if no_answer_threshold is None else [f"--no-answer-threshold={no_answer_threshold}"]
    words += ["--trust-remote-code"] if trust_remote_code else []
    output = _call(words, stdin=rows)
    return data_frame([json.loads(line) for line in output.splitlines()])


def explain(
    run: Folder, *overrides: str, folder: str | os.PathLike[str] | None = None, show: bool = False
) -> dict[str, Any]:
    """Explain predictions and compare the explanations with chance, as `python -m explain`.

    Args:
        run: A run, a run folder or a model folder.
        *overrides: Hydra overrides: "explain.examples=64".
        folder: Folder of the report; by default explain/ in that of the run.
        show: Whether to print progress.

    Returns:
        verdict.json: status (passed, failed or inconclusive), measures, … A failed verdict is no error here.

    Raises:
        InputError: The model cannot be loaded, or an option is refused.
    """
    target = Path(folder) if folder is not None else Path(folder_name(run)) / "explain"
    words = ["-m", "explain", f"run={folder_name(run)}", *overrides, "--folder", str(target)]
    _call(words, valid_codes=(0, errors.ExplanationError.exit_code), show=show)
    return read_json(target / "verdict.json")


def check_data(*overrides: str, folder: str | os.PathLike[str] | None = None, show: bool = False) -> dict[str, Any]:
    """Verify the contract of a data set, as `python -m quality`.

    Args:
        *overrides: Hydra overrides: "data=squad", "data.path=my/questions".
        folder: Folder of the report, with every row that violates a check; none is kept by default.
        show: Whether to print progress.

    Returns:
        verdict.json: status (passed, warned, failed or unevaluated), checks, … A failed verdict is no error here.

    Raises:
        InputError: The data cannot be read, or there is no contract.
    """
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(folder) if folder is not None else Path(temporary) / "quality"
        words = ["-m", "quality", *overrides, "--folder", str(target)]
        _call(words, valid_codes=(0, errors.ContractError.exit_code), show=show)
        return read_json(target / "verdict.json")


def _read_inputs(inputs: Any) -> tuple[list[str], str | None]:
    """Return the files, or the rows as JSON Lines."""
    if isinstance(inputs, str | os.PathLike):
        return [os.fspath(inputs)], None
    if hasattr(inputs, "to_dict"):
        inputs = inputs.to_dict("records")
    if not isinstance(inputs, Iterable) or isinstance(inputs, Mapping | bytes):
        raise InputError(f"inputs: must be paths, a data frame or a list of mappings, not {type(inputs).__name__}")
    items = list(inputs)
    if not items:
        raise InputError("inputs: there are none")
    if all(isinstance(item, str | os.PathLike) for item in items):
        return [os.fspath(item) for item in items], None
    if invalid := [item for item in items if not isinstance(item, Mapping)]:
        raise InputError(f"inputs: must be paths or mappings, not {type(invalid[0]).__name__}")
    try:
        return [], "".join(json.dumps(dict(item), ensure_ascii=False) + "\n" for item in items)
    except (TypeError, ValueError) as error:
        raise InputError(f"inputs: cannot be written as JSON: {error}") from None


def _call(words: Sequence[str], valid_codes: Sequence[int] = (0,), stdin: str | None = None, show: bool = False) -> str:
    """Run a command and return its stdout; its exit code and message become an exception."""
    process = subprocess.Popen(
        command_line(*words),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**environment(), "PYTHONIOENCODING": "utf-8"},
        start_new_session=True,  # Ctrl-C on a terminal must reach it only once, forwarded below
    )
    output: list[str] = []
    messages: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(process.stdout, output, sys.stdout if show else None), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, messages, sys.stderr if show else None), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        if stdin is not None and process.stdin is not None:
            try:
                process.stdin.write(stdin)
                process.stdin.close()
            except BrokenPipeError:  # it ended early; its message says why
                pass
        code = process.wait()
    except BaseException:  # KeyboardInterrupt: it writes a checkpoint
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    for reader in readers:
        reader.join()
    if code in valid_codes:
        return "".join(output)
    text = "".join(messages)
    message = (
        last_message(text) or (text.strip().splitlines() or [f"{' '.join(words)} ended with exit code {code}"])[-1]
    )
    if code in _ERRORS:
        raise _ERRORS[code](message)
    raise errors.ExecutionError(message, code if code > 0 else 128 - code)


def _read(stream: Any, lines: list[str], target: Any) -> None:
    for line in stream:
        lines.append(line)
        if target is not None:
            print(line, end="", file=target, flush=True)
