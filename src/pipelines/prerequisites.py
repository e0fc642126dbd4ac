"""What the later steps of a run need, checked by its first step: files on the volume, and addresses.

A run that lacks one of them would otherwise fail after hours of training.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.compose import compose
from config.errors import ExecutionError, InputError
from pipelines.commands import experiment_path, run_command
from pipelines.record import run_folder


def check_prerequisites(
    step: dict[str, Any],
    overrides: Sequence[str],
    root: str,
    parameters: Mapping[str, str],
    read_champion: Callable[[str], object],
) -> None:
    """Check what the steps after `data` need.

    Args:
        step: The record of the step.
        overrides: Overrides of train.py.
        root: Folder of runs and records.
        parameters: Parameters of later steps, by their names in the pipeline.
        read_champion: Reads the champion from the server of an address, "" for the default one.

    Raises:
        InputError: A file is missing.
        ExecutionError: A server does not answer (7), or refuses the request (2).
    """
    baseline = parameters["baseline"]
    if baseline not in ("", "champion") and not (Path(baseline) / "run.json").is_file():
        raise InputError(f"baseline={baseline}: there is no run in this folder (no run.json)")
    config = compose(overrides)
    weights = str(config.get("init_from") or "")
    if weights.startswith("/") and not Path(weights).exists():
        raise InputError(f"init_from={weights}: there is no such file or folder on the volume of the steps")
    # The file beside the runs needs no server.
    default = parameters["server"] or os.environ.get("MLFLOW_TRACKING_URI", "")
    tracker = str((config.get("logger") or {}).get("tracking_uri") or "")
    for address in dict.fromkeys((default, tracker)):
        if address and not address.startswith("sqlite:"):
            with _requirement("the registry of models" if address == default else "logger"):
                read_champion(address)
    if parameters["tune"]:
        _check_search(step, overrides, root, parameters)


def _check_search(step: dict[str, Any], overrides: Sequence[str], root: str, parameters: Mapping[str, str]) -> None:
    """Check the Experiment of the tune step; Katib on the cluster checks it, too."""
    file = parameters["tune"]
    path = experiment_path(file)
    if not path.is_file():
        raise InputError(f"tune={file}: there is no such file in the image or on the volume of the steps")
    words = ["check", str(path)]
    if parameters["tune_backend"] == "katib":
        name = f"tune-{run_folder(root).name[:8].lower().strip('-')}-check"
        words = ["submit", str(path), *overrides, "--name", name, "--image", parameters["image"], "--dry-run"]
    with _requirement(f"tune={file}"):
        run_command(step, "-m", "katib", *words)


@contextmanager
def _requirement(subject: str) -> Iterator[None]:
    """Say in the message of a command that fails what a later step needs."""
    try:
        yield
    except ExecutionError as error:
        raise ExecutionError(f"{subject}, which a later step needs: {error}", error.exit_code) from None
