"""Questions as rows of a table: the fields of a row of CSV, TSV, JSON Lines or Parquet, under any names."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from config.errors import InputError
from config.parsing import parse_json
from datamodules.text.columns import describe_missing
from datamodules.text.reading import TYPE_NAMES, replace_surrogates, type_name


@dataclass(frozen=True)
class Columns:
    """Names of the columns.

    Attributes:
        question: of the question.
        context: of the paragraph.
        answer: of one answer's text; empty: the question cannot be answered.
        answers: of several answers, in one of SQuAD's layouts or as a list of texts; if a row has it, `answer` is not
            read, unless another name than the default is given for that.
        answer_start: of the answer's first character in the context; without it, the answer is searched.
        id: of ids that are unique in a split; without it, a hash of question and context.
        title: of the document's title.
    """

    question: str = "question"
    context: str = "context"
    answer: str = "answer"
    answers: str = "answers"
    answer_start: str = "answer_start"
    id: str = "id"
    title: str = "title"

    @property
    def named(self) -> list[str]:
        """The columns that a table must have: context, question, and those of other names than the default."""
        default = Columns()
        optional = ("answer", "answers", "answer_start", "id", "title")
        renamed = [getattr(self, name) for name in optional if getattr(self, name) != getattr(default, name)]
        return [self.context, self.question, *renamed]


class Question(NamedTuple):
    """One question about one context.

    Attributes:
        id: unique in its split; a whole number as text.
        title: the article's title, or "".
        context: the paragraph.
        question: its text.
        answers: (text, first character in the context) of each gold answer; empty if it cannot be answered. The character
            is -1 if the answer was searched and the context does not have it.
        location: in its file, for messages.
        repeated: number of answers that were searched, and that the context has more than once.
        group: value of the column by which examples are split, if there is one.
    """

    id: str
    title: str
    context: str
    question: str
    answers: list[tuple[str, int]]
    location: str
    repeated: int = 0
    group: str = ""


class Identities:
    """Ids of the questions of a split that have none: a hash of question and context, and a number for equal ones."""

    def __init__(self) -> None:
        """Start without questions."""
        self._counts: Counter[bytes] = Counter()

    def make(self, question: str, context: str) -> str:
        """Return the id of the next question."""
        digest = hashlib.sha256(json.dumps([question, context]).encode()).digest()[:8]
        self._counts[digest] += 1
        number = self._counts[digest]
        return digest.hex() if number == 1 else f"{digest.hex()}-{number}"


def check_row(row: Any, columns: Columns, location: str, answered: bool) -> None:
    """Refuse a row without question, context or answers.

    Args:
        row: of a file.
        columns: names of the columns.
        location: file and line or row, for messages.
        answered: whether it must have answers; questions to predict need none.

    Raises:
        InputError: it is not an object, or lacks a key.
    """
    if not isinstance(row, Mapping):
        message = f"expected an object with the key {columns.context!r}, found {type_name(row)}"
        raise InputError(f"{location}: {message}")
    check_names(list(row), columns, location, answered, "key")


def check_names(names: Iterable[str], columns: Columns, location: str, answered: bool, kind: str = "column") -> None:
    """Refuse a table or a row that lacks columns.

    Args:
        names: of its columns.
        columns: names of the columns to read.
        location: for messages.
        answered: whether it must have answers.
        kind: "column" of a table or "key" of a row.

    Raises:
        InputError: a column is missing; the message lists those that there are.
    """
    names = list(names)
    answers = (columns.answer, columns.answers)
    for name in columns.named if answered else (columns.context, columns.question):
        if name not in names and not (name in answers and set(answers) & set(names)):
            raise InputError(f"{location}: {describe_missing(kind, name, names, columns)}")
    if answered and not set(answers) & set(names):
        either = describe_missing(kind, columns.answers, names, columns).replace("the key", "the keys", 1)
        raise InputError(f"{location}: {either}".replace(repr(columns.answers), " or ".join(map(repr, answers)), 1))


def read_identity(row: Mapping[str, Any], columns: Columns, location: str) -> str | None:
    """Return the id of a row; None if it has none.

    Raises:
        InputError: it is neither text nor a whole number.
    """
    value = row.get(columns.id)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InputError(f"{location}: {columns.id!r} must be text or a whole number, not {type_name(value)}")
    return replace_surrogates(str(value))  # COVID-QA and GermanQuAD number their questions


def read_answers(
    row: Mapping[str, Any], columns: Columns, context: str, location: str
) -> tuple[list[tuple[str, int]], int]:
    """Return the answers of a row, as `Question.answers`, and how many of them the context has more than once.

    Answers are a text (with or without `answer_start`), a list of texts, or in one of SQuAD's layouts:
    [{"text", "answer_start"}, ...] or {"text": [...], "answer_start": [...]}, as values or as JSON in a text.

    Raises:
        InputError: they are of another type.
    """
    is_single = columns.answers not in row or (columns.answer != Columns.answer and columns.answer in row)
    column = columns.answer if is_single else columns.answers
    value = row.get(column)
    if isinstance(value, str) and value[:1] in ("[", "{") and not is_single:
        try:
            value = parse_json(value)
        except ValueError as error:
            raise InputError(f"{location}: {column!r} is not JSON ({error}): {value[:60]}") from None
    starts: list[int | None]
    if value is None or value == "":
        return [], 0
    if isinstance(value, str):
        texts, starts = [value], [_start(row.get(columns.answer_start), columns.answer_start, location)]
    elif isinstance(value, Mapping):
        texts, starts = _parallel_lists(value, f'{location}, "{column}"', location)
    elif isinstance(value, list):
        texts, starts = _items(value, location)
    else:
        expected = "text" if is_single else "a list"
        raise InputError(f"{location}: {column!r} must be {expected}, not {type_name(value)}")
    searched = [text for text, start in zip(texts, starts, strict=True) if start is None]
    answers = [
        (replace_surrogates(text), context.find(text.strip()) if start is None else start)
        for text, start in zip(texts, starts, strict=True)
    ]
    return answers, sum(context.count(text.strip()) > 1 for text in searched if text.strip())


def _parallel_lists(value: Mapping[str, Any], position: str, location: str) -> tuple[list[str], list[int | None]]:
    """Texts and starts of {"text": [...], "answer_start": [...]}."""
    texts = field(value, "text", list, position)
    starts = field(value, "answer_start", list, position)
    if len(texts) != len(starts):
        raise InputError(f"{location}: {len(texts)} answer texts, but {len(starts)} answer_start")
    return _items([{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)], location)


def _items(items: list[Any], location: str) -> tuple[list[str], list[int | None]]:
    """Texts and starts of [{"text", "answer_start"}, ...], or of a list of texts."""
    texts: list[str] = []
    starts: list[int | None] = []
    for number, item in enumerate(items, 1):
        position = f"{location}, answer {number}"
        texts.append(item if isinstance(item, str) else field(item, "text", str, position))
        starts.append(None if isinstance(item, str) else field(item, "answer_start", int, position))
    return texts, starts


def _start(value: Any, column: str, location: str) -> int | None:
    """The first character of an answer; None if it is not given."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    description = repr(value) if isinstance(value, str) else type_name(value)
    raise InputError(f"{location}: {column!r} must be a whole number, not {description}")


def field(container: Any, key: str, kind: type | tuple[type, ...], location: str) -> Any:
    """Return a value of an object.

    Raises:
        InputError: there is none, or it is of another type.
    """
    if not isinstance(container, Mapping):
        raise InputError(f"{location}: expected an object with the key {key!r}, found {type_name(container)}")
    if key not in container:
        raise InputError(f"{location}: the key {key!r} is missing; found {', '.join(map(str, container)) or 'none'}")
    value = container[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(TYPE_NAMES[name] for name in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{location}: {key!r} must be {names}, not {type_name(value)}")
    return value
