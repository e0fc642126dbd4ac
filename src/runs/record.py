"""run.json: what a run is, where it comes from and how it ended. Written at its start and at each change."""

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
from typing import Any, Literal, SupportsFloat

from config import files
from runs import folder as folders
from runs import provenance
from runs.masking import mask_command, mask_secrets
from runs.metric_lines import to_finite_metrics
from runs.utilisation import UtilisationMonitor, peak_memory

Status = Literal["running", "finished", "diverged", "interrupted", "failed"]
# Where a run happens and who is told is no part of what it computes, so it is no part of its hash either.
OUTSIDE_HASH = ("logger", "quality", "explain", "metrics_file", "push_metrics", "hydra", "debug", "verbosity")
_LONGEST_DIFF = 200_000  # bytes; more goes into a file of its own


class Record:
    """A run.json being written, by rank zero of the process that trains.

    Attributes:
        folder: the run's folder.
        fields: the contents; change them through `update`.
    """

    def __init__(self, folder: Path, fields: dict[str, Any]) -> None:
        self.folder = folder
        self.fields = fields
        self._begun = time.monotonic()
        self._before = float(fields.get("duration_seconds") or 0.0)
        self._utilisation = UtilisationMonitor()
        self.update()

    def update(self, **fields: Any) -> None:
        """Sets fields and writes the file. A mapping replaces the one that was there."""
        self.fields |= {name: folders.to_plain(value) for name, value in fields.items()}
        self.fields["duration_seconds"] = round(self._before + time.monotonic() - self._begun, 3)
        self.fields["utilisation"] = self._utilisation.so_far()
        self.fields["peak_memory"] = peak_memory()
        files.write_json(self.folder / folders.RECORD, self.fields)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to timings[name], also when the inside fails; resumed runs add up."""
        begun = time.monotonic()
        try:
            yield
        finally:
            timings = self.fields.setdefault("timings", {})
            timings[name] = round(timings.get(name, 0.0) + time.monotonic() - begun, 3)
            # A full disk must not hide what failed inside.
            with contextlib.suppress(OSError) if sys.exc_info()[0] else contextlib.nullcontext():
                self.update()

    def end(
        self,
        status: Status,
        *,
        exit_code: int = 0,
        reason: str | None = None,
        metrics: Mapping[str, SupportsFloat] | None = None,
    ) -> None:
        """Says how the run ended, and writes the file for the last time.

        Args:
            status: finished, diverged, interrupted or failed.
            exit_code: of the command; docs/exit_codes.md.
            reason: one line for a person, unless it finished.
            metrics: the final metrics; those of before stay if none are given.

        Raises:
            ValueError: a metric that is not finite, or that has no proper name.
        """
        final = {} if metrics is None else {"metrics": to_finite_metrics(metrics)}
        self._utilisation.stop()
        now = _now()
        session = {**self.fields["sessions"][-1], "ended": now, "exit_code": exit_code}
        self.update(
            status=status,
            reason=reason,
            exit_code=exit_code,
            ended=now,
            hardware=provenance.hardware_info(),
            sessions=[*self.fields["sessions"][:-1], session],
            **final,
        )


def start_record(
    folder: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    seeds: Mapping[str, int],
    data: Mapping[str, Any] | None = None,
    parent: Mapping[str, Any] | str | None = None,
    choices: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    project: Path = provenance.PROJECT,
) -> Record:
    """Begins a record, or goes on with the one that is there: a restart, whose timings add up.

    Args:
        folder: the run's folder; made if absent. Lock it first (`runs.folder.lock_folder`).
        config: the resolved configuration, plain mappings and lists. Secrets in it are masked.
        seeds: seed by what it is for.
        data: `fingerprints` by split and whatever describes the data; may come later by `update(data=...)`.
        parent: where the weights come from (`init_from`).
        choices: Hydra's choice by group (`model`, `data`, ...), the names a person knows the run by.
        command: the command line; this process's own if not given.
        project: the folder of the code.

    Returns:
        The record, written with the status "running".

    Raises:
        InputError: there is a run.json that cannot be read.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    before = folders.read_record(path) if (path / folders.RECORD).exists() else {}
    now, code = _now(), provenance.git_state(project)
    if len(code["diff"].encode()) > _LONGEST_DIFF:
        files.write_text(path / folders.DIFF, code["diff"])
        code["diff"] = f"see {folders.DIFF}"
    sessions = [*before.get("sessions", []), _session(now, code)]
    fields: dict[str, Any] = {
        "status": "running",
        "reason": None,
        "exit_code": None,
        "command": mask_command(command if command is not None else sys.orig_argv),
        "directory": str(Path.cwd()),
        "started": before.get("started", now),
        "ended": None,
        "duration_seconds": before.get("duration_seconds", 0.0),
        "restarts": len(sessions) - 1,
        "metrics": before.get("metrics", {}),
        "data": data if data is not None else before.get("data"),
        "choices": choices if choices is not None else before.get("choices"),
        "parent": parent if parent is not None else before.get("parent"),
        **provenance.environment_info(),
        "seeds": seeds,
        "timings": before.get("timings", {}),
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
    extra = {name: value for name, value in before.items() if name not in fields}
    return Record(path, folders.to_plain(fields | extra))


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration as canonical JSON, in hex: equal for runs that were asked for the same.

    Secrets are masked first, and the keys of OUTSIDE_HASH left out.
    """
    inside = {name: value for name, value in mask_secrets(folders.to_plain(config)).items() if name not in OUTSIDE_HASH}
    canonical = json.dumps(inside, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record in a run's folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return folders.read_record(folder)


def _session(now: str, code: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "started": now,
        "ended": None,
        "exit_code": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "revision": code["revision"],
        "dirty": code["dirty"],
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
