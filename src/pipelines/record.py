"""What each step of a pipeline's run did, on the volume: it survives a step that fails, whose artifacts KFP does not keep."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import files
from config.error_handling import report_errors
from config.errors import DivergenceError, ExecutionError

RUN_ID = "KFP_RUN_ID"  # in the environment, which is not part of a cached step's key
ORDER = (
    "data", "plan", "quality", "quality gate", "drift", "drift gate", "tune", "train", "evaluate", "explain",
    "explanation gate", "benchmark", "benchmark gate", "register", "finish",
)  # fmt: skip


def run_folder(root: str) -> Path:
    """Of this run of the pipeline: `root/pipelines/<run>`."""
    return Path(root) / "pipelines" / os.environ.get(RUN_ID, "run")


@contextmanager
def record_step(root: str, name: str, **inputs: Any) -> Iterator[dict[str, Any]]:
    """Keeps a step's record in `steps/<name>.json`: its state, seconds, exit code, commands, and what it adds.

    Args:
        root: of runs and records.
        name: of the step.
        inputs: that determine its outcome, if that is worth to remember.

    Yields:
        What else is kept; `commands` is filled by `pipelines.commands`.

    Raises:
        SystemExit: with the code of a step that failed; the message for people is on stderr.
    """
    path = run_folder(root) / "steps" / f"{name.replace(' ', '-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read_json(path)
    # Another attempt would only repeat it, hours later.
    if before.get("code") == DivergenceError.exit_code and before.get("inputs") == inputs:
        print(f"isotrain: {name}: diverged before, and would again: {before.get('message')}", flush=True)
        raise SystemExit(DivergenceError.exit_code)
    began = time.time()
    found: dict[str, Any] = {"step": name, "state": "running", "began": began, "inputs": inputs, "commands": []}
    write(path, found)
    print(f"isotrain: {name} …", flush=True)
    try:
        with report_errors():
            try:
                yield found
            except BaseException as error:
                found["message"] = str(error) or type(error).__name__
                code = getattr(error, "exit_code", None)
                if isinstance(code, int):
                    raise ExecutionError(f"{name}: {error}", code) from error
                raise
    except SystemExit as ended:
        # Never 0: KFP would take the step for done, and look for its outputs.
        code = ended.code if isinstance(ended.code, int) and ended.code else 1
        write(path, found | {"state": "failed", "code": code, "seconds": time.time() - began})
        raise SystemExit(code) from None
    found |= {"state": "done", "code": 0, "seconds": time.time() - began}
    write(path, found)
    said = f": {found['verdict']}" if found.get("verdict") else ""
    print(f"isotrain: {name}: done in {found['seconds']:.1f} s{said}", flush=True)


def read_steps(run: Path) -> list[dict[str, Any]]:
    """The records of a run's steps, in the pipeline's order."""
    found = [each for path in (run / "steps").glob("*.json") if (each := read_json(path))]
    return sorted(found, key=lambda each: ORDER.index(each["step"]) if each["step"] in ORDER else len(ORDER))


def publish_run(run: Path, told: str, error: str) -> dict[str, Any]:
    """Writes pipeline.json: how a run ended, and what its steps did.

    The state is told by the steps: KFP's own word for a run that goes well is COMPLETE to its last step, and RUNNING for one
    whose pod was lost (backend 2.17).

    Args:
        run: its folder.
        told: KFP's word for it.
        error: what KFP says of it.
    """
    found = [each for each in read_steps(run) if each["step"] != "finish"]
    bad = told in ("FAILED", "CANCELED", "CANCELLED") or any(each["state"] != "done" for each in found)
    state = told if told.startswith("CANCEL") else "FAILED" if bad else "SUCCEEDED"
    whole = {"run": run.name, "state": state, "kfp": told, "error": error, "steps": found}
    write(run / "pipeline.json", whole)
    return whole


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object whole, or not at all."""
    files.write_json(path, value)
