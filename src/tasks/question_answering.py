"""Question answering: an answer is a span of a text that is given with the question."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "transformers"  # loads model/ without isotrain
MODEL, DATA = "bert", "squad"  # choices of conf that a saved model is opened with
EXAMPLE_KEYS = ("version_2",)  # keys of conf/data that choose examples, beside those that every data set has
EXAMPLES = "questions"  # what examples are called
EXPERIMENT = "questions"  # what names of Experiments begin with
CLUSTER = "document"  # key of a prediction: examples that share its value are alike
CLUSTER_NAME = "document"  # what such examples share, in words
USE = "Answers a question with a span of a text that is given with it."
LIMITS = (
    "It answers from the text alone, whether or not that is true, and in spans of it. It was scored on texts of the kind "
    "of its evaluation data; of others nothing is known."
)
# What takes the settings of its section in conf/explain: their types and ranges are in its annotations.
EXPLAIN_SETTINGS = ("explain.question_views.Settings", "explain.tokens.ExtraSettings")
# Settings that belong to a saved model, by group of conf, and what they are where a model folder does not say.
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"n_best": 20, "max_answer_tokens": 30},
    "data": {"max_length": 384, "stride": 128, "max_query_length": 64, "version_2": None},
}

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "model_type" in config and any(
        str(name).endswith("ForQuestionAnswering") for name in config.get("architectures") or []
    )


def model_config(model: "SavedModel") -> dict[str, Any]:
    """conf/model of a saved model: where its weights are."""
    return {"pretrained": str(model.folder), "revision": None}


def data_config(model: "SavedModel") -> dict[str, Any]:
    """conf/data of a saved model: its own tokenizer."""
    return {"pretrained": None, "revision": None, "tokenizer": str(model.folder)}


def measured(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run measured that predictions depend on: whether a question may have no answer, and from which score on."""
    data, details = record.get("data") or {}, record.get("details") or {}
    return {
        "answerable_only": data.get("answerable_only", True),
        "no_answer_threshold": float(details.get("best_f1_threshold", 0.0)),
    }


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Each metric of one example, in the metric's unit; their means over the examples are the metrics."""
    return {"val_exact_match": 100.0 * row["exact_match"], "val_f1": 100.0 * row["f1"]}


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is right."""
    return bool(row["exact_match"] == 1)


# Columns of the table of mistakes, with how each is aligned: "n" number, "t" text that may break, "i" identifier, "" other.
MISTAKE_COLUMNS = {"F1": "n", "sure": "n", "question": "t", "answer": "i", "it says": "i", "document": "i"}
MISTAKE_ORDER = "the furthest off, and of those the surest, first"


def mistake_key(row: Mapping[str, Any]) -> Any:
    """What mistakes are sorted by, ascending."""
    return (row["f1"], -float(row.get("probability") or 0))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """The cells of one mistake, as MISTAKE_COLUMNS: text, or a number with its format."""
    probability = row.get("probability")
    return [
        f"{100 * row['f1']:.0f}",
        "" if probability is None else f"{probability:.0%}",
        row.get("question") or row["id"],
        (row.get("answers") or ["no answer"])[0],
        row.get("prediction") or "no answer",
        row.get("document", ""),
    ]


def mistake_group(row: Mapping[str, Any]) -> str:
    """The group that mistakes are filtered by."""
    from runs.questions import question_word

    return question_word(str(row.get("question", "")))


PREDICT_OPTIONS = ("no_answer_threshold",)  # of `python -m trainers predict`, beside files and batch size

# -- what rooms are given ---------------------------------------------------------------------------------------------


def predict(
    model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int, **options: Any
) -> Iterator[dict[str, Any]]:
    """Answers questions; see `python -m trainers predict`."""
    from trainers import predict_answers

    return predict_answers.predict_answers(model, files, stdin, batch_size, **options)


def explainer() -> ModuleType:
    """What its explanations are made of: a module of the room `explain`."""
    from explain import question_explainer

    return question_explainer


def facts() -> ModuleType:
    """What its data contract checks: a module of the room `quality`."""
    from quality import question_facts

    return question_facts


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

    model = drift_features.open_task_model(name, "question_answering")
    return ModelOutputs(*drift_features.answer_features(model, [(row["question"], row["context"]) for row in rows]))
