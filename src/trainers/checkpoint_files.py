"""Files of checkpoints: written atomically and synced, and read without executing anything in them."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from config import files
from config.errors import InputError, ResourceError, input_errors
from config.system_errors import to_expected_error
from runs import folder as folders
from trainers.weights import check_zip, describe_read_error, is_archive

logger = logging.getLogger(__name__)

# What Lightning writes, and `Checkpoints` adds.
_KEYS: dict[str, type] = {
    **dict.fromkeys(("state_dict", "loops", "callbacks", "position"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **{"epoch": int, "global_step": int, "should_stop": bool},
}


class CheckpointFiles(CheckpointIO):
    """Lightning's plugin for checkpoint files: written atomically and synced, read without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: composed by Lightning.
            path: the file.
            storage_options: `keep`, a path to which an existing file is moved; `beside_weights`, entries of a file that
                holds these and the weights only; `on_written`, a function that gets the SHA-256 of the file.
        """
        options = storage_options or {}
        if "beside_weights" in options:
            checkpoint = {"state_dict": checkpoint["state_dict"], **options["beside_weights"]}
        digest = write(checkpoint, Path(path), keep=options.get("keep"))
        if "on_written" in options:
            options["on_written"](digest)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, tensors and plain values only, whatever the arguments."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class _HashingFile:
    """A file that is written, and the SHA-256 of what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def write(self, content: Any) -> int:
        self.hash.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def write(checkpoint: dict[str, Any], path: Path, keep: Path | None = None) -> str:
    """Write a checkpoint atomically: a reader, or a crash, sees the old file or the new one.

    Args:
        checkpoint: tensors and plain values only.
        path: the file.
        keep: a path to which an existing file is moved.

    Returns:
        The SHA-256 of the file, in hexadecimal digits.

    Raises:
        ResourceError: the disk is full. The old checkpoint is unchanged.
    """
    try:
        with files.atomic_write(path) as file:
            hashing = _HashingFile(file)
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())  # before the old file is moved
            if keep is not None and path.exists():
                path.replace(keep)
        return hashing.hash.hexdigest()
    except (OSError, RuntimeError) as error:
        expected = to_expected_error(error)
        if isinstance(expected, ResourceError):
            previous = "; the previous checkpoint is unchanged" if path.exists() else ""
            raise ResourceError(f"{path}: {expected}{previous}") from error
        raise


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain values only: nothing in it is executed.

    Raises:
        InputError: not a checkpoint, or an incomplete or damaged one.
    """
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}")
    if not is_archive(path):
        raise InputError(f"{path} is not a complete checkpoint")
    check_zip(path)
    with input_errors(lambda error: f"{path} cannot be read as a checkpoint: {describe_read_error(error)}"):
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def read_latest(
    folder: Path, check: Callable[[Path, dict[str, Any]], None] | None = None
) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest checkpoint that is readable.

    Args:
        folder: the folder of the checkpoints.
        check: raises InputError for a checkpoint that cannot be used.

    Returns:
        Its path and content; None if there is no checkpoint.

    Raises:
        InputError: there are checkpoints, and none is readable.
    """
    problems = []
    for path in (folder / folders.LAST_CHECKPOINT, folder / folders.PREVIOUS_CHECKPOINT):
        if path.exists():
            try:
                checkpoint = read(path)
                if check is not None:
                    check(path, checkpoint)
                return path, checkpoint
            except InputError as error:
                problems.append(str(error))
                logger.warning("%s; trying the previous one", error)
    if problems:
        raise InputError("; ".join(problems) + ": start in another folder, or delete this one")
    return None


def check_content(path: Path, checkpoint: Any) -> None:
    """Check that a checkpoint has all that resuming reads before Lightning does.

    Raises:
        InputError: it has not.
    """
    content = checkpoint if isinstance(checkpoint, dict) else {}
    if missing := [key for key in _KEYS if key not in content]:
        raise InputError(f"{path} is not a checkpoint of a training: it lacks {', '.join(missing)}")
    if names := [key for key, kind in _KEYS.items() if not isinstance(content[key], kind)]:
        raise InputError(f"{path} is damaged: {', '.join(names)} are of another type")
    for name, state in content["callbacks"].items():
        if str(name).startswith("Checkpoints") and not (
            isinstance(state, dict) and isinstance(state.get("best"), dict) and isinstance(state.get("lines"), int)
        ):
            raise InputError(f"{path} is damaged: its state of {name} lacks the best validation or the number of lines")
