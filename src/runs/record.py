"""The record of a run, run.json: configuration, provenance, progress and result, written at the start and at each change."""

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from config import files
from config.errors import InputError, ResourceError
from config.masking import mask_command, mask_secrets
from runs import folder as folders
from runs import provenance
from runs.metric_lines import format_time
from runs.push import TRIAL_VARIABLE
from runs.utilisation import UtilisationMonitor, peak_memory

Status = Literal["running", "finished", "diverged", "interrupted", "failed"]
# Keys that do not change what a run computes, and so are not a part of its hash.
UNHASHED_KEYS = ("logger", "quality", "explain", "metrics_file", "push_metrics")
JOB_VARIABLE = "ISOTRAIN_JOB_UID"  # uid of the object that owns a trial's pods: its Job, or the JobSet of a TrainJob
MAX_KILLS = 3  # sessions in a row that were killed without progress, before `check_progress` refuses another one
_MAX_DIFF = 200_000  # bytes; a larger diff is written to a file of its own


class Record:
    """A run.json that is being written, by rank zero of the process that trains.

    Attributes:
        folder: The run folder.
        fields: The contents; `update` changes them.
    """

    def __init__(self, folder: Path, fields: dict[str, Any]) -> None:
        self.folder = folder
        self.fields = fields
        self._start = time.monotonic() - float(
            fields.get("duration_seconds") or 0.0
        )  # with the time of former sessions
        self._utilisation = UtilisationMonitor()
        self.update()

    def update(self, **fields: Any) -> None:
        """Set fields and write the file. Mappings are replaced, not merged."""
        self.fields |= {name: folders.to_plain(value) for name, value in fields.items()}
        self.fields["duration_seconds"] = round(time.monotonic() - self._start, 3)
        self.fields["utilisation"] = self._utilisation.summary()
        self.fields["peak_memory"] = peak_memory()
        files.write_json(self.folder / folders.RECORD, self.fields)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to timings[name], even if it fails. Those of resumed runs are summed."""
        start = time.monotonic()
        try:
            yield
        finally:
            timings = self.fields.setdefault("timings", {})
            timings[name] = round(timings.get(name, 0.0) + time.monotonic() - start, 3)
            # A full disk must not hide the error of the block.
            with contextlib.suppress(OSError) if sys.exc_info()[0] else contextlib.nullcontext():
                self.update()

    def end(self, status: Status, *, exit_code: int = 0, reason: str | None = None) -> None:
        """Record how the run ended, and write the file for the last time.

        Args:
            status: finished, diverged, interrupted or failed.
            exit_code: Exit code of the command (docs/exit_codes.md).
            reason: One line about the end, unless the run finished.
        """
        self._utilisation.stop()
        ended = format_time(datetime.now(UTC))
        session = {**self.fields["sessions"][-1], "ended": ended, "exit_code": exit_code}
        self.update(
            status=status,
            reason=reason,
            exit_code=exit_code,
            ended=ended,
            hardware=provenance.hardware_info(),
            sessions=[*self.fields["sessions"][:-1], session],
        )


def start_record(
    folder: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    seeds: Mapping[str, int],
    command: Sequence[str] | None = None,
    project: Path = files.PROJECT,
) -> Record:
    """Start the record of a run, or continue that of a resumed one.

    Args:
        folder: The run folder; created if absent. It must be locked (`runs.folder.lock_folder`).
        config: The resolved configuration as plain mappings and lists. Secrets in it are masked.
        seeds: Seeds by purpose.
        command: The command line; that of this process by default.
        project: The folder of the code.

    Returns:
        The record, written with the status "running".

    Raises:
        InputError: There is a run.json that cannot be read.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    previous = folders.read_record(path) if (path / folders.RECORD).exists() else {}
    started, code = format_time(datetime.now(UTC)), provenance.git_state(project)
    if len(code["diff"].encode()) > _MAX_DIFF:
        files.write_text(path / folders.DIFF, code["diff"])
        code["diff"] = f"see {folders.DIFF}"
    session = {
        "started": started,
        "ended": None,
        "exit_code": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job_uid": os.environ.get(JOB_VARIABLE) or None,
        "revision": code["revision"],
        "dirty": code["dirty"],
        "checkpoint_mtime_ns": _checkpoint_time(path),
    }
    sessions = [*_mark_lost(previous.get("sessions", []), path), session]
    fields: dict[str, Any] = {
        "status": "running",
        "reason": None,
        "exit_code": None,
        "command": mask_command(command if command is not None else sys.orig_argv),
        "directory": str(Path.cwd()),
        "started": previous.get("started", started),
        "ended": None,
        "duration_seconds": previous.get("duration_seconds", 0.0),
        "restarts": len(sessions) - 1,
        "metrics": previous.get("metrics", {}),
        # Set later: what describes the data, the choice of each Hydra group, the origin of the initial weights.
        **{name: previous.get(name) for name in ("data", "choices", "parent")},
        **provenance.environment_info(),
        "seeds": seeds,
        "timings": previous.get("timings", {}),
        "utilisation": None,
        "peak_memory": None,
        "hardware": provenance.hardware_info(),
        "git": code,
        "lock_hash": provenance.lock_hash(project),
        "packages": provenance.package_versions(project),
        "sessions": sessions,
        "config_hash": config_hash(config),
        "config": mask_secrets(folders.to_plain(config)),
    }
    extra = {name: value for name, value in previous.items() if name not in fields}
    return Record(path, folders.to_plain(fields | extra))


