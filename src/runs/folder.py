"""A run's folder: names, atomic writes, state, lock, and which settings may change on resuming."""

import contextlib
import fnmatch
import json
import math
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from config import files
from config.errors import InputError
from config.flatten import flatten
from runs.masking import mask_command, mask_override, mask_secrets, mask_text

RECORD = "run.json"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
MISTAKE_IMAGES = "pictures.npz"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "last-1.ckpt", "best.ckpt"
MODEL = "model"
HYDRA = ".hydra"
DIFF = "uncommitted.diff"
LOCK = ".lock"
OWNER = ".lock.json"

State = Literal["absent", "new", "unfinished", "finished", "foreign"]

# What may already lie in a folder that no run has begun in: Hydra's own, ours from before the first record,
# the system's.
_HARMLESS = (HYDRA, LOCK, OWNER, "*.log", "*.tmp", "lost+found", ".DS_Store", ".nfs*")


def _always(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    return True


def _renamed(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    """A class that had another name when the run was made."""
    return old == "trainers.baselines.Majority" and str(new).startswith(f"{old}")


def _longer(old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    """More steps or epochs are the same run, only if the schedule does not stretch with them."""
    optim = config.get("optim") or {}
    warmup = optim.get("warmup") or 0
    fixed = optim.get("horizon") or (optim.get("schedule") == "constant" and (warmup == 0 or warmup >= 1))
    return bool(fixed) and _limit(new) >= _limit(old)


def _limit(count: Any) -> float:
    return float("inf") if count is None or count == -1 else float(count)


# The one list of settings that may differ when a run goes on: they change nothing that training computes.
# Keys are dotted, `*` stands for anything; each is asked with the old and the new value and the new
# configuration.
ALLOWED_CHANGES: Mapping[str, Callable[[Any, Any, Mapping[str, Any]], bool]] = {
    "trainer.max_steps": _longer,
    "trainer.max_epochs": _longer,
    "data.epochs": _longer,
    "trainer.enable_progress_bar": _always,
    "trainer.enable_model_summary": _always,
    "trainer.log_every_n_steps": _always,
    "trainer.checkpoint_minutes": _always,
    "trainer.checkpoint_steps": _always,
    "data.workers": _always,
    "data.cache_dir": _always,
    "data.verify": _always,
    "quality.*": _always,
    "explain": _always,
    "explain.*": _always,
    "data.contract": _always,
    "logger": _always,
    "logger.*": _always,
    "metrics_file": _always,
    "push_metrics": _always,
    "population_dir": _always,
    "task.module": _always,
    "model._target_": _renamed,
    "task.majority": _always,
}


def config_differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    allowed: Mapping[str, Callable[[Any, Any, Mapping[str, Any]], bool]] = ALLOWED_CHANGES,
) -> list[tuple[str, Any, Any]]:
    """What keeps a run from going on under a new configuration.

    Args:
        old: the resolved configuration in run.json.
        new: the resolved configuration of the command that wants to go on.
        allowed: what may differ; see MAY_DIFFER.

    Returns:
        (dotted key, old value, new value) for each difference that is not allowed, by key. A key that is
        missing counts as null. Secrets are compared as they are recorded: not at all.
    """
    before, after = flatten(to_plain(mask_secrets(old))), flatten(to_plain(mask_secrets(new)))
    found = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        # 1 and 1.0 are one value, as in YAML; 1 and true are two.
        if was == now and isinstance(was, bool) == isinstance(now, bool):
            continue
        if any(fnmatch.fnmatchcase(key, pattern) and may(was, now, new) for pattern, may in allowed.items()):
            continue
        found.append((key, was, now))
    return found


def describe_differences(folder: str | os.PathLike[str], found: list[tuple[str, Any, Any]]) -> str:
    """The message for a person whose command cannot go on with the run in a folder.

    Args:
        folder: the run's folder.
        found: what `differences` returned; not empty.
    """
    lines = [f"  {key}: {_short(old)} in the folder, {_short(new)} now" for key, old, new in found[:20]]
    if len(found) > len(lines):
        lines.append(f"  and {len(found) - len(lines)} more")
    keys = [key for key, _, _ in found]
    advice = "Give the same settings to go on with that run, or another hydra.run.dir for a new one."
    if all(allowed is _longer for allowed in map(ALLOWED_CHANGES.get, keys)):
        advice += (
            " To train longer, the run needs from its start a schedule that does not end with it: optim.horizon, or "
            "optim.schedule=constant with optim.warmup=0 or in steps."
        )
    return "\n".join([f"{folder} holds a run with another configuration:", *lines, advice])


def folder_state(folder: str | os.PathLike[str]) -> State:
    """What a folder is to a command that wants to train in it. Nothing is touched.

    Returns:
        absent: there is no such folder. new: empty, or nothing but what Hydra puts there. unfinished: a run
        that can go on. finished: a run that is done. foreign: something else, or a run.json that cannot be
        read.
    """
    folder = Path(folder)
    if not folder.exists():
        return "absent"
    if not folder.is_dir():
        return "foreign"
    if (folder / RECORD).exists():
        try:
            status = read_record(folder).get("status")
        except InputError:
            return "foreign"
        if status == "evaluated":  # of `python -m trainers evaluate`: there is nothing to go on with
            return "foreign"
        return "finished" if status == "finished" else "unfinished"
    for entry in folder.iterdir():
        if not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _HARMLESS):
            return "foreign"
    return "new"


def check_folder(folder: str | os.PathLike[str]) -> State:
    """The state of a folder that a run is to use.

    Raises:
        InputError: it is foreign; the message says what is in it.
    """
    found = folder_state(folder)
    if found != "foreign":
        return found
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; hydra.run.dir must name a folder")
    if (folder / RECORD).exists():
        read_record(folder)
    names = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise InputError(
        f"{folder} is not empty and holds no run of ours ({shown}); give another hydra.run.dir, or empty it"
    )


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a folder's run.json.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        what = "no such folder" if not Path(folder).is_dir() else f"there is no {RECORD} in it"
        raise InputError(f"{folder} is not a run: {what}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); move the folder away, or give another hydra.run.dir") from None
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        raise InputError(f"{path} is not a record of ours: it has no status; give another folder")
    return record


def to_plain(value: Any) -> Any:
    """A value as JSON can hold it: tuples are lists, numpy and torch scalars numbers, inf and nan text."""
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
    """Writes `.hydra/`, as Hydra would have at its start, but only once the folder is ours to write to.

    Args:
        folder: the run's folder.
        config: the composed configuration as YAML.
        hydra: Hydra's own configuration as YAML.
        overrides: the task overrides as a YAML list.
    """
    for name, text in (("config", config), ("hydra", hydra)):
        files.write_text(Path(folder) / HYDRA / f"{name}.yaml", mask_text(text))
    import yaml

    # One by one: in the text of the list quotes and blanks would hide a secret's end.
    words = [mask_override(str(each)) for each in yaml.safe_load(overrides) or []]
    files.write_text(Path(folder) / HYDRA / "overrides.yaml", yaml.safe_dump(words, width=10**6, allow_unicode=True))


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str], timeout: float = 10.0) -> Iterator[None]:
    """Keeps a folder for this process while it trains there. Made if absent. Only rank zero takes it.

    Args:
        folder: the run's folder.
        timeout: seconds to wait; data-loading workers of a killed run may hold on for a moment.

    Raises:
        InputError: another process trains there; the message says which.
    """
    import filelock

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(folder / LOCK)
    try:
        held.acquire(timeout=timeout)
    except filelock.Timeout:
        raise InputError(
            f"{folder} is in use by {_owner(folder)}; wait for it, or give another hydra.run.dir"
        ) from None
    except NotImplementedError:
        warnings.warn(
            f"the file system of {folder} has no locks: see to it that one process trains there", stacklevel=3
        )
        yield
        return
    try:
        for left in folder.glob(f".{RECORD}.*.tmp"):  # by a writer that was killed
            left.unlink(missing_ok=True)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "command": mask_command(sys.orig_argv)}
        files.write_json(folder / OWNER, owner)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()
        held.release()


def is_locked(folder: str | os.PathLike[str]) -> bool:
    """Whether a process trains in the folder now. True where that cannot be told. Nothing is touched."""
    try:
        import fcntl

        with (Path(folder) / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return True
    return False


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_bytes())
        return f"process {owner['pid']} on {owner['host']} ({_short(shlex.join(owner['command']), 120)})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _short(value: Any, width: int = 60) -> str:
    text = value if isinstance(value, str) and width > 60 else json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= width else text[: width - 3] + "..."
