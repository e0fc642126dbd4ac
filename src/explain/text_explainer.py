"""The explainer of text classification: what its explanations are made of, measured by and shown as."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explain import measures, sample, shapley, tables, text_pages
from explain import slices as kinds
from explain.model import Subject, random_transformer
from explain.options import Options
from explain.slices import SliceNames
from explain.tables import Table
from explain.text_values import PAIR, Settings
from explain.text_values import explain as explain

FORMAT = 1  # part of the cache's key: raise it when what is found changes
EXAMPLES = 128  # of a sample
CHUNK = 16
STABILITY = "they are exact, whatever the seed"
MEASURES = {
    "text_permutation": "how far the class's probability falls when a text of another class stands in this one's place",
    "learned": "the areas of insertion and deletion against those of a random order, less the same at random weights",
    **measures.COMMON,
}


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """What decides the values.

    Args:
        options: conf/explain.
        decoding: the saved model's own; none for texts.
    """
    return Settings(
        **{name: options.own[name] for name in ("sentences", "other_texts")},
        batch_size=options.batch_size,
        seed=options.seed,
        bfloat16=options.precision == "bf16",
    )


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Ids of the validation split, and the class of each text, over which a sample is spread."""
    rows = data.texts("val")
    return [rows.id(at) for at in range(len(rows))], [rows.label(at) for at in range(len(rows))]


def prepared(data: Any) -> list[Any]:
    """How texts become the model's input."""
    return [data.prepared_tokenizer.fingerprint, data.max_length, [entry["id"] for entry in data.classes]]


def random_network(subject: Subject, seed: int) -> Any:
    """The same architecture at random weights: what an explanation says when nothing was learned."""
    from transformers import AutoModelForSequenceClassification

    return random_transformer(subject, AutoModelForSequenceClassification, seed)


def others(
    data: Any, ids: Sequence[str], positions: Sequence[int], part: Sequence[int], chosen: Settings
) -> list[list[int]]:
    """For each text of a part of the sample, others to put in its place: of the sample, of another class.

    Args:
        data: the data module.
        ids: of the validation split.
        positions: of the whole sample.
        part: those of them that are explained together.
        chosen: the settings.
    """
    label = data.texts("val").label
    return sample.choose_replacements(
        ids, positions, part, lambda at, other: label(at) != label(other), chosen.other_texts
    )


def table(explained: Sequence[Mapping[str, Any]]) -> Table:
    """Per text: `correct`, `confidence`, `cluster` (its class), `stability`, `additivity`, `finite`, and each measure."""
    return tables.stack_rows(_row(text) for text in explained)


def _row(text: Mapping[str, Any]) -> dict[str, Any]:
    null = tables.exact_area_gain(text["null"], text["null_coalitions"]) if "null" in text else np.nan
    return {
        **tables.exact_measures(text),
        "text_permutation": tables.permutation_drop(text),
        "learned": tables.exact_area_gain(text["values"], text["coalitions"]) - null,
    }


def lines(
    data: Any, positions: Sequence[int], explained: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Lines of explanations.jsonl: id, label, prediction, correct, confidence, parts, words, smallest.

    Args:
        data: the data module.
        positions: of the texts.
        explained: of `explain`.
        measured: of `table`.
    """
    rows, classes = data.texts("val"), [entry["id"] for entry in data.classes]
    return [_line(rows, classes, at, text) for at, text in zip(positions, explained, strict=True)]


def _line(rows: Any, classes: Sequence[str], at: int, text: Mapping[str, Any]) -> dict[str, Any]:
    sources, names = (rows.text(at), rows.pair(at)), ("text", "pair")
    parts_ = [
        {"text": sources[source][first:last], "of": names[source], "begin": first, "value": value}
        for (source, first, last), value in zip(text["parts"].tolist(), text["values"].tolist(), strict=True)
    ]
    words = [
        {"text": sources[source][first:last], "of": names[source], "begin": first, "value": value}
        for (source, first, last), value in zip(text["word_chars"].tolist(), text["words"].tolist(), strict=True)
    ]
    titles = [
        "the second text" if source == PAIR else f"part {number + 1}"
        for number, source in enumerate(text["parts"][:, 0].tolist())
    ]
    return {
        "id": rows.id(at).encode("utf-8", "backslashreplace").decode(),
        "label": classes[int(text["label"])],
        "prediction": classes[int(text["predicted"])],
        "correct": bool(text["correct"]),
        "confidence": float(text["confidence"]),
        "parts": parts_,
        "words": words,
        "smallest": shapley.smallest_set(text["same"], text["coalitions"], titles),
    }


def slices(rows: Sequence[Mapping[str, Any]], explained: Sequence[Mapping[str, Any]]) -> SliceNames:
    """The slices that each text is in: its class, where they are few, and its length."""
    lengths = np.array([text["length"] for text in explained], np.float64)
    return {
        **kinds.class_slices([row["label"] for row in rows]),
        **kinds.tercile_slices("words", lengths, "{:.0f}"),
    }


def parts(
    subject: Subject, chosen: Settings, options: Options, positions: Sequence[int],
    explained: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[str]:  # fmt: skip
    """HTML of what the report shows of texts; arguments as of the functions before."""
    return text_pages.parts(rows)
