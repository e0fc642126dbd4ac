"""Reader of questions with contexts and answers: SQuAD 1.1 and 2.0 in all their layouts.

Nested JSON (the official files), flat JSON (a list, or {"data": [...]}), JSON Lines, Parquet as on the Hub, and
CSV with one answer per row. All are streamed, article by article or row group by row group, in memory independent of the
file's size.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from config.errors import InputError
from config.parsing import parse_json
from datamodules.sources.files import open_file
from datamodules.text import reading
from datamodules.text.json_stream import Scanner
from datamodules.text.reading import replace_surrogates

OFFICIAL_NAMES = {"train": ("train-v1.1.json", "train-v2.0.json"), "val": ("dev-v1.1.json", "dev-v2.0.json")}
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz")
MAX_LINE = 1 << 20  # characters of the first line that are inspected to tell JSON Lines from other JSON


class Question(NamedTuple):
    """One question about one context.

    Attributes:
        id: unique in its split; a whole number as text.
        title: the article's title, or "".
        context: the paragraph.
        question: its text.
        answers: (text, first character in the context) of each gold answer; empty if it cannot be answered.
        location: in its file, for messages.
    """

    id: str
    title: str
    context: str
    question: str
    answers: list[tuple[str, int]]
    location: str


def official_names(version_2: bool | None) -> dict[str, tuple[str, ...]]:
    """Return the official file names by split, those of the requested version first."""
    return {split: names[::-1] if version_2 else names for split, names in OFFICIAL_NAMES.items()}


def read(files: Sequence[str], version_2: bool | None = None) -> Iterator[Question]:
    """Yield the questions of some files, in order.

    Args:
        files: local paths or fsspec URLs.
        version_2: whether a question may have no answer, as in SQuAD 2.0. None: as the file indicates
            (`is_impossible` in the nested layout; an empty list of answers in the flat ones).

    Raises:
        InputError: broken JSON, a missing key, an invalid type, or a question without an answer that must have one. The
            message names the location in the file.
    """
    for file in files:
        if file.endswith(".parquet"):
            yield from _parquet(file, version_2)
        elif file.endswith((".csv", ".csv.gz")):
            yield from _csv(file, version_2)
        else:
            yield from _json(file, version_2)


def _json(file: str, version_2: bool | None) -> Iterator[Question]:
    with open_file(file) as stream:
        scanner = Scanner(stream, file)
        items = scanner.lines() if _is_json_lines(scanner, file) else scanner.items()
        for number, (location, item) in enumerate(items, 1):
            if isinstance(item, dict) and "paragraphs" in item:
                yield from _article(item, f"{file}: article {number}", version_2)
            else:
                yield _flat(item, f"{file}: {location}", version_2)


def _is_json_lines(scanner: Scanner, file: str) -> bool:
    """Recognise JSON Lines by the file's name, or by a first line that is a complete object."""
    if re.search(r"\.(jsonl|ndjson)(\.gz)?$", file):
        return True
    scanner.peek()
    while "\n" not in scanner.text[scanner.position :] and not scanner.ended and len(scanner.text) < MAX_LINE:
        scanner.read_more()
    line, newline, _ = scanner.text[scanner.position :].partition("\n")
    if not line.startswith("{") or not (newline or scanner.ended):
        return False
    try:
        first = parse_json(line)
    except ValueError:
        return False
    return "data" not in first and "question" in first


def _article(article: dict[str, Any], location: str, version_2: bool | None) -> Iterator[Question]:
    title = article.get("title") or ""
    if not isinstance(title, str):
        raise InputError(f'{location}: "title" must be text, not {reading.type_name(title)}')
    location = f"{location} ({title})" if title else location
    for p, paragraph in enumerate(_field(article, "paragraphs", list, location), 1):
        paragraph_location = f"{location}, paragraph {p}"
        context = replace_surrogates(_field(paragraph, "context", str, paragraph_location))
        for q, qa in enumerate(_field(paragraph, "qas", list, paragraph_location), 1):
            yield _question(qa, f"{paragraph_location}, question {q}", title, context, version_2, nested=True)


