"""Text classification: one of several classes for each text, or pair of texts."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "transformers"  # loads model/ without isotrain
MODEL, DATA = "bert_classifier", "imdb"  # choices of conf that a saved model is opened with
EXAMPLE_KEYS = ("columns",)  # keys of conf/data that choose examples, beside those that every data set has
EXAMPLES = "texts"  # what examples are called
EXPERIMENT = "texts"  # what names of Experiments begin with
CLUSTER = "label"  # key of a prediction: examples that share its value are alike
CLUSTER_NAME = "class"  # what such a group is called
USE = "Tells which of its classes a text belongs to."
LIMITS = (
    "It names one of its classes, whatever the text is about. It was scored on texts of the kind of its evaluation data; "
    "of others nothing is known."
)
# What takes the settings of its section in conf/explain: their types and ranges are in its annotations.
EXPLAIN_SETTINGS = ("explain.text_values.Settings", "explain.tokens.ExtraSettings")
# Settings that belong to a saved model, by group of conf, and what they are where a model folder does not say.
SETTINGS: dict[str, dict[str, Any]] = {"model": {}, "data": {"max_length": 256, "columns": None}}

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "model_type" in config and any(
        str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or []
    )


def model_config(model: "SavedModel") -> dict[str, Any]:
    """conf/model of a saved model: where its weights are."""
    return {"pretrained": str(model.folder), "revision": None}


def data_config(model: "SavedModel") -> dict[str, Any]:
    """conf/data of a saved model: its own tokenizer."""
    return {"pretrained": None, "revision": None, "tokenizer": str(model.folder)}


def check_data(model: "SavedModel", data: Any) -> None:
    """Refuses data with other classes than the model's.

    Raises:
        InputError: it has.
    """
    from trainers.classes import check_same_classes

    check_same_classes(labels(model.config), [entry["id"] for entry in data.classes])


def labels(config: Mapping[str, Any]) -> list[str]:
    """The classes' names in the order of the model's outputs, from its config.json."""
    names = config.get("id2label") or {}
    return [str(names[key]) for key in sorted(names, key=int)]


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Each metric of one example, in the metric's unit; their means over the examples are the metrics."""
    return {"val_accuracy": 100.0 * bool(row["correct"]), **({"val_loss": float(row["loss"])} if "loss" in row else {})}


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is right."""
    return bool(row["correct"])


# Columns of the table of mistakes, with how each is set: "n" number, "t" text that may break, "w" unbroken, "i" identifier.
MISTAKE_COLUMNS = {"loss": "n", "confidence": "n", "text": "t", "true": "w", "predicted": "w", "id": "i"}
MISTAKE_ORDER = "the highest loss first"


def mistake_key(row: Mapping[str, Any]) -> Any:
    """What mistakes are sorted by, ascending."""
    return -float(row.get("loss", row.get("probability", 0.0)))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """The cells of one mistake, as MISTAKE_COLUMNS."""
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
    """The group that mistakes are filtered by."""
    return str(row["label"])


# -- what rooms are given ---------------------------------------------------------------------------------------------


def predict(model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Classifies texts; see `python -m trainers predict`."""
    from trainers import predict_texts

    return predict_texts.predict_texts(model, files, stdin, batch_size)


def explainer() -> ModuleType:
    """What its explanations are made of: a module of the room `explain`."""
    from explain import text_explainer

    return text_explainer


def facts() -> ModuleType:
    """What its data contract checks: a module of the room `quality`."""
    from quality import text_facts

    return text_facts


def look(name: str, data: Any, split: str, rows: Sequence[Mapping[str, Any]]) -> "ModelOutputs":
    """What a saved model makes of some rows of facts, for drift; see `python -m quality drift --model`.

    Args:
        name: a run's folder or a model folder.
        data: the data module that the rows are of.
        split: of the rows.
        rows: of the table of facts.
    """
    from quality.features import ModelOutputs
    from trainers import drift_features

    model = drift_features.open_task_model(name, "text_classification")
    return ModelOutputs(*drift_features.text_features(model, [(row["text"], row["text_pair"] or "") for row in rows]))
