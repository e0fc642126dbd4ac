"""The explainer of question answering: what its explanations are made of, measured by and shown as."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explain import measures, question_pages, sample, shapley, tables
from explain.model import Subject, random_transformer
from explain.options import Options
from explain.question_values import explain as explain
from explain.question_views import Settings
from explain.slices import SliceNames
from explain.tables import Table
from runs.questions import question_word

FORMAT = 3  # part of the cache's key: raise it when what is found changes
EXAMPLES = 128  # of a sample
CHUNK = 8
STABILITY = "they are exact, whatever the seed"
MEASURES = {
    "question_share": "the question's share of all that is said, less its share at random weights",
    "question_permutation": "how far the answer's probability falls when another question is asked",
    **measures.COMMON,
}


def settings(options: Options, decoding: Mapping[str, Any]) -> Settings:
    """What decides the values.

    Args:
        options: conf/explain.
        decoding: the saved model's own: how its answers are found.
    """
    return Settings(
        **{name: options.own[name] for name in ("sentences", "other_questions")},
        **{name: decoding[name] for name in ("max_answer_tokens", "n_best")},
        batch_size=options.batch_size,
        seed=options.seed,
        bfloat16=options.precision == "bf16",
    )


def examples(data: Any) -> tuple[list[str], list[Any]]:
    """Ids of the validation split, and the document of each question, over which a sample is spread."""
    rows = data.examples
    return [rows.id(at) for at in range(len(rows))], [rows.document(at) for at in range(len(rows))]


def prepared(data: Any) -> list[Any]:
    """How texts become the model's input."""
    return [
        data.prepared_tokenizer.fingerprint,
        data.limits.max_length,
        data.limits.stride,
        data.limits.max_query_length,
        data.answerable_only,
    ]


def random_network(subject: Subject, seed: int) -> Any:
    """The same architecture at random weights: what an explanation says when nothing was learned."""
    from transformers import AutoModelForQuestionAnswering

    return random_transformer(subject, AutoModelForQuestionAnswering, seed)


def others(
    data: Any, ids: Sequence[str], positions: Sequence[int], part: Sequence[int], chosen: Settings
) -> list[list[int]]:
    """For each question of a part of the sample, others to ask in its place: of the sample, about another paragraph.

    Args:
        data: the data module.
        ids: of the validation split.
        positions: of the whole sample.
        part: those of them that are explained together.
        chosen: the settings.
    """
    context = data.examples.context_of
    return sample.choose_replacements(
        ids, positions, part, lambda at, other: context[at] != context[other], chosen.other_questions
    )


def table(explained: Sequence[Mapping[str, Any]]) -> Table:
    """Per question: `correct`, `confidence`, `cluster` (its document), `stability`, `additivity`, `finite`, and each measure."""
    return tables.stack_rows(_row(question) for question in explained)


def _row(question: Mapping[str, Any]) -> dict[str, Any]:
    values = question["values"]
    null = question.get("null", np.full(len(values), np.nan))
    return {
        **tables.exact_measures(question),
        "question_share": float(measures.share(values) - measures.share(null)),
        "question_permutation": tables.permutation_drop(question),
    }


def lines(
    data: Any, positions: Sequence[int], explained: Sequence[Mapping[str, Any]], measured: Table
) -> list[dict[str, Any]]:
    """Lines of explanations.jsonl: id, question, prediction, answers, correct, confidence, question_share, parts, words, smallest.

    Args:
        data: the data module.
        positions: of the questions.
        explained: of `explain`.
        measured: of `table`.
    """
    return [_line(data.examples, at, row) for at, row in zip(positions, explained, strict=True)]


def _line(rows: Any, at: int, explained: Mapping[str, Any]) -> dict[str, Any]:
    context, question, values = rows.context(at), rows.question(at), explained["values"].tolist()
    texts = [context[first:last] for first, last in explained["sentences"].tolist()]
    first, last = explained["span"].tolist()
    sources = (question, context)
    words = [
        {"text": sources[where][begin:end], "of": ("question", "paragraph")[where], "begin": begin, "value": value}
        for (where, begin, end), value in zip(
            explained["word_chars"].tolist(), explained["words"].tolist(), strict=True
        )
    ]
    answer = int(explained["answer"])
    return {
        "id": rows.id(at),
        "question": question,
        "prediction": "" if first < 0 else context[first:last],
        "span": None if first < 0 else [first, last],
        "answers": [gold["text"] for gold in rows.answers(at)],
        "correct": bool(explained["correct"]),
        "confidence": float(explained["confidence"]),
        "question_share": float(measures.share(explained["values"])),
        "question_value": values[0],
        "begin": int(explained["sentences"][0, 0]),
        "parts": [
            {"text": text, "value": value, "answer": number == answer}
            for number, (text, value) in enumerate(zip(texts, values[1:], strict=True))
        ],
        "words": words,
        "smallest": shapley.smallest_set(
            explained["same"],
            explained["coalitions"],
            ["the question", *(f"sentence {number + 1}" for number in range(len(texts)))],
        ),
    }


def slices(rows: Sequence[Mapping[str, Any]], explained: Sequence[Mapping[str, Any]]) -> SliceNames:
    """The slices that each question is in: its type, and the length of its answer."""
    return {
        "question": [question_word(row["question"]) for row in rows],
        "answer": [_length(len((row["answers"] or [""])[0].split())) for row in rows],
    }


def _length(words: int) -> str:
    return "no answer" if not words else "1 word" if words == 1 else "2 to 4 words" if words < 5 else "5 words and more"


def parts(
    subject: Subject, chosen: Settings, options: Options, positions: Sequence[int],
    explained: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
) -> list[str]:  # fmt: skip
    """HTML of what the report shows of questions; arguments as of the functions before."""
    return question_pages.parts(rows)
