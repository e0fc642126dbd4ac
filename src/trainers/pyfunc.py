"""A saved model as MLflow's models: a data frame in, the rows of `python -m trainers predict` as a data frame out."""

from collections.abc import Mapping
from typing import Any

from config import tasks
from config.errors import InputError
from trainers import hardware, predict, saved_model


class PyfuncModel:
    """A saved model that predicts data frames.

    Attributes:
        predictor: the task's.
    """

    def __init__(self, folder: str) -> None:
        """Load a model.

        Args:
            folder: of the model.

        Raises:
            InputError: it cannot be opened.
        """
        hardware.tune_cpu()
        model = saved_model.open_model(folder)
        self.predictor = tasks.load_member(model.task, "predictor", "mlflow.pyfunc")(model)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Predict.

        Args:
            model_input: data frame with the columns of the model's signature. Without a column id, the id of a row is its
                number, from 1.
            params: batch_size, inputs in a forward pass.

        Returns:
            Data frame with a row for each input.

        Raises:
            MlflowException: an input is wrong; a server answers 400.
        """
        import pandas
        from mlflow.exceptions import MlflowException

        batch_size = int((params or {}).get("batch_size", predict.BATCH_SIZE))
        try:
            if batch_size < 1:
                raise InputError(f"batch_size={batch_size}: must be 1 or more")
            rows = [self._row(number, fields) for number, fields in enumerate(model_input.to_dict("records"), 1)]
            chunks = predict.chunks(rows, batch_size * predict.CHUNK_BATCHES)
            predictions = [row for chunk in chunks for row in self.predictor.predict(chunk, batch_size)]
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pandas.DataFrame(predictions, dtype=object)  # else a start of None makes all others fractions

    def _row(self, number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        name = fields.get("id")
        row: dict[str, Any] = {"id": str(number) if _is_missing(name) else str(name)}
        for key, column in self.predictor.columns.items():
            value = fields.get(column)
            if _is_missing(value):
                if key in self.predictor.required:
                    raise InputError(f"row {number}: {column} is missing")
            else:
                row[key] = value
        return row


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, which pandas has for a missing text
