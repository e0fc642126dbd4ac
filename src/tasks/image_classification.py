"""Image classification: one of several classes for each image."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "timm"  # loads model/ without isotrain
MODEL, DATA = "resnet18", "tiny_imagenet"  # choices of conf that a saved model is opened with
EXAMPLES = "images"  # what examples are called
EXPERIMENT = "images"  # what names of Experiments begin with
CLUSTER = "label"  # key of a prediction: examples that share its value are alike
CLUSTER_NAME = "class"  # what such examples share, in words
USE = "Tells which of its classes an image shows."
LIMITS = (
    "It names one of its classes, whatever the image shows. It was scored on images of the kind of its evaluation data; "
    "of others nothing is known."
)
# What takes the settings of its section in conf/explain: their types and ranges are in its annotations.
EXPLAIN_SETTINGS = ("explain.image_views.Settings", "explain.image_views.ExtraSettings")
# Settings that belong to a saved model, by group of conf, and what they are where a model folder does not say.
SETTINGS: dict[str, dict[str, Any]] = {"model": {}, "data": {}}  # all of them are in timm's config.json

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "architecture" in config and int(config.get("num_classes") or 0) > 1


def model_config(model: "SavedModel") -> dict[str, Any]:
    """conf/model of a saved model: its architecture, and where its weights are."""
    from trainers.stem import has_small_stem

    return {
        "name": model.config["architecture"],
        "pretrained": str(model.folder),
        "stem": "small" if has_small_stem(model.config) else "standard",
        "arguments": dict(model.config.get("model_args") or {}),
        "dropout": 0.0,
        "drop_path": 0.0,
    }


def data_config(model: "SavedModel") -> dict[str, Any]:
    """conf/data of a saved model: its image size, and what pixels are normalised by."""
    from trainers.stem import has_small_stem

    about = model.config.get("pretrained_cfg") or {}
    size = int((about.get("input_size") or (3, 224, 224))[-1])
    found = {"image_size": size // 2 if has_small_stem(model.config) else size}
    return found | {name: list(about[name]) for name in ("mean", "std") if about.get(name)}


def check_data(model: "SavedModel", data: Any) -> None:
    """Refuses data with other classes than the model's.

    Raises:
        InputError: it has.
    """
    from trainers.classes import check_same_classes

    labels = model.config.get("label_names") or (model.config.get("pretrained_cfg") or {}).get("label_names")
    check_same_classes(labels, [entry["id"] for entry in data.classes])


def keep_mistakes(module: Any, folder: Any) -> None:
    """Keeps pictures of a run's mistakes for its report."""
    from trainers import mistake_pictures

    mistake_pictures.save_pictures(module, folder)


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Each metric of one example, in the metric's unit; their means over the examples are the metrics."""
    return {
        "val_accuracy": 100.0 * bool(row["correct"]),
        "val_top5_accuracy": 100.0 * (row["label"] in row["top5"]),
        **({"val_loss": float(row["loss"])} if "loss" in row else {}),
    }


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is right."""
    return bool(row["correct"])


# Columns of the table of mistakes, with how each is aligned: "n" number, "t" text that may break, "i" identifier,
# "picture" the example's picture, "" other.
MISTAKE_COLUMNS = {"loss": "n", "sure": "n", "": "picture", "true": "i", "it says": "i", "image": "i"}
MISTAKE_ORDER = "the highest loss first"


def mistake_key(row: Mapping[str, Any]) -> Any:
    """What mistakes are sorted by, ascending."""
    return -float(row.get("loss", row.get("probability", 0.0)))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """The cells of one mistake, as MISTAKE_COLUMNS; of a picture its id."""
    probability = row.get("probability")
    return [
        f"{row['loss']:.2f}" if "loss" in row else "",
        "" if probability is None else f"{probability:.0%}",
        row["id"],
        row["label"],
        row["prediction"],
        row["id"],
    ]


def mistake_group(row: Mapping[str, Any]) -> str:
    """The group that mistakes are filtered by."""
    return str(row["label"])


# -- what rooms are given ---------------------------------------------------------------------------------------------


def predict(model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Labels images; see `python -m trainers predict`."""
    from trainers import predict_images

    return predict_images.predict_images(model, files, stdin, batch_size)


def explainer() -> ModuleType:
    """What its explanations are made of: a module of the room `explain`."""
    from explain import image_explainer

    return image_explainer


def facts() -> ModuleType:
    """What its data contract checks: a module of the room `quality`."""
    from quality import image_facts

    return image_facts


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

    model = drift_features.open_task_model(name, "image_classification")
    numbers = {row["number"] for row in rows}
    images = {number: image for number, image in enumerate(data.survey.splits[split].images()) if number in numbers}
    return ModelOutputs(*drift_features.image_features(model, [images[row["number"]] for row in rows]))
