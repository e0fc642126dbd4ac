"""`python -m runs show`: a record as readable text."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.terminal import format_duration, format_entry, format_timestamp, format_value, make_printable
from runs import folder as folders
from runs.fields import as_mapping, flatten
from runs.listing import choice_name, run_status

_LONG_HASH = re.compile(r"([0-9a-f]{12})[0-9a-f]{4,}")
_FILES = (
    (folders.MODEL, "the model"),
    (folders.PREDICTIONS, "one prediction per evaluation example"),
    (folders.METRICS, "metric lines"),
    (folders.TEST, "result on the test part"),
    (folders.CHECKPOINTS, "for resuming and for init_from="),
    (f"{folders.HYDRA}/config.yaml", "the configuration"),
    (folders.DIFF, "uncommitted changes of the code"),
    ("quality", "verdict of the data contract"),
    ("explain", "explanations"),
    ("report.html", "the report"),
)


def format_run(folder: str | os.PathLike[str], record: Mapping[str, Any], width: int) -> str:
    """Format the record of a run for a terminal.

    Args:
        folder: The run folder.
        record: Its record.
        width: Columns of the terminal.
    """
    entries = (format_entry(name, text, width) for name, text in _entries(Path(folder), record) if text)
    return "\n".join([make_printable(os.fspath(folder)), *entries])


def _entries(folder: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def field(key: str) -> dict[str, Any]:
        return as_mapping(record.get(key))

    status = run_status(folder, record)
    reason = f": {record['reason']}" if record.get("reason") else ""
    if status in ("stopped", "lost"):
        reason = ": its process is gone; repeat the command to resume"
    code = f", exit code {record['exit_code']}" if record.get("exit_code") else ""
    yield "status", make_printable(f"{status}{reason}{code}")
    restarts = record["restarts"] if isinstance(record.get("restarts"), int) else 0
    restarted = f", restarted {restarts} time{'s' if restarts != 1 else ''}" if restarts else ""
    started, duration = format_timestamp(record.get("started")), format_duration(record.get("duration_seconds"))
    yield "started", f"{started}, took {duration}{restarted}"
    command = record.get("command")
    yield "command", make_printable(shlex.join(map(str, command))) if isinstance(command, list) else ""
    yield "model", make_printable(choice_name(record, "model") or "")
    data = make_printable(choice_name(record, "data") or "")
    yield "data", ", ".join(filter(None, [data, _pairs(_data_counts(field("data")))]))
    fingerprints = as_mapping(field("data").get("fingerprints"))
    yield (
        "",
        _pairs({f"{split} fingerprint": _LONG_HASH.sub(r"\1", str(value)) for split, value in fingerprints.items()}),
    )
    yield "metrics", _pairs(field("metrics")) or "none yet"
    yield "test", _test_result(folder)
    yield from _details(field("details"))
    phases = (f"{make_printable(name)} {format_duration(seconds)}" for name, seconds in field("timings").items())
    yield "timings", ", ".join(phases)
    yield "machine", _machine(field("hardware"), record.get("world_size"))
    yield "use", _utilisation(field("utilisation"), field("peak_memory"))
    git = field("git")
    if git.get("revision"):
        changes = ", with uncommitted changes" if git.get("dirty") else ""
        yield "code", make_printable(f"{str(git['revision'])[:12]}{changes}")
    yield "seeds", _pairs(field("seeds"))
    parent = record.get("parent") or ""
    yield "parent", _pairs(parent) if isinstance(parent, dict) else make_printable(parent)
    yield "trial", make_printable(record.get("trial") or "")
    yield "pipeline", _pairs(field("pipeline"))
    config_hash = record.get("config_hash")
    yield "config", f"hash {make_printable(str(config_hash)[:12])}" if config_hash else ""
    library = _library(folder, record)
    title = "files"
    for name, description in _FILES:
        if (folder / name).exists():
            loader = f"; {library} loads it" if name == folders.MODEL and library else ""
            yield title, f"{name:<20} {description}{loader}"
            title = ""


def _test_result(folder: Path) -> str:
    """The metrics on the test part, which is apart from the validation that chose the weights; "" if it was not scored."""
    if not (folder / folders.TEST / folders.RECORD).exists():
        return ""
    record = folders.read_record(folder / folders.TEST)
    if record.get("split") != "test":
        return ""
    return f"{_pairs(as_mapping(record.get('metrics')))}; scored {format_timestamp(record.get('finished'))}"


def _library(folder: Path, record: Mapping[str, Any]) -> str | None:
    """The library that loads the model without isotrain; None if it is unknown, or a network of the user's own."""
    from config import files, networks, tasks  # imports OmegaConf

    try:
        if networks.is_exported(files.read_json(folder / folders.MODEL / "config.json")):
            return None
        library = getattr(tasks.load_module(tasks.task_from_record(record)), "LIBRARY", None)
    except InputError:
        return None
    return library if isinstance(library, str) else None


def _details(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The classes with the lowest accuracy and the most frequent confusions; without classes, all details."""
    accuracy, confusion = details.get("class_accuracy"), details.get("confusion")
    if not isinstance(accuracy, dict) or not isinstance(confusion, dict):
        yield "details", _pairs(details)
        return
    lowest = dict(sorted(accuracy.items(), key=lambda item: item[1])[:5])
    yield "classes", f"{len(accuracy)}; lowest accuracy, in percent: {_pairs(lowest)}"
    confusions = [
        (count, true, predicted)
        for true, row in confusion.items()
        for predicted, count in as_mapping(row).items()
        if predicted != true
    ]
    most = sorted(confusions, key=lambda item: -item[0])[:5]
    yield "confused", ", ".join(make_printable(f"{true} as {predicted} {count}x") for count, true, predicted in most)


def _data_counts(data: Mapping[str, Any]) -> dict[str, Any]:
    """What describes the data, without zeros, caches and deeper settings."""
    counts: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and name != "fingerprints":
            counts[name] = {key: child for key, child in value.items() if child and isinstance(child, int)}
        elif isinstance(value, str | int | float):
            counts[name] = value
    return counts


def _pairs(values: Mapping[str, Any]) -> str:
    """`name value` for each value that is not null, with dotted names."""
    pairs = flatten(values).items()
    return ", ".join(
        f"{make_printable(name)} {format_value(value)}" for name, value in pairs if value not in (None, {})
    )


def _machine(hardware: Mapping[str, Any], processes: Any) -> str:
    if not hardware:
        return ""
    gpus = [gpu.get("name", "GPU") for gpu in hardware.get("gpus") or [] if isinstance(gpu, dict)]
    memory = hardware.get("memory_mib")
    parts = [
        hardware.get("host"),
        f"{hardware.get('cores')} cores of {hardware.get('cpu')}",
        f"{memory / 1024:.0f} GiB" if isinstance(memory, int | float) else None,
        *gpus,
        f"{processes} processes" if isinstance(processes, int) and processes > 1 else None,
    ]
    return ", ".join(make_printable(part) for part in parts if part)


def _utilisation(utilisation: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    values = {
        "CPU {} %": utilisation.get("cpu_percent"),
        "GPU {} %": utilisation.get("gpu_percent"),
        "{} MiB": memory.get("process_mib"),
        "{} MiB on the GPU": memory.get("gpu_mib"),
    }
    return ", ".join(text.format(format_value(value)) for text, value in values.items() if value is not None)
