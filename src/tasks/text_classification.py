"""Text classification: one of several classes for each text, or pair of texts."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "transformers"  # loads model/ without isotrain
MODEL, DATA = "bert_classifier", "imdb"  # choices of conf with which a saved model is opened
NETWORK = "trainers.networks.TextNetwork"  # trains a model that is a plain torch.nn.Module
EXAMPLE_KEYS = ("columns",)  # keys of conf/data that select examples, besides those of every data set
EXAMPLES = "texts"  # name of examples, plural
EXPERIMENT = "texts"  # prefix of Experiments' names
CLUSTER = "label"  # key of a prediction whose equal values mark similar examples
CLUSTER_NAME = "class"  # name of such a group
USE = "Classifies a text into one of its classes."
LIMITS = (
    "It returns one of its classes for any text. It was evaluated on texts like those of its evaluation data; its "
    "performance on others is unknown."
)
# Classes of the settings in its section of conf/explain; their annotations have the types and ranges.
EXPLAIN_SETTINGS = ("explain.text_values.Settings", "explain.tokens.ExtraSettings")
# Settings of a saved model, by group of conf, with defaults for model folders without them.
SETTINGS: dict[str, dict[str, Any]] = {"model": {}, "data": {"max_length": 256, "columns": None}}

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "model_type" in config and any(
        str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or []
    )


def model_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/model of a saved model: the source of its weights."""
    return {"pretrained": str(model.folder), "revision": None}


def data_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/data of a saved model: its own tokenizer."""
    return {"pretrained": None, "revision": None, "tokenizer": str(model.folder)}


def check_data(model: "SavedModel", data: Any) -> None:
    """Check that the data has the model's classes.

    Raises:
        InputError: it has others.
    """
    from trainers.classification import check_same_classes

    check_same_classes(labels(model.config), [entry["id"] for entry in data.classes])


def labels(config: Mapping[str, Any]) -> list[str]:
    """Return the classes' names in the order of the model's outputs, from its config.json."""
    names = config.get("id2label") or {}
    return [str(names[key]) for key in sorted(names, key=int)]


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one example, in the metric's unit; their means over the examples are the metrics."""
    return {"val_accuracy": 100.0 * bool(row["correct"]), **({"val_loss": float(row["loss"])} if "loss" in row else {})}


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is correct."""
    return bool(row["correct"])


# Columns of the table of mistakes: "n" number, "t" text that may break, "w" unbroken text, "i" identifier.
MISTAKE_COLUMNS = {"loss": "n", "confidence": "n", "text": "t", "true": "w", "predicted": "w", "id": "i"}
MISTAKE_ORDER = "the highest loss first"


def mistake_key(row: Mapping[str, Any]) -> Any:
    """Return the sort key of a mistake, ascending."""
    return -float(row.get("loss", row.get("probability", 0.0)))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one mistake, as MISTAKE_COLUMNS."""
    probability = row.get("probability")
    return [
        f"{row['loss']:.2f}" if "loss" in row else "",
        "" if probability is None else f"{probability:.0%}",
        row.get("text", ""),
        row["label"],
        row["prediction"],
        row["id"],
    ]


def mistake_group(row: Mapping[str, Any]) -> str:
    """Return the group by which mistakes are filtered."""
    return str(row["label"])


# Columns of predictions; a value of each has the type of all.
OUTPUTS: dict[str, Any] = {"id": "", "prediction": "", "probability": 0.0, "top": [""]}

# -- parts in other packages ------------------------------------------------------------------------------------------


def predict(model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Label texts; see `python -m trainers predict`."""
    from trainers.predict_texts import predict_texts

    return predict_texts(model, files, stdin, batch_size)


def predictor(model: "SavedModel") -> Any:
    """Return a saved model with its weights, which predicts rows: see `python -m trainers predict` and `trainers.pyfunc`."""
    from trainers.predict_texts import TextPredictor

    return TextPredictor(model)


def input_example(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an input of `predictor`: a value by column.

    Args:
        settings: of a saved model, by group of conf.
    """
    from datamodules.text import columns
    from datamodules.text.records import Columns

    names = columns.parse(Columns, settings["data"]["columns"])
    second = {names.text_pair: "It was opened in 1911."} if names.text_pair else {}
    return {names.text: "When was the station opened?", **second}


def validation_inputs(data: Any, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the validation texts, in order, as inputs of `predictor`: id, and a value by column.

    Args:
        data: the data module, set up for validation.
        settings: of a saved model, by group of conf.
    """
    texts = data.texts("val")
    text, *pair = input_example(settings)
    for index in range(len(texts)):
        yield {"id": texts.id(index), text: texts.text(index), **{name: texts.pair(index) for name in pair}}


def explainer() -> ModuleType:
    """Return the module of its explanations."""
    from explain import text_explainer

    return text_explainer


def facts() -> ModuleType:
    """Return the module of its table of facts, which data contracts check."""
    from quality import text_facts

    return text_facts


def model_outputs(name: str, data: Any, split: str, rows: Sequence[Mapping[str, Any]]) -> "ModelOutputs":
    """Return a saved model's outputs for rows of facts; see `python -m quality drift --model`.

    Args:
        name: a run folder or a model folder.
        data: the data module of the rows, not prepared.
        split: the split of the rows.
        rows: rows of the table of facts.
    """
    from quality.features import ModelOutputs
    from trainers import drift_features

    model = drift_features.open_task_model(name, "text_classification")
    return ModelOutputs(*drift_features.text_features(model, [(row["text"], row["text_pair"] or "") for row in rows]))
