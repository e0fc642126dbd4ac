"""Reads questions with their contexts and answers: SQuAD 1.1 and 2.0 in every layout they come in.

Nested JSON (the official files), flat JSON (a list, or {"data": [...]}), JSON Lines, Parquet as on the Hub, and
CSV with one answer a row. All of them are streamed, article by article or row group by row group: memory does not grow with the
file.
"""

import codecs
import csv
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from config.errors import Refused

OFFICIAL = {"train": ("train-v1.1.json", "train-v2.0.json"), "val": ("dev-v1.1.json", "dev-v2.0.json")}
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz")
BLOCK = 1 << 20  # bytes read at a time
LINE = 1 << 20  # longest line that is looked at to tell JSON Lines from other JSON
_DECODER = json.JSONDecoder()
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        Refused: broken JSON, a missing key, a wrong type, a question without an answer where it must have
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
    with _reading(file) as stream:
        scan = _Scanner(stream, file)
        items = scan.lines() if _is_lines(scan, file) else scan.items()
        for number, (place, item) in enumerate(items, 1):
            if isinstance(item, dict) and "paragraphs" in item:
                yield from _article(item, f"{file}: article {number}", version_2)
            else:
                yield _flat(item, f"{file}: {place}", version_2)


def _is_lines(scan: "_Scanner", file: str) -> bool:
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
        raise Refused(f'{where}: "title" must be text, not {_kind(title)}')
    where = f"{where} ({title})" if title else where
    for p, paragraph in enumerate(_field(article, "paragraphs", list, where), 1):
        at = f"{where}, paragraph {p}"
        context = _clean(_field(paragraph, "context", str, at))
        for q, qa in enumerate(_field(paragraph, "qas", list, at), 1):
            yield _question(qa, f"{at}, question {q}", title, context, version_2, nested=True)


def _flat(item: Any, where: str, version_2: bool | None) -> Question:
    context = _clean(_field(item, "context", str, where))
    title = item.get("title") or ""
    return _question(item, where, title if isinstance(title, str) else str(title), context, version_2, nested=False)


def _question(qa: Any, where: str, title: str, context: str, version_2: bool | None, nested: bool) -> Question:
    identity = _clean(_field(qa, "id", str, where))
    where = f"{where} (id {identity})"
    question = _clean(_field(qa, "question", str, where))
    flagged = qa.get("is_impossible")
    if flagged is not None and not isinstance(flagged, bool):
        raise Refused(f'{where}: "is_impossible" must be true or false, not {_kind(flagged)}')
    # In 2.0 an unanswerable question may come without the key; its plausible_answers are no answers.
    answers = [] if flagged and qa.get("answers") is None else _answers(qa, where)
    if flagged and answers:
        raise Refused(f"{where}: is_impossible is true, and yet there are answers")
    if not answers:
        if version_2 is False:
            raise Refused(f"{where}: no answers; if questions may be unanswerable (SQuAD 2.0), set data.version_2=true")
        if version_2 is None and nested and not flagged:
            raise Refused(f'{where}: no answers; if it cannot be answered (SQuAD 2.0), say "is_impossible": true')
    return Question(identity, _clean(title), context, question, answers, where)


def _answers(qa: dict[str, Any], where: str) -> list[tuple[str, int]]:
    """Answers in either form: [{"text", "answer_start"}, ...] or {"text": [...], "answer_start": [...]}."""
    if isinstance(qa.get("answers"), dict):
        texts = _field(qa["answers"], "text", list, f'{where}, "answers"')
        starts = _field(qa["answers"], "answer_start", list, f'{where}, "answers"')
        if len(texts) != len(starts):
            raise Refused(f"{where}: {len(texts)} answer texts, but {len(starts)} answer_start")
        given: list[Any] = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    else:
        given = _field(qa, "answers", list, where)
    return [
        (
            _clean(_field(answer, "text", str, f"{where}, answer {number}")),
            _field(answer, "answer_start", int, f"{where}, answer {number}"),
        )
        for number, answer in enumerate(given, 1)
    ]


