"""The command that does a run again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import folder as folders
from runs.masking import MASK

# Where a run happens and who is told is its own: a trial's metrics file, or population, is not the new run's.
_OWN = re.compile(
    r"[+~]*(hydra\.(run|sweep|job|launcher|sweeper)|hydra/|trainer\.threads=|metrics_file=|push_metrics=|population_dir=)"
)
_SCRIPT = "train.py"


@dataclass(frozen=True)
class Again:
    """How to do a run again.

    Attributes:
        command: words of the command line, to be typed where train.py is.
        notes: what must be as it was for the same result, and what could not be recorded.
    """

    command: list[str]
    notes: list[str]


def rerun_command(folder: Path, record: Mapping[str, Any]) -> Again:
    """The command line of a run, into a folder of its own.

    On the same commit, data and kind of machine it gives the same metrics: `trainer.threads` is set to what it was.
    Overrides are Hydra's own list of them, so that one run of a sweep is itself and not the sweep.

    Args:
        folder: the run's.
        record: its run.json.
    """
    if record.get("status") == "evaluated":
        words = [str(each) for each in record["command"]] if isinstance(record.get("command"), list) else []
        return Again(["python", "-m", "trainers", *words[1:]], [])
    given = _overrides(folder, record)
    overrides = [each for each in given if not _OWN.match(each)]
    threads = record.get("threads")
    more = [f"trainer.threads={threads}"] if isinstance(threads, int) else []
    notes = []
    git = record.get("git") if isinstance(record.get("git"), dict) else {}
    if git and git.get("revision"):
        notes.append(f"code: git checkout {git['revision']}")
        if git.get("dirty"):
            where = folders.DIFF if (folder / folders.DIFF).exists() else f"git.diff in {folders.RECORD}"
            notes.append(
                f"with the changes in {where}" + ("; untracked files were not kept" if git.get("untracked") else "")
            )
    data = record.get("data") if isinstance(record.get("data"), dict) else {}
    prints = data.get("fingerprints") if data else None
    if isinstance(prints, dict):
        notes += [f"data: {split} with the fingerprint {mark}" for split, mark in prints.items()]
    if any(MASK in each for each in overrides):
        notes.append(f"secrets were not recorded: put them where {MASK} is")
    world = record.get("world_size")
    if isinstance(world, int) and world > 1:
        notes.append(f"it ran in {world} processes: put torchrun --nproc-per-node {world} in python's place")
    if any(each.startswith("population_dir=") for each in given) and isinstance(record.get("parent"), dict):
        notes.append(f"it began with the weights of its parent: {record['parent'].get('init_from')}")
    if record.get("directory"):
        notes.append(f"relative paths were seen from {record['directory']}")
    # Hydra has its own meaning for = , ( $ { in a value, and each sweep has a run called 0.
    name = re.sub(r"[^\w.-]", "_", folder.resolve().name)
    mark = str(record.get("config_hash") or "")[:6]
    return Again(["python", _SCRIPT, *overrides, *more, f"hydra.run.dir=outputs/{name}-{mark or 'again'}"], notes)


def _overrides(folder: Path, record: Mapping[str, Any]) -> list[str]:
    path = folder / folders.HYDRA / "overrides.yaml"
    if path.exists():
        import yaml

        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            found = None
        if isinstance(found, list):
            return [str(each) for each in found]
    command = record.get("command")
    words = [str(each) for each in command] if isinstance(command, list) else []
    place = next((at for at, word in enumerate(words) if word.endswith(_SCRIPT)), -1)
    return [word for word in words[place + 1 :] if "=" in word or word.startswith("~")]
