"""The run folder: file names, state, lock, and the settings that may change when a run is resumed."""

import contextlib
import fnmatch
import json
import math
import os
import shlex
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from config import files, parsing
from config.errors import InputError, InUseError
from config.masking import mask_command, mask_override, mask_secrets, mask_text
from config.parsing import read_json
from config.syncing import sync_parents
from runs.fields import flatten

RECORD = "run.json"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
MISTAKE_IMAGES = "pictures.npz"
MISTAKES = "mistakes.jsonl"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "last-1.ckpt", "best.ckpt"
PREVIOUS_BEST_CHECKPOINT = "best-1.ckpt"  # while last-1.ckpt remembers an earlier best validation than last.ckpt
MODEL = "model"
TEST = "test"  # folder of the evaluation on the test part
REPORT = "report.html"
HYDRA = ".hydra"
DIFF = "uncommitted.diff"
LOCK = ".lock"
OWNER = ".lock.json"
WAIT_VARIABLE = "ISOTRAIN_WAIT"
HEARTBEAT = 30.0  # seconds between two signs of life of the process that holds the lock
SILENCE, LONG_SILENCE = 600.0, 86_400.0  # seconds after which a run on another machine is lost, with and without them

State = Literal["absent", "new", "unfinished", "finished", "foreign"]

# Files that may exist in a folder before a run starts there: Hydra's, those of the run before its first record, and the
# system's.
_IGNORED = (HYDRA, LOCK, OWNER, "*.log", "*.tmp", "lost+found", ".DS_Store", ".nfs*")
_MAX_LINES = 20  # of a message about differences

_Allows = Callable[[Any, Any, Mapping[str, Any]], bool]


def _always(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    return True


def _if_renamed_class(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    """Whether the new class is the old one under its present name."""
    return old == "trainers.baselines.Majority" and str(new).startswith(old)


def _if_longer(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    """Whether training becomes longer and the schedule does not depend on its length."""
    optim = config.get("optim") or {}
    warmup = optim.get("warmup") or 0
    fixed = optim.get("horizon") or (optim.get("schedule") == "constant" and (warmup == 0 or warmup >= 1))
    return bool(fixed) and _limit(new) >= _limit(old)


def _if_added(*defaults: Any) -> _Allows:
    """Return whether a setting is at its default, and the run is of a version without it."""
    return lambda old, new, config: old is None and new in defaults


def _limit(count: Any) -> float:
    return float("inf") if count is None or count == -1 else float(count)


# The settings that may differ when a run is resumed, because the result of training does not depend on them. Keys are
# dotted, with `*` as a wildcard; the function gets the old value, the new value and the new configuration.
ALLOWED_CHANGES: Mapping[str, _Allows] = {
    "trainer.max_steps": _if_longer,
    "trainer.max_epochs": _if_longer,
    "data.epochs": _if_longer,
    "trainer.enable_progress_bar": _always,
    "trainer.enable_model_summary": _always,
    "trainer.log_every_n_steps": _always,
    "trainer.checkpoint_minutes": _always,
    "trainer.checkpoint_steps": _always,
    "data.workers": _always,
    "data.cache_dir": _always,
    "data.verify": _always,
    "data.split_seed": _if_added(0),
    "data.group_near_duplicates": _if_added(True),
    "data.columns.*": _if_added("question", "context", "answer", "answers", "answer_start", "id", "title"),
    "quality.*": _always,
    "explain": _always,
    "explain.*": _always,
    "data.contract": _always,
    "data.suitable.*": _always,  # the model's settings are compared
    "logger": _always,
    "logger.*": _always,
    "metrics_file": _always,
    "push_metrics": _always,
    "population_dir": _always,
    "task.module": _always,
    "model._target_": _if_renamed_class,
    "model.trust_remote_code": _always,
    "task.majority": _always,
}


def config_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], allowed: Mapping[str, _Allows] = ALLOWED_CHANGES
) -> list[tuple[str, Any, Any]]:
    """Return the differences of two configurations that prevent resuming.

    Args:
        old: The resolved configuration in run.json.
        new: The resolved configuration of the command that resumes the run.
        allowed: Differences that are ignored.

    Returns:
        (dotted key, old value, new value), sorted by key. A missing key counts as null. Secrets are not compared, because
        they are not recorded.
    """
    old_values, new_values = flatten(to_plain(mask_secrets(old))), flatten(to_plain(mask_secrets(new)))
    differences = []
    for key in sorted(old_values.keys() | new_values.keys()):
        old_value, new_value = old_values.get(key), new_values.get(key)
        # 1 and 1.0 are one value, as in YAML; 1 and true are two.
        if old_value == new_value and isinstance(old_value, bool) == isinstance(new_value, bool):
            continue
        if not any(
            fnmatch.fnmatchcase(key, pattern) and allows(old_value, new_value, new)
            for pattern, allows in allowed.items()
        ):
            differences.append((key, old_value, new_value))
    return differences


def describe_differences(folder: str | os.PathLike[str], differences: list[tuple[str, Any, Any]]) -> str:
    """Return the message for a command that cannot resume the run in a folder.

    Args:
        folder: The run folder.
        differences: Result of `config_differences`; not empty.
    """
    lines = difference_lines(differences, "{old} in the folder, now {new}")
    advice = "Use the same settings to resume that run, or another hydra.run.dir for a new one."
    if all(ALLOWED_CHANGES.get(key) is _if_longer for key, _, _ in differences):
        advice += (
            " A run can only be trained for longer if its schedule does not depend on its length from the start: set "
            "optim.horizon, or optim.schedule=constant with optim.warmup=0 or in steps."
        )
    return "\n".join([f"{folder} contains a run with another configuration:", *lines, advice])


def difference_lines(differences: list[tuple[str, Any, Any]], style: str) -> list[str]:
    """Return the lines of a message about differences, as `config_differences` returns them.

    Args:
        differences: (key, old value, new value).
        style: text of a line after the key, with {old} and {new}.
    """
    lines = [
        f"  {key}: {style.format(old=_shorten(old), new=_shorten(new))}" for key, old, new in differences[:_MAX_LINES]
    ]
    if len(differences) > len(lines):
        lines.append(f"  and {len(differences) - len(lines)} more")
    return lines


def folder_state(folder: str | os.PathLike[str]) -> State:
    """Return the state of a folder for a command that would train in it. Nothing is written.

    Returns:
        absent: There is no such folder. new: It is empty, or has only files of Hydra. unfinished: A run that can be resumed.
        finished: A finished run. foreign: Anything else, or a run.json that cannot be read.
    """
    folder = Path(folder)
    if not folder.exists():
        return "absent"
    if not folder.is_dir():
        return "foreign"
    if (folder / RECORD).exists():
        try:
            record = read_record(folder)
        except InputError:
            return "foreign"
        status = record["status"]
        # Of another program, or of `python -m trainers evaluate`, which cannot be resumed.
        if status == "evaluated" or not isinstance(record.get("config"), dict):
            return "foreign"
        return "finished" if status == "finished" else "unfinished"
    for entry in folder.iterdir():
        if not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _IGNORED):
            return "foreign"
        if entry.name == HYDRA and not _is_own_hydra(entry):
            return "foreign"
    return "new"


