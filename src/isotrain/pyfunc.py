"""Loads a registered model for MLflow, which finds this module's name in the model's MLmodel file."""

from typing import TYPE_CHECKING

from isotrain import import_path as import_path  # a folder trainers/ in the working directory must not hide ours

if TYPE_CHECKING:
    from trainers.pyfunc import PyfuncModel


def _load_pyfunc(path: str) -> "PyfuncModel":
    """Return the model in a folder; MLflow calls it by this name.

    Raises:
        InputError: The model cannot be opened.
    """
    from trainers.pyfunc import PyfuncModel

    return PyfuncModel(path)
