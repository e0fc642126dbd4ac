"""The explainer of question answering."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explain import measures, question_report, sample, shapley, tables, tokens
from explain.model import Subject, random_transformer
from explain.options import Options
from explain.question_values import PARAGRAPH
from explain.question_values import explain as explain
from explain.question_views import Settings
from explain.report import Section
from explain.slices import SliceNames
from explain.tables import Table
from runs.questions import question_word

FORMAT = 3  # part of the cache key: raise it when values change
EXAMPLES = 128  # of a sample
CHUNK = 8
STABILITY = "they are exact, whatever the seed"
MEASURES = {
    "question_share": "the question's share of the absolute values, minus its share with random weights",
    "question_permutation": "decrease of the answer's probability with another question about the paragraph",
    **measures.COMMON,
}


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """Return the settings that the values depend on.

    Args:
        options: conf/explain.
        decoding: settings of the saved model: max_answer_tokens, n_best.
    """
    return Settings(
        sentences=options.section["sentences"],
        other_questions=options.section["other_questions"],
        max_answer_tokens=decoding["max_answer_tokens"],
        n_best=decoding["n_best"],
        **options.numeric_settings,
    )


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Return ids and strata (documents) of the validation split."""
    rows = data.examples
    return [rows.id(index) for index in range(len(rows))], [rows.document(index) for index in range(len(rows))]


def preprocessing(data: Any) -> list[Any]:
    """Return what the preprocessing depends on, for the cache key."""
    tokenizer = data.prepared_tokenizer
    return [
        tokenizer.fingerprint,
        data.limits.max_length,
        data.limits.stride,
        data.limits.max_query_length,
        data.answerable_only,
        # Treatments that inputs of some tokenizers did not have before.
        *(["stripped questions"] if tokenizer.leading_space else []),
        *(["token types"] if tokenizer.uses_types and not tokenizer.default_types else []),
    ]


def random_network(subject: Subject, seed: int) -> Any:
    """Build the architecture with random weights."""
    return random_transformer(subject, seed)


def replacements(
    data: Any, ids: Sequence[str], positions: Sequence[int], part: Sequence[int], question_settings: Settings
) -> list[list[int]]:
    """Choose for each question of a part of the sample others about another paragraph, to ask in its place.

    Args:
        data: the data module.
        ids: of the validation split.
        positions: of the sample.
        part: positions of the questions to replace.
        question_settings: of `settings`.
    """
    context = data.examples.context_of
    count = question_settings.other_questions
    return sample.choose_replacements(ids, positions, part, lambda a, b: context[a] != context[b], count)


def table(explanations: Sequence[Mapping[str, Any]]) -> Table:
    """Return columns: `correct`, `confidence`, `cluster` (the document), `stability`, `additivity`, `finite`, and the measures."""
    return tables.stack_rows(map(_measure_row, explanations))


def _measure_row(question: Mapping[str, Any]) -> dict[str, Any]:
    values = question["values"]
    null = question.get("null", np.full(len(values), np.nan))
    return {
        **tables.exact_measures(question),
        "question_share": float(measures.first_share(values) - measures.first_share(null)),
        "question_permutation": tables.permutation_drop(question),
    }


def lines(
    data: Any, positions: Sequence[int], explanations: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Return the lines of explanations.jsonl: id, question, prediction, answers, correct, confidence, question_share, parts, words, smallest.

    Args:
        data: the data module.
        positions: of the questions.
        explanations: of `explain`.
        measured: of `table`.
    """
    return [_line(data.examples, position, row) for position, row in zip(positions, explanations, strict=True)]


def _line(rows: Any, position: int, question: Mapping[str, Any]) -> dict[str, Any]:
    sources, answer = (rows.question(position), rows.context(position)), int(question["answer"])
    values = question["values"]
    first, last = question["span"].tolist()
    spans = np.insert(question["sentences"], 0, PARAGRAPH, axis=1)
    sentences = tokens.span_rows(sources, ("question", "paragraph"), spans, values[1:])
    return {
        "id": rows.id(position),
        "question": sources[0],
        "prediction": "" if first < 0 else sources[1][first:last],
        "span": None if first < 0 else [first, last],
        "answers": [gold["text"] for gold in rows.answers(position)],
        "correct": bool(question["correct"]),
        "confidence": float(question["confidence"]),
        "question_share": float(measures.first_share(values)),
        "question_value": float(values[0]),
        "begin": sentences[0]["begin"],
        "parts": [
            {"text": row["text"], "value": row["value"], "answer": number == answer}
            for number, row in enumerate(sentences)
        ],
        "words": tokens.span_rows(sources, ("question", "paragraph"), question["word_chars"], question["words"]),
        "smallest": shapley.smallest_set(
            question["same"],
            question["coalitions"],
            ["the question", *(f"sentence {number + 1}" for number in range(len(sentences)))],
        ),
    }


def slices(rows: Sequence[Mapping[str, Any]], explanations: Sequence[Mapping[str, Any]]) -> SliceNames:
    """Return the slices of each question: its question word, and the length of its answer."""
    return {
        "question": [question_word(row["question"]) for row in rows],
        "answer": [_length_name(len((row["answers"] or [""])[0].split())) for row in rows],
    }


def _length_name(words: int) -> str:
    return "no answer" if not words else "1 word" if words == 1 else "2 to 4 words" if words < 5 else "5 words and more"


def report_sections(
    subject: Subject, question_settings: Settings, options: Options, positions: Sequence[int],
    explanations: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[Section]:  # fmt: skip
    """Return the task's sections of the report; see the functions above for the arguments."""
    return question_report.report_sections(rows)
