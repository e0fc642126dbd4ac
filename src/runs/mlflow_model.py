"""The files that let `mlflow.pyfunc.load_model` load a model folder: MLmodel with a signature, an input example, requirements."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from config import files
from runs import digests
from runs.fields import as_mapping

FILE = "MLmodel"
MEMBERS = ("predictor", "input_example", "OUTPUTS")  # of a task's module
_LOADER = "isotrain.pyfunc"
_PACKAGES = ("torch", "torchvision", "transformers", "tokenizers", "timm", "safetensors")


@contextlib.contextmanager
def model_files(model: Path, task: ModuleType, versions: Mapping[str, Any]) -> Iterator[Path]:
    """Write the files for the folder of a model, into a temporary folder.

    Nothing is pickled: MLmodel names `isotrain.pyfunc`, which loads the model's own files.

    Args:
        model: The model folder.
        task: Module of its task, with `MEMBERS`.
        versions: Versions of packages when it was trained.

    Yields:
        The temporary folder.
    """
    import pandas
    from mlflow import pyfunc
    from mlflow.models import ModelSignature

    stored = as_mapping(files.read_json(model / digests.SETTINGS))
    settings = {
        group: {**keys, **as_mapping(stored.get(group))} for group, keys in getattr(task, "SETTINGS", {}).items()
    }
    example = task.input_example(settings)
    signature = ModelSignature(*_schemas(example, task.OUTPUTS))
    requirements = [f"{name}=={versions[name]}" for name in _PACKAGES if versions.get(name)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        pyfunc.save_model(
            folder,
            loader_module=_LOADER,
            signature=signature,
            input_example=pandas.DataFrame([{"id": "1", **example}]),
            pip_requirements=requirements,
        )
        yield folder


def _schemas(example: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    inputs = [ColSpec(DataType.string, "id", required=False)]
    inputs += [ColSpec(_type(value), name) for name, value in example.items()]
    columns = [ColSpec(_type(value), name, required=name in ("id", "prediction")) for name, value in outputs.items()]
    return Schema(inputs), Schema(columns), ParamSchema([ParamSpec("batch_size", DataType.long, 32)])


def _type(value: Any) -> Any:
    from mlflow.types.schema import Array, DataType

    if isinstance(value, list):
        return Array(_type(value[0]))
    return {str: DataType.string, bytes: DataType.binary, int: DataType.long, float: DataType.double}[type(value)]