def _is_own_hydra(folder: Path) -> bool:
    """Return whether Hydra's folder is empty or of train.py, and not of another program that uses Hydra."""
    with contextlib.suppress(OSError, ValueError):
        return not any(folder.iterdir()) or files.has_line(folder / "config.yaml", "monitor: ", 10_000)
    return False


def check_folder(folder: str | os.PathLike[str]) -> State:
    """Return the state of a folder that a run is going to use.

    Raises:
        InputError: It is foreign.
    """
    state = folder_state(folder)
    if state != "foreign":
        return state
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; hydra.run.dir must name a folder")
    if (folder / RECORD).exists():
        read_record(folder)
    names = sorted(entry.name for entry in folder.iterdir())
    listing = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise InputError(f"{folder} is not empty and not a run folder ({listing}); set another hydra.run.dir, or empty it")


def _check_files(folder: Path) -> None:
    """Refuse a run folder with a pipe or a device among its files, except as metrics.jsonl, which may be one."""
    try:
        for name in ("", HYDRA, CHECKPOINTS, MODEL, "quality", "explain"):
            parsing.check_folder(folder / name, (METRICS,))
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record (run.json) of a run folder.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = Path(folder) / RECORD
    _check_files(Path(folder))
    try:
        record = read_json(path)
    except FileNotFoundError:
        reason = "no such folder" if not Path(folder).is_dir() else f"it has no {RECORD}"
        raise InputError(f"{folder} is not a run folder: {reason}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); move the folder away, or set another hydra.run.dir") from None
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        raise InputError(f"{path} is not a record of isotrain: it has no status; use another folder")
    return record


def metrics_copy(folder: str | os.PathLike[str], metrics_file: str | None) -> Path | None:
    """Return the file that gets the metric lines beside metrics.jsonl in the run folder; None if it is the same file.

    Args:
        folder: The run folder.
        metrics_file: Of the configuration.
    """
    if not metrics_file or os.path.realpath(metrics_file) == os.path.realpath(Path(folder) / METRICS):
        return None
    return Path(metrics_file)


def check_metrics_file(folder: str | os.PathLike[str], metrics_file: str | None) -> None:
    """Check that `metrics_file` of the configuration is not metrics.jsonl in the folder of another run, which has no copy.

    Raises:
        InputError: It is.
    """
    if not metrics_file:
        return
    path = Path(os.path.realpath(metrics_file))
    if path.name == METRICS and path.parent != Path(os.path.realpath(folder)) and (path.parent / RECORD).exists():
        raise InputError(
            f"metrics_file={metrics_file} has the metrics of the run {path.parent}, which would be lost: name another file"
        )


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a run of train.py."""
    return folder_state(folder) in ("unfinished", "finished")


def is_evaluation(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an output of `python -m trainers evaluate`.

    Raises:
        InputError: It has no readable record.
    """
    record = read_record(folder)
    return record["status"] == "evaluated" and isinstance(record.get("config"), dict)


