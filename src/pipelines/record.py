"""Records of the steps of a pipeline run, on the volume. They survive a failed step, whose artifacts KFP does not keep."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import files
from config.error_handling import report_errors
from config.errors import ExecutionError, InputError, SignalInterrupt
from config.terminal import format_table, make_printable, terminal_width
from pipelines import report
from pipelines.graph import DEPENDENCIES
from pipelines.interruption import hold_lock, is_locked, on_termination
from pipelines.retries import NODE, describe_attempts, start_attempt

CLOSED = "nobody reads the output of the step any more: its pod was deleted, or the process that started it has ended"
RUN_ID = "KFP_RUN_ID"  # an environment variable, because it must not be a part of the key of a cached step


def run_folder(root: str) -> Path:
    """Return the folder of this pipeline run: `root/pipelines/<run>`."""
    return Path(root) / "pipelines" / os.environ.get(RUN_ID, "run")


@contextmanager
def record_step(root: str, name: str, **inputs: Any) -> Iterator[dict[str, Any]]:
    """Record a step in `steps/<name>.json`: state, seconds, exit code, commands, and what the block adds.

    Args:
        root: Folder of runs and records.
        name: Name of the step.
        inputs: What determines the result, for a step that must not be retried after a failure that would be repeated.

    Yields:
        The record. `pipelines.commands` adds to its `commands`.

    Raises:
        SystemExit: The step failed; the message is on stderr. RefusedAttempt: it would fail as the attempt before.
    """
    path = run_folder(root) / "steps" / f"{name.replace(' ', '-')}.json"
    attempt = start_attempt(files.read_json(path), inputs)
    start = time.time()
    step: dict[str, Any] = {
        "step": name,
        "state": "running",
        "began": start,
        "inputs": inputs,
        "commands": [],
        **attempt,
    }
    files.write_json(path, step)
    earlier = describe_attempts(step["attempts"])
    print(f"isotrain: {name} …{f' {earlier}' if earlier else ''}", flush=True)

    def interrupt() -> None:
        # At once: the pod may be killed before the command in it has ended, and no other step publishes the pages.
        files.write_json(path, step | {"state": "interrupted", "code": 143, "seconds": time.time() - start})
        report.write_report(
            run_folder(root), publish_run(run_folder(root), "CANCELED", f"interrupted in the step {name}")
        )
        raise SignalInterrupt(signal.SIGTERM, "interrupted by SIGTERM")

    try:
        with report_errors(), hold_lock(path), on_termination(interrupt):
            try:
                yield step
            except BaseException as error:
                step["message"] = str(error) or type(error).__name__
                code = getattr(error, "exit_code", None)
                if isinstance(code, int):
                    raise ExecutionError(f"{name}: {error}", code) from error
                raise
    except SystemExit as error:
        # Never 0: KFP would take the step for successful and look for its outputs.
        code = error.code if isinstance(error.code, int) and error.code else 1
        if isinstance(error.__context__, BrokenPipeError) and not error.code:
            # The launcher, which reads the output, ends first when a pod is deleted: that is no failure of the step.
            code, step["message"] = 128 + signal.SIGTERM, CLOSED
        state = "interrupted" if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) else "failed"
        files.write_json(path, step | {"state": state, "code": code, "seconds": time.time() - start})
        _publish_retried(run_folder(root), name)
        raise SystemExit(code) from None
    step |= {"state": "done", "code": 0, "seconds": time.time() - start}
    files.write_json(path, step)
    _publish_retried(run_folder(root), name)
    verdict = f": {step['verdict']}" if step.get("verdict") else ""
    print(f"isotrain: {name}: done in {step['seconds']:.1f} s{verdict}", flush=True)


def _publish_retried(run: Path, name: str) -> None:
    """Publish a run again that was published by its exit handler, which KFP does not repeat when a run is retried.

    It is FAILED until its last step is done.

    Args:
        run: Folder of the run.
        name: Name of the step that has ended.
    """
    if name == "finish" or NODE not in os.environ or not (run / "steps" / "finish.json").exists():
        return
    try:
        registered = files.read_json(run / "steps" / "register.json").get("state") == "done"
        is_last = registered and (name == "register" or name not in DEPENDENCIES)
        state, error = ("SUCCEEDED", "") if is_last else ("FAILED", f"retried; ended last: {name}")
        report.write_report(run, publish_run(run, state, error))
    except (OSError, InputError) as failure:  # the step itself has its result
        print(f"isotrain: {name}: the record of the run was not published again: {failure}", flush=True)


def read_steps(run: Path) -> list[dict[str, Any]]:
    """Return the records of the steps of a run, in the order of the pipeline.

    Raises:
        InputError: A record is damaged.
    """
    steps = []
    for path in sorted((run / "steps").glob("*.json")):
        if step := files.read_json(path):
            texts, seconds = (step.get("step"), step.get("state")), step.get("seconds", 0)
            is_duration = isinstance(seconds, int | float) and 0 <= seconds < 1e12
            if not is_duration or not all(isinstance(text, str) for text in texts):
                raise InputError(f"{path} is damaged: it needs the texts step and state, and seconds; remove it")
            steps.append(step)
    order = list(DEPENDENCIES)
    last = len(order)  # of further steps, in the order in which they began

    def position(step: dict[str, Any]) -> tuple[int, float]:
        began = step.get("began")
        return (
            order.index(step["step"]) if step["step"] in order else last,
            float(began) if isinstance(began, int | float) else 0.0,
        )

    return sorted(steps, key=position)


def format_steps(steps: Sequence[Mapping[str, Any]]) -> str:
    """Format steps as a table for a terminal: name, state, seconds, and message or verdict."""
    rows = [
        [
            step["step"],
            step["state"],
            f"{step.get('seconds', 0):>8.1f}",
            make_printable(str(step.get("message") or step.get("verdict") or "").replace("\n", " ")),
        ]
        for step in steps
    ]
    return format_table(["step", "state", " seconds", ""], rows, terminal_width(), limit=17, flexible=3)


def publish_run(run: Path, kfp_state: str, error: str) -> dict[str, Any]:
    """Write and return pipeline.json: how a run ended, and the records of its steps.

    A step whose process is gone is interrupted, whatever its record says. The steps tell the state: KFP's own is COMPLETE
    for a successful run in its last step, and RUNNING for one whose pod was lost (backend 2.17).

    Args:
        run: Folder of the run.
        kfp_state: State in KFP's words.
        error: Error message of KFP.
    """
    for path in (run / "steps").glob("*.json"):
        if (step := files.read_json(path)).get("state") == "running" and not is_locked(path):
            files.write_json(path, step | {"state": "interrupted"})
    steps = [step for step in read_steps(run) if step["step"] != "finish"]
    failed = kfp_state == "FAILED" or any(step["state"] != "done" for step in steps)
    state = kfp_state if kfp_state.startswith("CANCEL") else "FAILED" if failed else "SUCCEEDED"
    record = {"run": run.name, "state": state, "kfp": kfp_state, "error": error, "steps": steps}
    files.write_json(run / "pipeline.json", record)
    return record
