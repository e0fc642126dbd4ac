"""The model that is served, with its weights, after it has answered an example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from config import tasks
from runs.lineage import folder_digest


@dataclass(frozen=True)
class ServedModel:
    """A model with its weights.

    Attributes:
        name: its name in addresses.
        version: number in the registry; of a folder, the first digits of the SHA-256 of its files.
        task: name of its task.
        columns: a value of each input, by column.
        required: columns that may not be missing.
        outputs: a value of each output.
        predict: returns a prediction for each row, which has a value for each column and an id.
        parallel: number of threads on which `predict` may be called at a time.
        is_alive: whether `predict` has a process that answers.
    """

    name: str
    version: str
    task: str
    columns: Mapping[str, Any]
    required: frozenset[str]
    outputs: Mapping[str, Any]
    predict: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
    parallel: int = 1
    is_alive: Callable[[], bool] = lambda: True

    def length(self, row: Mapping[str, Any]) -> int:
        """Return the length of a row's texts; images have none, as all are resized."""
        return sum(len(value) for value in row.values() if isinstance(value, str))


def load_model(folder: str, name: str | None, version: str | None, *, batch_size: int) -> ServedModel:
    """Load a model and let it answer an example.

    Args:
        folder: a run folder or a model folder.
        name: its name in addresses; None for the folder's.
        version: its version; None for the digest of its files.
        batch_size: inputs in a forward pass.

    Raises:
        InputError: the model cannot be loaded, its task cannot be served, or it does not answer.
    """
    from trainers import hardware, saved_model

    with saved_model.model_errors(folder):
        model = saved_model.open_model(folder)
        for member in ("predictor", "input_example", "OUTPUTS"):
            tasks.load_member(model.task, member, "python -m serving")
        hardware.tune_cpu()
        module = model.module
        predictor, columns = module.predictor(model), module.input_example(model.settings)
        required = frozenset(predictor.columns[key] for key in predictor.required)
        answer = _predict(predictor, batch_size, [{"id": "1", **columns}])
        return ServedModel(
            name or Path(folder).resolve().name,
            version or folder_digest(model.folder)[:12],
            model.task, columns, required, {key: value for key, value in module.OUTPUTS.items() if key in answer[0]},
            partial(_predict, predictor, batch_size),
        )  # fmt: skip


def keyed_row(predictor: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `predictor.predict` from a row with a value by column, and an id."""
    return {"id": str(row["id"]), **{key: row[name] for key, name in predictor.columns.items() if name in row}}


def _predict(predictor: Any, batch_size: int, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    import torch

    torch.set_flush_denormal(True)  # as in training; each thread has its own setting
    predictions: list[dict[str, Any]] = predictor.predict([keyed_row(predictor, row) for row in rows], batch_size)
    return predictions
