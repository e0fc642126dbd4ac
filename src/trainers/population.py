"""The folder in which population-based training hands weights from one generation of trials to the next.

Katib copies a trial's folder to the trial that takes its place. What this keeps in it is one checkpoint.
"""

from pathlib import Path

from config import files, process
from runs import folder as folders

NAME = "weights.ckpt"


def weights(population_dir: str | None) -> str | None:
    """The checkpoint of the generation before; None in the first one, or without a population."""
    path = Path(population_dir or "") / NAME
    return str(path) if population_dir and path.is_file() else None


def leave(population_dir: str | None, folder: Path) -> None:
    """Leaves a run's best weights for the next generation, all of them or nothing; on rank zero."""
    best = folder / folders.CHECKPOINTS / folders.BEST_CHECKPOINT
    if process.rank() or not population_dir or not best.is_file():
        return
    files.copy_file(best, Path(population_dir) / NAME)
