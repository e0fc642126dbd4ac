"""What needs no torch, in this process: compose, load, runs, compare and register."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.error_handling import explain_input_error
from config.errors import InputError
from isotrain.run import Run, data_frame

Folder = str | os.PathLike[str] | Run


def folder_name(run: Folder) -> str:
    """Return the folder of a run, or a folder, as text."""
    return os.fspath(run.folder if isinstance(run, Run) else run)


def compose(*overrides: str) -> dict[str, Any]:
    """Compose and check the configuration, as `python train.py OVERRIDES` does before it starts.

    Args:
        *overrides: Hydra overrides: "model=bert", "optim.lr=3e-5".

    Returns:
        The resolved configuration.

    Raises:
        InputError: It does not compose, or a value is refused.
    """
    from omegaconf import OmegaConf, open_dict

    from config import compose as composition
    from config import search_path
    from config.check import check_config

    try:
        with search_path.adopted(overrides):
            config = composition.compose(overrides)
            check_config(config)
        with open_dict(config):
            config.logger = None  # it refers to values that only a run has
        resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except Exception as error:
        explained = explain_input_error(error)
        if explained is error:
            raise
        raise explained from None
    return resolved


def load(folder: Folder) -> Run:
    """Return a run from its folder.

    Raises:
        InputError: It is no run folder, or its record is damaged.
    """
    from runs.folder import read_record

    path = Path(folder_name(folder))
    return Run(path, read_record(path))


def runs(*folders: Folder, conditions: Sequence[str] = (), sort: str | None = None, limit: int | None = None) -> Any:
    """Return the table of `python -m runs list` as a pandas data frame, newest first.

    Args:
        *folders: Run folders, or folders that contain some; by default outputs and multirun.
        conditions: All must hold: "model=bert", "val_f1>80".
        sort: A field or metric, descending; "-NAME" ascending.
        limit: Maximum number of runs.

    Returns:
        A row for each run: folder, status, task, model, data, …, and a column for each metric.

    Raises:
        InputError: There is no such folder, or a condition is invalid.
    """
    from runs.listing import filter_runs, find_runs

    names = [folder_name(folder) for folder in folders] or [
        name for name in ("outputs", "multirun") if Path(name).is_dir()
    ]
    if missing := [name for name in names if not Path(name).exists()]:
        raise InputError(f"there is no folder {missing[0]}")
    rows = filter_runs(find_runs(names), list(conditions), sort, limit)
    return data_frame([{**{key: row[key] for key in row if key != "metrics"}, **row["metrics"]} for row in rows])


def compare(*sides: Folder, metric: Sequence[str] = (), margin: float | None = None, seed: int = 0) -> Any:
    """Compare runs on the same evaluation examples, as `python -m runs compare`.

    Args:
        *sides: Runs, or folders of runs that differ in their seeds; each is compared with the first.
        metric: Metrics to compare; all by default.
        margin: Non-inferiority margin in the unit of the metric.
        seed: Seed of the resampling.

    Returns:
        A pandas data frame with a row for each side and metric: the means a and b, the difference with its 95 % interval (low,
        high), p, the verdict and non_inferior. `.attrs` has examples, clustered_by and notes.

    Raises:
        InputError: The runs cannot be compared, for example because their data differs.
    """
    from runs.compare import compare_runs

    comparison = compare_runs([folder_name(side) for side in sides], list(metric), margin, seed)
    rows = []
    for result in comparison.results:
        difference = result.difference
        row = {"side": result.side, "metric": result.metric, "a": difference.a, "b": difference.b}
        row |= {"difference": difference.value, "low": difference.low, "high": difference.high, "p": result.adjusted}
        rows.append(row | {"verdict": result.verdict, "non_inferior": result.non_inferior})
    frame = data_frame(rows)
    frame.attrs |= {"examples": comparison.examples, "clustered_by": comparison.clustered_by, "notes": comparison.notes}
    return frame


def register(
    run: Folder,
    name: str | None = None,
    *,
    server: str | None = None,
    champion: bool = False,
    floor: float | None = None,
    justification: str | None = None,
    use: str | None = None,
    licence: str | None = None,
    despite_gates: bool = False,
) -> dict[str, Any]:
    """Register the model of a run in MLflow, as `python -m runs register`, whose options these are.

    Returns:
        name, version, aliases, new (whether this call created the version), and reason (why it was not promoted).

    Raises:
        InputError: The run cannot be registered.
        UnreachableError: The server does not answer.
    """
    from runs.registry import register_run

    version = register_run(
        Path(folder_name(run)),
        name,
        server,
        champion,
        use,
        licence,
        despite_gates,
        floor=floor,
        justification=justification,
    )
    return asdict(version)