def _flat(item: Any, location: str, version_2: bool | None) -> Question:
    context = replace_surrogates(_field(item, "context", str, location))
    return _question(item, location, str(item.get("title") or ""), context, version_2, nested=False)


def _question(qa: Any, location: str, title: str, context: str, version_2: bool | None, nested: bool) -> Question:
    # COVID-QA and GermanQuAD number their questions.
    identity = replace_surrogates(str(_field(qa, "id", (str, int), location)))
    location = f"{location} (id {identity})"
    question = replace_surrogates(_field(qa, "question", str, location))
    impossible = qa.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        raise InputError(f'{location}: "is_impossible" must be true or false, not {reading.type_name(impossible)}')
    # In 2.0 an unanswerable question may lack the key; its plausible_answers do not count.
    answers = [] if impossible and qa.get("answers") is None else _answers(qa, location)
    if impossible and answers:
        raise InputError(f"{location}: is_impossible is true, but the question has answers")
    if not answers:
        if version_2 is False:
            raise InputError(
                f"{location}: no answers; if questions may be unanswerable (SQuAD 2.0), set data.version_2=true"
            )
        if version_2 is None and nested and not impossible:
            raise InputError(f'{location}: no answers; if it is unanswerable (SQuAD 2.0), add "is_impossible": true')
    return Question(identity, replace_surrogates(title), context, question, answers, location)


def _answers(qa: dict[str, Any], location: str) -> list[tuple[str, int]]:
    """Answers in either form: [{"text", "answer_start"}, ...] or {"text": [...], "answer_start": [...]}."""
    if isinstance(qa.get("answers"), dict):
        texts = _field(qa["answers"], "text", list, f'{location}, "answers"')
        starts = _field(qa["answers"], "answer_start", list, f'{location}, "answers"')
        if len(texts) != len(starts):
            raise InputError(f"{location}: {len(texts)} answer texts, but {len(starts)} answer_start")
        answers: list[Any] = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    else:
        answers = _field(qa, "answers", list, location)
    return [
        (
            replace_surrogates(_field(answer, "text", str, f"{location}, answer {number}")),
            _field(answer, "answer_start", int, f"{location}, answer {number}"),
        )
        for number, answer in enumerate(answers, 1)
    ]


def _field(container: Any, key: str, kind: type | tuple[type, ...], location: str) -> Any:
    if not isinstance(container, dict):
        raise InputError(f"{location}: expected an object with the key {key!r}, found {reading.type_name(container)}")
    if key not in container:
        raise InputError(f"{location}: the key {key!r} is missing; found {', '.join(map(str, container)) or 'none'}")
    value = container[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(reading.TYPE_NAMES[name] for name in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{location}: {key!r} must be {names}, not {reading.type_name(value)}")
    return value


def _parquet(file: str, version_2: bool | None) -> Iterator[Question]:
    names = ("id", "title", "context", "question", "answers")
    for location, row in reading.parquet_rows(file, names, optional=("title",)):
        yield _flat(row, location, version_2)


def _csv(file: str, version_2: bool | None) -> Iterator[Question]:
    """Rows of context, question and answer; id, title and answer_start may be missing."""
    for number, (location, row) in enumerate(reading.csv_rows(file, ("context", "question", "answer")), 1):
        answers = [] if not row["answer"] else [{"text": row["answer"], "answer_start": _answer_start(row, location)}]
        item = {
            "id": row.get("id") or f"{PurePosixPath(file).stem}-{number}",
            "title": row.get("title"),
            "context": row["context"],
            "question": row["question"],
            "answers": answers,
        }
        yield _flat(item, location, version_2)


def _answer_start(row: dict[str, str], location: str) -> int:
    """First character of a row's answer: its `answer_start`, else the only occurrence in the context."""
    start = row.get("answer_start")
    if start:
        if not start.strip().isdecimal():
            raise InputError(f"{location}: 'answer_start' must be a whole number, not {start!r}")
        return int(start)
    count = row["context"].count(row["answer"])
    if count > 1:
        raise InputError(
            f"{location}: the context has the answer {count} times; select one with the column answer_start"
        )
    return row["context"].find(row["answer"])  # -1, no occurrence: an answer with a wrong offset