def check_job(folder: str | os.PathLike[str]) -> None:
    """Refuse to train in the folder of a trial whose job was deleted.

    While a deleted trial waits for its children (deletion in the foreground), Katib's and Trainer's controllers create its
    job again, with the same name and another uid, and a pod of it would train on. A pod that replaces an evicted one
    belongs to the same job, and goes on.

    Args:
        folder: The run folder.

    Raises:
        InputError: The run was started by another job of the same trial, and has not finished.
    """
    uid, trial = os.environ.get(JOB_VARIABLE), os.environ.get(TRIAL_VARIABLE)
    record = files.read_json(Path(folder) / folders.RECORD)
    sessions = record.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions and isinstance(sessions[-1], dict) else {}
    if uid and trial and record.get("status") != "finished" and last.get("job_uid") not in (None, uid):
        raise InputError(
            f"the job of the trial {trial} was deleted: {folder} was made by one with the uid {last['job_uid']}, and this "
            f"pod belongs to a new one ({uid}), so nothing is trained; to go on by hand, unset {JOB_VARIABLE}"
        )


def check_progress(folder: Path) -> None:
    """Check that a run is not killed again and again before it writes a checkpoint, e.g. for its memory.

    Raises:
        ResourceError: the last `MAX_KILLS` sessions wrote neither a checkpoint nor how they ended.
    """
    sessions = files.read_json(folder / folders.RECORD).get("sessions") or []
    current = _checkpoint_time(folder)
    lost = [
        row.get("exit_code") is None and row.get("checkpoint_mtime_ns", 0) == current for row in sessions[-MAX_KILLS:]
    ]
    if len(lost) == MAX_KILLS and all(lost):
        raise ResourceError(
            f"{folder}: the last {MAX_KILLS} starts of this run were killed before they wrote a checkpoint, perhaps for "
            "their memory (`kubectl describe pod` shows OOMKilled): raise the memory limit or lower data.batch_size"
        )


def _checkpoint_time(folder: Path) -> int | None:
    """Return when the last checkpoint of a run was written, in nanoseconds; None without one."""
    try:
        return (folder / folders.CHECKPOINTS / folders.LAST_CHECKPOINT).stat().st_mtime_ns
    except OSError:
        return None


def _mark_lost(sessions: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Sessions of a run; the last one is `lost` if its process was killed: its work after `checkpoint`, a time, is repeated."""
    if not sessions or sessions[-1].get("ended") is not None:
        return sessions
    checkpoint = folder / folders.CHECKPOINTS / folders.LAST_CHECKPOINT
    written = format_time(datetime.fromtimestamp(checkpoint.stat().st_mtime, UTC)) if checkpoint.exists() else None
    return [*sessions[:-1], {**sessions[-1], "lost": True, "checkpoint": written}]


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal digits) of the configuration as canonical JSON: equal for equal requests.

    Secrets are masked, and UNHASHED_KEYS left out.
    """
    hashed = {
        name: value for name, value in mask_secrets(folders.to_plain(config)).items() if name not in UNHASHED_KEYS
    }
    canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
