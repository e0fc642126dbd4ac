"""Reads questions with their contexts and answers: SQuAD 1.1 and 2.0 in every layout they come in.

Nested JSON (the official files), flat JSON (a list, or {"data": [...]}), JSON Lines, Parquet as on the Hub, and
CSV with one answer a row. All of them are streamed, article by article or row group by row group: memory does not grow with the
file.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from config.errors import InputError
from datamodules.text import reading
from datamodules.text.json_stream import Scanner

OFFICIAL = {"train": ("train-v1.1.json", "train-v2.0.json"), "val": ("dev-v1.1.json", "dev-v2.0.json")}
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz")
LINE = 1 << 20  # longest line that is looked at to tell JSON Lines from other JSON


class Question(NamedTuple):
    """One question about one context.

    Attributes:
        id: unique in its split.
        title: the article's title, or "".
        context: the paragraph.
        question: what is asked.
        answers: (text, first character in the context) of each gold answer; none if it cannot be answered.
        place: where it was read, for messages.
    """

    id: str
    title: str
    context: str
    question: str
    answers: list[tuple[str, int]]
    place: str


def official(version_2: bool | None) -> dict[str, tuple[str, ...]]:
    """The official file names by split, those of the wanted version first."""
    return {split: names[::-1] if version_2 else names for split, names in OFFICIAL.items()}


def read(files: Sequence[str], version_2: bool | None = None) -> Iterator[Question]:
    """Yields the questions of some files, in order.

    Args:
        files: local paths or fsspec URLs.
        version_2: whether a question may have no answer, as in SQuAD 2.0. None: as the file says
            (`is_impossible` in the nested layout; an empty list of answers in the flat ones).

    Raises:
        InputError: broken JSON, a missing key, a wrong type, a question without an answer where it must have
            one. The message names file and place.
    """
    for file in files:
        if file.endswith(".parquet"):
            yield from _parquet(file, version_2)
        elif file.endswith((".csv", ".csv.gz")):
            yield from _csv(file, version_2)
        else:
            yield from _json(file, version_2)


def _json(file: str, version_2: bool | None) -> Iterator[Question]:
    with reading.opened(file) as stream:
        scan = Scanner(stream, file)
        items = scan.lines() if _is_lines(scan, file) else scan.items()
        for number, (place, item) in enumerate(items, 1):
            if isinstance(item, dict) and "paragraphs" in item:
                yield from _article(item, f"{file}: article {number}", version_2)
            else:
                yield _flat(item, f"{file}: {place}", version_2)


def _is_lines(scan: Scanner, file: str) -> bool:
    """JSON Lines by their name, or by a first line that is an object of its own."""
    if re.search(r"\.(jsonl|ndjson)(\.gz)?$", file):
        return True
    scan.peek()
    while "\n" not in scan.text[scan.at :] and not scan.ended and len(scan.text) < LINE:
        scan.more()
    line, newline, _ = scan.text[scan.at :].partition("\n")
    if not line.startswith("{") or not (newline or scan.ended):
        return False
    try:
        first = json.loads(line)
    except ValueError:
        return False
    return "data" not in first and "question" in first


def _article(article: dict[str, Any], where: str, version_2: bool | None) -> Iterator[Question]:
    title = article.get("title") or ""
    if not isinstance(title, str):
        raise InputError(f'{where}: "title" must be text, not {reading.type_name(title)}')
    where = f"{where} ({title})" if title else where
    for p, paragraph in enumerate(_field(article, "paragraphs", list, where), 1):
        at = f"{where}, paragraph {p}"
        context = reading.clean(_field(paragraph, "context", str, at))
        for q, qa in enumerate(_field(paragraph, "qas", list, at), 1):
            yield _question(qa, f"{at}, question {q}", title, context, version_2, nested=True)


def _flat(item: Any, where: str, version_2: bool | None) -> Question:
    context = reading.clean(_field(item, "context", str, where))
    title = item.get("title") or ""
    return _question(item, where, title if isinstance(title, str) else str(title), context, version_2, nested=False)


def _question(qa: Any, where: str, title: str, context: str, version_2: bool | None, nested: bool) -> Question:
    identity = reading.clean(_field(qa, "id", str, where))
    where = f"{where} (id {identity})"
    question = reading.clean(_field(qa, "question", str, where))
    flagged = qa.get("is_impossible")
    if flagged is not None and not isinstance(flagged, bool):
        raise InputError(f'{where}: "is_impossible" must be true or false, not {reading.type_name(flagged)}')
    # In 2.0 an unanswerable question may come without the key; its plausible_answers are no answers.
    answers = [] if flagged and qa.get("answers") is None else _answers(qa, where)
    if flagged and answers:
        raise InputError(f"{where}: is_impossible is true, and yet there are answers")
    if not answers:
        if version_2 is False:
            raise InputError(
                f"{where}: no answers; if questions may be unanswerable (SQuAD 2.0), set data.version_2=true"
            )
        if version_2 is None and nested and not flagged:
            raise InputError(f'{where}: no answers; if it cannot be answered (SQuAD 2.0), say "is_impossible": true')
    return Question(identity, reading.clean(title), context, question, answers, where)


def _answers(qa: dict[str, Any], where: str) -> list[tuple[str, int]]:
    """Answers in either form: [{"text", "answer_start"}, ...] or {"text": [...], "answer_start": [...]}."""
    if isinstance(qa.get("answers"), dict):
        texts = _field(qa["answers"], "text", list, f'{where}, "answers"')
        starts = _field(qa["answers"], "answer_start", list, f'{where}, "answers"')
        if len(texts) != len(starts):
            raise InputError(f"{where}: {len(texts)} answer texts, but {len(starts)} answer_start")
        given: list[Any] = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    else:
        given = _field(qa, "answers", list, where)
    return [
        (
            reading.clean(_field(answer, "text", str, f"{where}, answer {number}")),
            _field(answer, "answer_start", int, f"{where}, answer {number}"),
        )
        for number, answer in enumerate(given, 1)
    ]


def _field(of: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(of, dict):
        raise InputError(f"{where}: expected an object with the key {key!r}, found {reading.type_name(of)}")
    if key not in of:
        raise InputError(f"{where}: the key {key!r} is missing; found {', '.join(map(str, of)) or 'none'}")
    value = of[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key!r} must be {reading.TYPE_NAMES[kind]}, not {reading.type_name(value)}")
    return value


def _parquet(file: str, version_2: bool | None) -> Iterator[Question]:
    names = ("id", "title", "context", "question", "answers")
    for place, row in reading.parquet_rows(file, names, optional=("title",)):
        yield _flat(row, place, version_2)


def _csv(file: str, version_2: bool | None) -> Iterator[Question]:
    """Rows of context, question and answer; id, title and answer_start may be missing."""
    for number, (place, row) in enumerate(reading.csv_rows(file, ("context", "question", "answer")), 1):
        answers = [] if not row["answer"] else [{"text": row["answer"], "answer_start": _start(row, place)}]
        flat = {
            "id": row.get("id") or f"{PurePosixPath(file).stem}-{number}",
            "title": row.get("title"),
            "context": row["context"],
            "question": row["question"],
            "answers": answers,
        }
        yield _flat(flat, place, version_2)


def _start(row: dict[str, str], where: str) -> int:
    """Where a row's answer is: as it says, else where the context has it, if that is one place."""
    told = row.get("answer_start")
    if told:
        if not told.strip().isdecimal():
            raise InputError(f"{where}: 'answer_start' must be a whole number, not {told!r}")
        return int(told)
    count = row["context"].count(row["answer"])
    if count > 1:
        raise InputError(f"{where}: the context has the answer {count} times; say which with the column answer_start")
    return row["context"].find(row["answer"])  # -1, nowhere: a misplaced answer, as others are
