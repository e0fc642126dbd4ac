"""Image classification: one of several classes for each image."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "timm"  # loads model/ without isotrain
MODEL, DATA = "resnet18", "tiny_imagenet"  # choices of conf with which a saved model is opened
NETWORK = "trainers.networks.ImageNetwork"  # trains a model that is a plain torch.nn.Module
EXAMPLES = "images"  # name of examples, plural
EXPERIMENT = "images"  # prefix of Experiments' names
CLUSTER = "label"  # key of a prediction whose equal values mark similar examples
CLUSTER_NAME = "class"  # name of such a group
USE = "Classifies an image into one of its classes."
LIMITS = (
    "It returns one of its classes for any image. It was evaluated on images like those of its evaluation data; its "
    "performance on others is unknown."
)
# Classes of the settings in its section of conf/explain; their annotations have the types and ranges.
EXPLAIN_SETTINGS = ("explain.image_views.Settings", "explain.image_views.ExtraSettings")
# Settings of a saved model, by group of conf, with defaults for model folders without them.
SETTINGS: dict[str, dict[str, Any]] = {"model": {}, "data": {}}  # all of them are in timm's config.json

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "architecture" in config and int(config.get("num_classes") or 0) > 1


def model_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/model of a saved model: its architecture, and the source of its weights."""
    from trainers.image_preprocessing import read_arguments
    from trainers.stem import has_small_stem

    arguments = read_arguments(model.config)
    return {
        "name": model.config["architecture"],
        "pretrained": str(model.folder),
        "stem": "small" if has_small_stem(model.config) else "standard",
        "arguments": {name: value for name, value in arguments.items() if name != "num_classes"},
        "dropout": 0.0,
        "drop_path": 0.0,
    }


def data_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/data of a saved model: its preprocessing."""
    from trainers.image_preprocessing import read_preprocessing

    return read_preprocessing(model.config)


def check_data(model: "SavedModel", data: Any) -> None:
    """Check that the data has the model's classes.

    Raises:
        InputError: it has others.
    """
    from trainers.classification import check_same_classes

    labels = model.config.get("label_names") or (model.config.get("pretrained_cfg") or {}).get("label_names")
    check_same_classes(labels, [entry["id"] for entry in data.classes])


def keep_mistakes(module: Any, folder: Any) -> None:
    """Save pictures of a run's mistakes for its report."""
    from trainers import mistake_pictures

    mistake_pictures.save_pictures(module, folder)


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one example, in the metric's unit; their means over the examples are the metrics."""
    return {
        "val_accuracy": 100.0 * bool(row["correct"]),
        "val_top5_accuracy": 100.0 * (row["label"] in row["top5"]),
        **({"val_loss": float(row["loss"])} if "loss" in row else {}),
    }


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is correct."""
    return bool(row["correct"])


# Columns of the table of mistakes: "n" number, "i" identifier, "picture" the example's picture.
MISTAKE_COLUMNS = {"loss": "n", "confidence": "n", "": "picture", "true": "i", "predicted": "i", "image": "i"}
MISTAKE_ORDER = "the highest loss first"


def mistake_key(row: Mapping[str, Any]) -> Any:
    """Return the sort key of a mistake, ascending."""
    return -float(row.get("loss", row.get("probability", 0.0)))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one mistake, as MISTAKE_COLUMNS; the cell of a picture is its id."""
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
    """Return the group by which mistakes are filtered."""
    return str(row["label"])


# Columns of predictions; a value of each has the type of all.
OUTPUTS: dict[str, Any] = {"id": "", "prediction": "", "probability": 0.0, "top5": [""], "probabilities": [0.0]}

# -- parts in other packages ------------------------------------------------------------------------------------------


def predict(model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Label images; see `python -m trainers predict`."""
    from trainers.predict_images import predict_images

    return predict_images(model, files, stdin, batch_size)


def predictor(model: "SavedModel") -> Any:
    """Return a saved model with its weights, which predicts rows: see `python -m trainers predict` and `trainers.pyfunc`."""
    from trainers.predict_images import ImagePredictor

    return ImagePredictor(model)


def input_example(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an input of `predictor`: a value by column.

    Args:
        settings: of a saved model, by group of conf.
    """
    from io import BytesIO

    from PIL import Image

    content = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(content, "PNG")
    return {"image": content.getvalue()}


def validation_inputs(data: Any, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the validation images, in order, as inputs of `predictor`: id, and the file's content as `image`.

    Args:
        data: the data module, set up for validation.
        settings: of a saved model, by group of conf.
    """
    from datamodules.sources.files import read_bytes

    images = data.survey.valid_split("val")
    for name, image in zip(images.names, images.images(), strict=True):
        yield {"id": name, "image": read_bytes(image) if isinstance(image, str) else image}


def explainer() -> ModuleType:
    """Return the module of its explanations."""
    from explain import image_explainer

    return image_explainer


def facts() -> ModuleType:
    """Return the module of its table of facts, which data contracts check."""
    from quality import image_facts

    return image_facts


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

    model = drift_features.open_task_model(name, "image_classification")
    numbers = {row["number"] for row in rows}
    images = {number: image for number, image in enumerate(data.survey.splits[split].images()) if number in numbers}
    return ModelOutputs(*drift_features.image_features(model, [images[row["number"]] for row in rows]))
