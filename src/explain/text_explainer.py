"""The explainer of text classification."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explain import measures, sample, shapley, tables, text_report, tokens
from explain.model import Subject, random_transformer
from explain.options import Options
from explain.report import Section
from explain.slices import SliceNames, class_slices, tercile_slices
from explain.tables import Table
from explain.text_values import PAIR, Settings
from explain.text_values import explain as explain

FORMAT = 1  # part of the cache key: raise it when values change
EXAMPLES = 128  # size of a sample
CHUNK = 16
STABILITY = "they are exact, whatever the seed"
MEASURES = {
    "text_permutation": "decrease of the class's probability with a text of another class in the place of this one",
    "learned": "areas of insertion and deletion, compared with those of a random order, minus the same with random weights",
    **measures.COMMON,
}


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """Return the settings that the values depend on.

    Args:
        options: conf/explain.
        decoding: settings of the saved model; none for texts.
    """
    return Settings(
        sentences=options.section["sentences"], other_texts=options.section["other_texts"], **options.numeric_settings
    )


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Return ids and strata (classes) of the validation split."""
    rows = data.texts("val")
    return list(rows.ids), rows.labels.tolist()


def preprocessing(data: Any) -> list[Any]:
    """Return what the preprocessing depends on, for the cache key."""
    tokenizer = data.prepared_tokenizer
    key = [tokenizer.fingerprint, data.max_length, [entry["id"] for entry in data.classes]]
    # Inputs of such tokenizers had no token types before.
    return [*key, "token types"] if tokenizer.uses_types and not tokenizer.default_types else key


def random_network(subject: Subject, seed: int) -> Any:
    """Build the architecture with random weights."""
    return random_transformer(subject, seed)


def replacements(
    data: Any, ids: Sequence[str], positions: Sequence[int], part: Sequence[int], text_settings: Settings
) -> list[list[int]]:
    """Choose, for each text of a part of the sample, texts of another class that replace it.

    Args:
        data: the data module.
        ids: of the validation split.
        positions: of the sample.
        part: positions of the texts to replace.
        text_settings: of `settings`.
    """
    label, count = data.texts("val").label, text_settings.other_texts
    return sample.choose_replacements(ids, positions, part, lambda a, b: label(a) != label(b), count)


def table(explanations: Sequence[Mapping[str, Any]]) -> Table:
    """Return columns: `correct`, `confidence`, `cluster` (the class), `stability`, `additivity`, `finite`, and the measures."""
    return tables.stack_rows(map(_measure_row, explanations))


def _measure_row(text: Mapping[str, Any]) -> dict[str, Any]:
    gain, null_gain = _area_gain(text["values"], text["coalitions"]), np.nan
    if "null" in text:
        null_gain = _area_gain(text["null"], text["null_coalitions"])
    return {
        **tables.exact_measures(text),
        "text_permutation": tables.permutation_drop(text),
        "learned": gain - null_gain,
    }


def _area_gain(values: Any, coalitions: Any) -> float:
    return tables.area_gain(*tables.exact_curves(values, coalitions))


def lines(
    data: Any, positions: Sequence[int], explanations: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Return the lines of explanations.jsonl: id, label, prediction, correct, confidence, parts, words, smallest.

    Args:
        data: the data module.
        positions: of the texts.
        explanations: of `explain`.
        measured: of `table`.
    """
    rows, classes = data.texts("val"), [entry["id"] for entry in data.classes]
    return [_line(rows, classes, position, text) for position, text in zip(positions, explanations, strict=True)]


def _line(rows: Any, classes: Sequence[str], position: int, text: Mapping[str, Any]) -> dict[str, Any]:
    sources, names = (rows.text(position), rows.pair(position)), ("text", "pair")
    part_names = [
        "the second text" if source == PAIR else f"part {number + 1}"
        for number, source in enumerate(text["parts"][:, 0].tolist())
    ]
    return {
        "id": rows.id(position).encode("utf-8", "backslashreplace").decode(),
        "label": classes[int(text["label"])],
        "prediction": classes[int(text["predicted"])],
        "correct": bool(text["correct"]),
        "confidence": float(text["confidence"]),
        "parts": tokens.span_rows(sources, names, text["parts"], text["values"]),
        "words": tokens.span_rows(sources, names, text["word_chars"], text["words"]),
        "smallest": shapley.smallest_set(text["same"], text["coalitions"], part_names),
    }


def slices(rows: Sequence[Mapping[str, Any]], explanations: Sequence[Mapping[str, Any]]) -> SliceNames:
    """Return the slices of each text: its class, for few classes, and its length."""
    lengths = np.array([text["length"] for text in explanations], np.float64)
    return {**class_slices([row["label"] for row in rows]), **tercile_slices("words", lengths, "{:.0f}")}


def report_sections(
    subject: Subject, text_settings: Settings, options: Options, positions: Sequence[int],
    explanations: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[Section]:  # fmt: skip
    """Return the task's sections of the report; see the functions above for the arguments."""
    return text_report.report_sections(rows)
