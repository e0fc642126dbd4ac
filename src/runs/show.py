"""One run, readably: what it was, how it ended, what came out, and where the files are."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.terminal import format_duration, format_entry, format_timestamp, format_value, make_printable
from runs import folder as folders
from runs.listing import choice_name, run_status

_LONG_HASH = re.compile(r"([0-9a-f]{12})[0-9a-f]{4,}")
_FILES = (
    (folders.MODEL, "the model"),
    (folders.PREDICTIONS, "one line for each evaluation example"),
    (folders.METRICS, "metrics over time"),
    (folders.CHECKPOINTS, "to resume from, or for init_from="),
    (f"{folders.HYDRA}/config.yaml", "the configuration"),
    (folders.DIFF, "what the code differed by from its revision"),
    ("quality", "the data contract's verdict"),
    ("explain", "explanations"),
    ("report.html", "the report"),
)


def format_run(folder: str | os.PathLike[str], record: Mapping[str, Any], room: int) -> str:
    """A run's record for a terminal.

    Args:
        folder: the run's folder.
        record: its run.json.
        room: columns of the terminal.
    """
    head = make_printable(os.fspath(folder))
    entries = (format_entry(name, text, room) for name, text in _entries(Path(folder), record) if text)
    return "\n".join([head, *entries])


def _entries(folder: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def of(key: str) -> dict[str, Any]:
        value = record.get(key)
        return value if isinstance(value, dict) else {}

    reason = f": {record['reason']}" if record.get("reason") else ""
    now = run_status(folder, record)
    if now == "stopped":
        reason = ": run.json says running, and no process is there; the same command goes on with it"
    code = f", exit code {record['exit_code']}" if record.get("exit_code") else ""
    yield "status", make_printable(f"{now}{reason}{code}")
    restarts = record["restarts"] if isinstance(record.get("restarts"), int) else 0
    again = f", restarted {restarts} time{'s' if restarts != 1 else ''}" if restarts else ""
    yield (
        "started",
        f"{format_timestamp(record.get('started'))}, took {format_duration(record.get('duration_seconds'))}{again}",
    )
    command = record.get("command")
    yield "command", make_printable(shlex.join(map(str, command))) if isinstance(command, list) else ""
    yield "model", make_printable(choice_name(record, "model") or "")
    yield (
        "data",
        ", ".join(filter(None, [make_printable(choice_name(record, "data") or ""), _pairs(_counts(of("data")))])),
    )
    prints = of("data").get("fingerprints")
    yield (
        "",
        _pairs({f"{name} fingerprint": _LONG_HASH.sub(r"\1", str(mark)) for name, mark in prints.items()})
        if isinstance(prints, dict)
        else "",
    )
    yield "metrics", _pairs(of("metrics")) or "none yet"
    yield from _details(of("details"))
    yield (
        "timings",
        ", ".join(f"{make_printable(name)} {format_duration(spent)}" for name, spent in of("timings").items()),
    )
    yield "machine", _machine(of("hardware"), record.get("world_size"))
    yield "use", _use(of("utilisation"), of("peak_memory"))
    code_state = of("git")
    if code_state.get("revision"):
        dirty = ", with uncommitted changes" if code_state.get("dirty") else ""
        yield "code", make_printable(f"{str(code_state['revision'])[:12]}{dirty}")
    yield "seeds", _pairs(of("seeds"))
    parent = record.get("parent")
    yield "parent", (_pairs(parent) if isinstance(parent, dict) else make_printable(parent)) if parent else ""
    yield "trial", make_printable(record.get("trial") or "")
    yield "pipeline", _pairs(of("pipeline"))
    yield (
        "config",
        f"hash {make_printable(str(record.get('config_hash'))[:12])}" if record.get("config_hash") else "",
    )
    there = [(name, what) for name, what in _FILES if (folder / name).exists()]
    library = _library(record)
    for index, (name, what) in enumerate(there):
        loads = f"; {library} loads it" if name == folders.MODEL and library else ""
        yield "" if index else "files", f"{name:<20} {what}{loads}"


def _library(record: Mapping[str, Any]) -> str | None:
    """What loads the model without isotrain; None where this machine does not know the task, or it does not say."""
    from config import tasks

    try:
        library = getattr(tasks.load_module(tasks.task_from_record(record)), "LIBRARY", None)
    except InputError:
        return None
    return library if isinstance(library, str) else None


def _details(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The classes that are recognised least and what they are taken for; otherwise what there is."""
    accuracy, confusion = details.get("class_accuracy"), details.get("confusion")
    if not isinstance(accuracy, dict) or not isinstance(confusion, dict):
        yield "details", _pairs(details)
        return
    worst = dict(sorted(accuracy.items(), key=lambda item: item[1])[:5])
    yield "classes", f"{len(accuracy)}; recognised least, in percent: {_pairs(worst)}"
    mistaken = [
        (count, true, other)
        for true, row in confusion.items()
        if isinstance(row, dict)
        for other, count in row.items()
        if other != true
    ]
    most = sorted(mistaken, key=lambda each: -each[0])[:5]
    yield "confused", ", ".join(make_printable(f"{true} as {other} {count}x") for count, true, other in most)


def _counts(data: Mapping[str, Any]) -> dict[str, Any]:
    """What describes the data, without zeros, caches and settings two levels down."""
    counts: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and name != "fingerprints":
            counts[name] = {key: child for key, child in value.items() if child and isinstance(child, int)}
        elif isinstance(value, str | int | float):
            counts[name] = value
    return counts


def _pairs(values: Mapping[str, Any]) -> str:
    """`name value` for each value, nested names dotted."""
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            inner = _pairs({f"{name}.{key}": child for key, child in value.items()})
            parts += [inner] if inner else []
        elif value is not None:
            parts.append(f"{make_printable(name)} {format_value(value)}")
    return ", ".join(parts)


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


def _use(utilisation: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    values = {
        "CPU {} %": utilisation.get("cpu_percent"),
        "GPU {} %": utilisation.get("gpu_percent"),
        "{} MiB": memory.get("process_mib"),
        "{} MiB on the GPU": memory.get("gpu_mib"),
    }
    return ", ".join(text.format(format_value(value)) for text, value in values.items() if value is not None)