def _field(of: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(of, dict):
        raise Refused(f"{where}: expected an object with the key {key!r}, found {_kind(of)}")
    if key not in of:
        raise Refused(f"{where}: the key {key!r} is missing; found {', '.join(map(str, of)) or 'none'}")
    value = of[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Refused(f"{where}: {key!r} must be {_KINDS[kind]}, not {_kind(value)}")
    return value


_KINDS = {
    str: "text",
    int: "a whole number",
    list: "a list",
    dict: "an object",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _clean(text: str) -> str:
    # Half of a surrogate pair is no character, and no UTF-8. One for one, so that offsets stay.
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _parquet(file: str, version_2: bool | None) -> Iterator[Question]:
    import pyarrow
    import pyarrow.parquet

    with _reading(file, compression=None) as stream:
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            names = table.schema_arrow.names
            for key in ("id", "context", "question", "answers"):
                if key not in names:
                    raise Refused(f"{file}: the column {key!r} is missing; found {', '.join(names)}")
            row = 0
            columns = [name for name in ("id", "title", "context", "question", "answers") if name in names]
            for batch in table.iter_batches(batch_size=512, columns=columns):
                for item in batch.to_pylist():
                    row += 1
                    yield _flat(item, f"{file}: row {row}", version_2)
        except pyarrow.ArrowException as error:
            raise Refused(f"{file}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def _csv(file: str, version_2: bool | None) -> Iterator[Question]:
    """Rows of context, question and answer; id, title and answer_start may be missing."""
    csv.field_size_limit(2**31 - 1)  # else no context may have more than 131,072 characters
    with _reading(file) as stream:
        try:
            rows = csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), strict=True)
            for key in ("context", "question", "answer"):
                if key not in (rows.fieldnames or []):
                    raise Refused(
                        f"{file}: the column {key!r} is missing; found {', '.join(rows.fieldnames or []) or 'none'}"
                    )
            for number, row in enumerate(rows, 1):
                where = f"{file}: line {rows.line_num}"
                if None in row or None in row.values():
                    raise Refused(f"{where}: it has {'more' if None in row else 'fewer'} columns than the first line")
                answers = [] if not row["answer"] else [{"text": row["answer"], "answer_start": _start(row, where)}]
                flat = {
                    "id": row.get("id") or f"{PurePosixPath(file).stem}-{number}",
                    "title": row.get("title"),
                    "context": row["context"],
                    "question": row["question"],
                    "answers": answers,
                }
                yield _flat(flat, where, version_2)
        except csv.Error as error:
            raise Refused(f"{file}: not readable as CSV near line {rows.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise Refused(f"{file}: not UTF-8 text: {error.reason}") from error


def _start(row: dict[str, str], where: str) -> int:
    """Where a row's answer is: as it says, else where the context has it, if that is one place."""
    told = row.get("answer_start")
    if told:
        if not told.strip().isdecimal():
            raise Refused(f"{where}: 'answer_start' must be a whole number, not {told!r}")
        return int(told)
    count = row["context"].count(row["answer"])
    if count > 1:
        raise Refused(f"{where}: the context has the answer {count} times; say which with the column answer_start")
    return row["context"].find(row["answer"])  # -1, nowhere: a misplaced answer, as others are


@contextmanager
def _reading(file: str, compression: str | None = "infer") -> Iterator[IO[bytes]]:
    import fsspec

    try:
        with fsspec.open(file, "rb", compression=compression) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, ImportError) as error:
        raise Refused(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


class _Scanner:
    """Decodes a JSON text value by value, holding little more than the value at hand."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.stream, self.name = stream, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False
        # Of what was dropped: bytes and lines, and the length of its last line.
        self.bytes, self.line, self.column = 0, 1, 1

    def items(self) -> Iterator[tuple[str, Any]]:
        """The elements of the list that is the whole file, or that is its key "data"."""
        if self.peek() == "[":
            yield from self._list()
        else:
            found = False
            self._expect("{")
            while self.peek() != "}":
                key = self.value()
                self._expect(":")
                if key == "data" and self.peek() == "[":
                    found = True
                    yield from self._list()
                else:
                    self.value()
                if self.peek() != "}":
                    self._expect(",")
                    if self.peek() == "}":
                        raise self._broken("a comma before the end")
            self._expect("}")
            if not found:
                raise Refused(f'{self.name}: there is no list "data"; expected SQuAD\'s layout, a list, or JSON Lines')
        if self.peek():
            raise self._broken("text after the end")

    def lines(self) -> Iterator[tuple[str, Any]]:
        """The values of a file of JSON Lines."""
        while self.peek():
            place = f"line {self._position()[0]}"
            yield place, self.value()

    def _list(self) -> Iterator[tuple[str, Any]]:
        self._expect("[")
        number = 0
        while self.peek() != "]":
            number += 1
            yield f"item {number}", self.value()
            if self.peek() != "]":
                self._expect(",")
                if self.peek() == "]":
                    raise self._broken("a comma before the end")
        self._expect("]")

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.more()

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Cut off by the end of what was read so far, or wrong wherever it ends?
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if self.ended or not cut:
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply") from error
            else:
                # A number that ends where the text does may go on.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self.more()

    def _expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise self._broken(
                f"expected {character!r}, found {found!r}" if found else f"expected {character!r}, found the end"
            )
        self.at += 1

    def more(self) -> None:
        """Drops what is used up and reads on: twice as much each time, so that a large value costs no more
        than twice."""
        self.line, self.column = self._position()
        self.text, self.at = self.text[self.at :], 0
        block = self.stream.read(max(BLOCK, len(self.text)))
        try:
            self.text += self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise Refused(f"{self.name}: not UTF-8 text (near byte {self.bytes + error.start})") from error
        self.bytes += len(block)
        self.ended = not block

    def _position(self, at: int | None = None) -> tuple[int, int]:
        at = self.at if at is None else at
        newlines = self.text.count("\n", 0, at)
        return self.line + newlines, at - self.text.rfind("\n", 0, at) if newlines else self.column + at

    def _broken(self, reason: str, at: int | None = None) -> Refused:
        line, column = self._position(at)
        return Refused(f"{self.name}: broken JSON at line {line}, column {column}: {reason}")
