"""Question answering: an answer is a span of the question's context."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quality.features import ModelOutputs
    from trainers.saved_model import SavedModel

LIBRARY = "transformers"  # loads model/ without isotrain
MODEL, DATA = "bert", "squad"  # choices of conf with which a saved model is opened
NETWORK = "trainers.networks.QuestionNetwork"  # trains a model that is a plain torch.nn.Module
EXAMPLE_KEYS = ("version_2", "columns")  # keys of conf/data that select examples, besides those of every data set
EXAMPLES = "questions"  # name of examples, plural
EXPERIMENT = "questions"  # prefix of Experiments' names
CLUSTER = "document"  # key of a prediction whose equal values mark similar examples
CLUSTER_NAME = "document"  # name of such a group
USE = "Answers a question with a span of its context."
LIMITS = (
    "It answers with spans of the context only, whether or not the context is true. It was evaluated on texts like those "
    "of its evaluation data; its performance on others is unknown."
)
# Classes of the settings in its section of conf/explain; their annotations have the types and ranges.
EXPLAIN_SETTINGS = ("explain.question_views.Settings", "explain.tokens.ExtraSettings")
# Settings of a saved model, by group of conf, with defaults for model folders without them.
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"n_best": 20, "max_answer_tokens": 30},
    "data": {"max_length": 384, "stride": 128, "max_query_length": 64, "version_2": None, "columns": None},
}

# -- saved models -----------------------------------------------------------------------------------------------------


def is_model(config: Mapping[str, Any]) -> bool:
    """Whether a model folder's config.json is of this task."""
    return "model_type" in config and any(
        "ForQuestionAnswering" in str(name) for name in config.get("architectures") or []
    )


def model_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/model of a saved model: the source of its weights."""
    return {"pretrained": str(model.folder), "revision": None}


def data_config(model: "SavedModel") -> dict[str, Any]:
    """Return conf/data of a saved model: its own tokenizer."""
    return {"pretrained": None, "revision": None, "tokenizer": str(model.folder)}


def measurements(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return values measured by a run that predictions depend on: whether all questions have answers, and a threshold."""
    data, details = record.get("data") or {}, record.get("details") or {}
    return {
        "answerable_only": data.get("answerable_only", True),
        "no_answer_threshold": float(details.get("best_f1_threshold", 0.0)),
    }


# -- predictions ------------------------------------------------------------------------------------------------------


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one example, in the metric's unit; their means over the examples are the metrics."""
    return {"val_exact_match": 100.0 * row["exact_match"], "val_f1": 100.0 * row["f1"]}


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is correct."""
    return bool(row["exact_match"] == 1)


# Columns of the table of mistakes: "n" number, "t" text that may break, "i" identifier, "spans" text with spans.
MISTAKE_COLUMNS = {
    "F1": "n",
    "confidence": "n",
    "question": "t",
    "answer": "i",
    "predicted": "i",
    "paragraph": "spans",
    "document": "i",
}
MISTAKE_ORDER = "the lowest F1 first, then the highest confidence"
MISTAKE_NOTE = "In the paragraphs true answers are marked, predicted ones have a dashed underline."


def mistake_key(row: Mapping[str, Any]) -> Any:
    """Return the sort key of a mistake, ascending."""
    return (row["f1"], -float(row.get("probability") or 0))


def mistake(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one mistake, as MISTAKE_COLUMNS."""
    probability = row.get("probability")
    return [
        f"{100 * row['f1']:.0f}",
        "" if probability is None else f"{probability:.0%}",
        row.get("question") or row["id"],
        (row.get("answers") or ["no answer"])[0],
        row.get("prediction") or "no answer",
        _paragraph(row),
        row.get("document", ""),
    ]


def _paragraph(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the paragraph of a mistake with the spans of its answers; "" if the run has not saved it."""
    if not isinstance(row.get("context"), str):
        return ""
    spans = {(answer["answer_start"], answer["answer_start"] + len(answer["text"])) for answer in row["true_answers"]}
    predicted = [] if row.get("start") is None else [(row["start"], row["end"])]
    return {"text": row["context"], "correct": sorted(spans), "incorrect": predicted}


def keep_mistakes(module: Any, folder: Any) -> None:
    """Save the paragraphs of a run's mistakes for its report."""
    from trainers import mistake_passages

    mistake_passages.save_passages(module, folder, mistake_key)


def mistake_group(row: Mapping[str, Any]) -> str:
    """Return the group by which mistakes are filtered."""
    from runs.questions import question_word

    return question_word(str(row.get("question", "")))


# Columns of predictions; a value of each has the type of all.
OUTPUTS: dict[str, Any] = {
    "id": "", "prediction": "", "start": 0, "end": 0, "score": 0.0, "no_answer_score": 0.0, "probability": 0.0,
}  # fmt: skip
PREDICT_OPTIONS = ("no_answer_threshold",)  # further options of `python -m trainers predict`

# -- parts in other packages ------------------------------------------------------------------------------------------


def predict(
    model: "SavedModel", files: Sequence[str], stdin: Any, batch_size: int, **options: Any
) -> Iterator[dict[str, Any]]:
    """Answer questions; see `python -m trainers predict`."""
    from trainers.predict_answers import predict_answers

    return predict_answers(model, files, stdin, batch_size, **options)


def predictor(model: "SavedModel") -> Any:
    """Return a saved model with its weights, which predicts rows: see `python -m trainers predict` and `trainers.pyfunc`."""
    from trainers.predict_answers import AnswerPredictor

    return AnswerPredictor(model)


def input_example(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an input of `predictor`: a value by column.

    Args:
        settings: of a saved model, by group of conf.
    """
    from datamodules.text import columns
    from datamodules.text.question_rows import Columns

    names = columns.parse(Columns, settings["data"]["columns"])
    return {names.question: "Who opened the station?", names.context: "The mayor opened the station in 1911."}


def validation_inputs(data: Any, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the validation questions, in order, as inputs of `predictor`: id, and a value by column.

    Args:
        data: the data module, set up for validation.
        settings: of a saved model, by group of conf.
    """
    examples = data.examples
    question, context = input_example(settings)
    for index in range(len(examples)):
        yield {
            "id": examples.id(index), question: examples.question(index), context: examples.context(index)
        }  # fmt: skip


def explainer() -> ModuleType:
    """Return the module of its explanations."""
    from explain import question_explainer

    return question_explainer


def facts() -> ModuleType:
    """Return the module of its table of facts, which data contracts check."""
    from quality import question_facts

    return question_facts


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

    model = drift_features.open_task_model(name, "question_answering")
    return ModelOutputs(*drift_features.answer_features(model, [(row["question"], row["context"]) for row in rows]))
