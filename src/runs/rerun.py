"""The command that repeats a run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.masking import MASK
from config.parsing import parse_yaml, read_bytes
from runs import folder as folders
from runs.fields import as_mapping

# Overrides of the old run only: its folder, launcher and trial.
_RUN_SPECIFIC = re.compile(
    r"[+~]*(hydra\.(run|sweep|job|launcher|sweeper)|hydra/|trainer\.threads=|metrics_file=|push_metrics=|population_dir=)"
)
_SCRIPT = "train.py"


@dataclass(frozen=True)
class Rerun:
    """How to repeat a run.

    Attributes:
        command: Words of the command line, for the folder of train.py.
        notes: Conditions for the same result, and what was not recorded.
    """

    command: list[str]
    notes: list[str]


def rerun_command(folder: Path, record: Mapping[str, Any]) -> Rerun:
    """Return the command that repeats a run in a new folder.

    With the same commit, data and kind of machine the metrics are the same: `trainer.threads` is set to the recorded value. For
    a run of a sweep this is the one run, because Hydra records its own list of overrides.

    Args:
        folder: The run folder.
        record: Its record.
    """
    command = [str(word) for word in record["command"]] if isinstance(record.get("command"), list) else []
    if record.get("status") == "evaluated":
        return Rerun(["python", "-m", "trainers", *command[1:]], [])
    recorded = _recorded_overrides(folder, command)
    overrides = [override for override in recorded if not _RUN_SPECIFIC.match(override)]
    if isinstance(record.get("threads"), int):
        overrides.append(f"trainer.threads={record['threads']}")
    # Hydra gives a meaning to = , ( $ { in a value, and each sweep has a run named 0.
    name = re.sub(r"[^\w.-]", "_", folder.resolve().name)
    suffix = str(record.get("config_hash") or "")[:6] or "again"
    words = ["python", _SCRIPT, *overrides, f"hydra.run.dir=outputs/{name}-{suffix}"]
    return Rerun(words, _notes(folder, record, recorded, overrides))


def _notes(folder: Path, record: Mapping[str, Any], recorded: list[str], overrides: list[str]) -> list[str]:
    notes = []
    git = as_mapping(record.get("git"))
    if git.get("revision"):
        notes.append(f"code: git checkout {git['revision']}")
        if git.get("dirty"):
            file = folders.DIFF if (folder / folders.DIFF).exists() else f"git.diff in {folders.RECORD}"
            untracked = "; untracked files were not recorded" if git.get("untracked") else ""
            notes.append(f"code: with the changes in {file}{untracked}")
    fingerprints = as_mapping(as_mapping(record.get("data")).get("fingerprints"))
    notes += [f"data: {split} with the fingerprint {fingerprint}" for split, fingerprint in fingerprints.items()]
    if any(MASK in override for override in overrides):
        notes.append(f"secrets were not recorded: replace {MASK}")
    if active := [override for override in overrides if "_target_" in override or "${" in override]:
        notes.append(f"overrides that choose a class or read the environment, to check first: {' '.join(active)}")
    world_size = record.get("world_size")
    if isinstance(world_size, int) and world_size > 1:
        notes.append(f"it ran in {world_size} processes: replace python by torchrun --nproc-per-node {world_size}")
    if any(override.startswith("population_dir=") for override in recorded) and isinstance(record.get("parent"), dict):
        notes.append(f"it started with the weights of its parent: {record['parent'].get('init_from')}")
    if record.get("directory"):
        notes.append(f"relative paths were relative to {record['directory']}")
    return notes


def _recorded_overrides(folder: Path, command: list[str]) -> list[str]:
    """Hydra's own list of overrides; without it, those of the command line."""
    path = folder / folders.HYDRA / "overrides.yaml"
    if path.exists():
        try:
            overrides, *_ = parse_yaml(read_bytes(path))
        except (OSError, ValueError):
            overrides = None
        if isinstance(overrides, list):
            return [str(override) for override in overrides]
    script = next((index for index, word in enumerate(command) if word.endswith(_SCRIPT)), -1)
    return [word for word in command[script + 1 :] if "=" in word or word.startswith("~")]