def to_plain(value: Any) -> Any:
    """Convert a value for JSON: tuples to lists, numpy and torch scalars to numbers, inf and nan to text."""
    if isinstance(value, Mapping):
        return {str(name): to_plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(child) for child in value]
    if isinstance(value, set | frozenset):
        return sorted((to_plain(child) for child in value), key=str)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    item = getattr(value, "item", None)
    return to_plain(item()) if callable(item) and getattr(value, "size", 1) != 0 else str(value)


def write_hydra(folder: str | os.PathLike[str], *, config: str, hydra: str, overrides: str) -> None:
    """Write `.hydra/` with secrets masked. Hydra itself would write it before the folder is locked.

    Args:
        folder: The run folder.
        config: The composed configuration as YAML.
        hydra: Hydra's own configuration as YAML.
        overrides: The overrides as a YAML list.
    """
    for name, text in (("config", config), ("hydra", hydra)):
        files.write_text(Path(folder) / HYDRA / f"{name}.yaml", mask_text(text))
    import yaml

    # Masked one by one: in the text of the list, quotes and blanks could hide the end of a secret.
    words = [mask_override(str(word)) for word in yaml.safe_load(overrides) or []]
    files.write_text(Path(folder) / HYDRA / "overrides.yaml", yaml.safe_dump(words, width=10**6, allow_unicode=True))


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str], timeout: float = 10.0) -> Iterator[None]:
    """Lock a run folder for this process; the folder is created if it does not exist. Only rank zero calls this.

    With ISOTRAIN_WAIT=1 in the environment, this waits until the folder is free.

    Args:
        folder: The run folder.
        timeout: Seconds to wait in any case: the data-loading workers of a killed run hold the lock for a moment.

    Raises:
        InUseError: Another process uses the folder.
    """
    import filelock

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sync_parents(folder)  # Hydra may have created it
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        message = f"{folder} is in use by {_owner(folder)}"
        if os.environ.get(WAIT_VARIABLE, "0") in ("", "0"):
            advice = f"wait for it (e.g. with {WAIT_VARIABLE}=1), or set another hydra.run.dir"
            raise InUseError(f"{message}; {advice}") from None
        print(f"isotrain: {message}: waiting", file=sys.stderr, flush=True)
        lock.acquire(poll_interval=1)
    except NotImplementedError:
        warnings.warn(
            f"the file system of {folder} has no locks: make sure that only one process trains there", stacklevel=3
        )
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "command": mask_command(sys.orig_argv)}
        files.write_json(folder / OWNER, owner | {"heartbeat_seconds": HEARTBEAT})
        with _heartbeat(folder / OWNER):
            yield
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()


@contextlib.contextmanager
def _heartbeat(file: Path) -> Iterator[None]:
    """Set the time of a file every `HEARTBEAT` seconds: a sign of life for machines that do not see the lock."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(file)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def is_lost(folder: str | os.PathLike[str]) -> bool:
    """Return whether a run that is recorded as running on another machine has no process any more. Nothing is written.

    A lock that is seen says that it has one. Some file systems show a lock only to the machine that holds it, so that a
    free lock says nothing: then the run is lost if its files have not changed for `SILENCE` seconds, or `LONG_SILENCE`
    without a heartbeat (runs of isotrain before November 2026).
    """
    folder = Path(folder)
    if _lock_state(folder) == "held":
        return False
    owner = files.read_json(folder / OWNER)
    paths = [folder / name for name in (OWNER, RECORD, METRICS, CHECKPOINTS)]
    with contextlib.suppress(OSError):
        paths += list((folder / CHECKPOINTS).iterdir())
    times = []
    for path in paths:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    silence = SILENCE if "heartbeat_seconds" in owner else LONG_SILENCE
    return bool(times) and time.time() - max(times) > silence


def is_locked(folder: str | os.PathLike[str]) -> bool:
    """Return whether a process uses the folder, or whether that is unknown. Nothing is written."""
    return _lock_state(folder) != "free"


def _lock_state(folder: str | os.PathLike[str]) -> Literal["held", "free", "unknown"]:
    """Return the state of a folder's lock, as this machine sees it; unknown on file systems without locks."""
    try:
        import fcntl

        with (Path(folder) / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return "free"
    except BlockingIOError:
        return "held"
    except (ImportError, OSError):
        return "unknown"
    return "free"


def _owner(folder: Path) -> str:
    try:
        owner = read_json(folder / OWNER)
        command = shlex.join(owner["command"])
        return (
            f"process {owner['pid']} on {owner['host']} ({command if len(command) <= 120 else command[:117] + '...'})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
