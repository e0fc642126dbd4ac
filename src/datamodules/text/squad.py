"""Reader of questions with contexts and answers: SQuAD 1.1 and 2.0 in all their layouts, and tables.

Nested JSON (the official files), flat JSON (a list, or {"data": [...]}), JSON Lines, Parquet as on the Hub, CSV and TSV.
All are streamed, article by article or row group by row group, in memory independent of the file's size.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from config.errors import InputError
from config.parsing import parse_json
from datamodules.sources.files import open_file, open_parquet
from datamodules.text import question_rows, reading
from datamodules.text.json_stream import Scanner
from datamodules.text.question_rows import Columns, Identities, Question, field
from datamodules.text.reading import replace_surrogates

OFFICIAL_NAMES = {"train": ("train-v1.1.json", "train-v2.0.json"), "val": ("dev-v1.1.json", "dev-v2.0.json")}
PLAIN_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
SUFFIXES = (*PLAIN_SUFFIXES, ".parquet", *(f"{suffix}.gz" for suffix in PLAIN_SUFFIXES))
MAX_LINE = 1 << 20  # characters of the first line that are inspected to tell JSON Lines from other JSON


def official_names(version_2: bool | None) -> dict[str, tuple[str, ...]]:
    """Return the official file names by split, those of the requested version first."""
    return {split: names[::-1] if version_2 else names for split, names in OFFICIAL_NAMES.items()}


def read(
    files: Sequence[str],
    version_2: bool | None = None,
    columns: Columns | None = None,
    answered: bool = True,
    group: str | None = None,
) -> Iterator[Question]:
    """Yield the questions of some files, in order.

    Args:
        files: local paths or fsspec URLs.
        version_2: whether a question may have no answer, as in SQuAD 2.0. None: as the file indicates
            (`is_impossible` in the nested layout; an empty list of answers in the flat ones).
        columns: names of the columns of tables; the nested layout has SQuAD's names.
        answered: whether answers are read; questions to predict need none.
        group: column of tables, or key of articles, whose values become `Question.group`; of articles also "context".

    Raises:
        InputError: broken JSON, a missing key, an invalid type, or a question without an answer that must have one. The
            message names the location in the file.
    """
    reader = _Reader(version_2, columns or Columns(), answered, group)
    for file in files:
        if file.endswith(".parquet"):
            yield from reader.parquet(file)
        elif reading.TABLE.search(file):
            yield from reader.table(file)
        else:
            yield from reader.json(file)


class _Reader:
    """Reader of the files of a split; see `read`."""

    def __init__(self, version_2: bool | None, columns: Columns, answered: bool, group: str | None) -> None:
        self.version_2, self.columns, self.answered, self.group = version_2, columns, answered, group
        self.identities = Identities()

    def json(self, file: str) -> Iterator[Question]:
        with open_file(file) as stream:
            scanner = Scanner(stream, file)
            items = scanner.lines() if _is_json_lines(scanner, file, self.columns.question) else scanner.items()
            for number, (location, item) in enumerate(items, 1):
                if isinstance(item, dict) and "paragraphs" in item:
                    yield from self._article(item, f"{file}: article {number}")
                    continue
                if number == 1 and isinstance(item, dict):
                    # The configuration has a wrong name of a column; in a later row, the row is defective.
                    question_rows.check_names(item, self.columns, f"{file}: {location}", self.answered)
                yield self._flat(item, f"{file}: {location}")

    def parquet(self, file: str) -> Iterator[Question]:
        columns = self.columns
        with open_parquet(file) as table:
            question_rows.check_names(table.schema_arrow.names, columns, file, self.answered)
        requested = [*dict.fromkeys([columns.id, columns.title, columns.context, columns.question])]
        if self.answered:
            requested += [columns.answers, columns.answer, columns.answer_start]
        requested += [self.group] if self.group else []
        for location, row in reading.parquet_rows(file, requested, (), columns):
            yield self._flat(row, location)

    def table(self, file: str) -> Iterator[Question]:
        columns = self.columns
        required = columns.named if self.answered else [columns.context, columns.question]
        for number, (location, row) in enumerate(reading.csv_rows(file, required, columns)):
            if number == 0:
                question_rows.check_names(row, columns, file, self.answered)
            row.pop("is_impossible", None)  # as text; an empty answer says the same
            yield self._flat(row, location)

    def _article(self, article: dict[str, Any], location: str) -> Iterator[Question]:
        title = article.get("title") or ""
        if not isinstance(title, str):
            raise InputError(f'{location}: "title" must be text, not {reading.type_name(title)}')
        location = f"{location} ({title})" if title else location
        group = self._article_group(article, location)
        for p, paragraph in enumerate(field(article, "paragraphs", list, location), 1):
            paragraph_location = f"{location}, paragraph {p}"
            context = replace_surrogates(field(paragraph, "context", str, paragraph_location))
            for q, qa in enumerate(field(paragraph, "qas", list, paragraph_location), 1):
                identity = replace_surrogates(str(field(qa, "id", (str, int), f"{paragraph_location}, question {q}")))
                question_location = f"{paragraph_location}, question {q} (id {identity})"
                question = self._question(qa, question_location, identity, title, context, Columns(), nested=True)
                yield question if self.group is None else question._replace(group=context if group is None else group)

    def _article_group(self, article: dict[str, Any], location: str) -> str | None:
        """The value of `data.group`, a key of the article; None if questions are grouped by their contexts."""
        if self.group in (None, Columns.context):
            return None
        value = article.get(self.group)
        if not isinstance(value, str | int):
            keys = [key for key, other in article.items() if isinstance(other, str | int)]
            raise InputError(
                f"{location}: the article has no key {self.group!r} (data.group) with a text or a number; possible are "
                f"{', '.join(map(repr, [*keys, Columns.context]))}"
            )
        return str(value)

    def _flat(self, row: Any, location: str) -> Question:
        columns = self.columns
        if not isinstance(row, dict) or columns.context not in row:
            question_rows.check_row(row, columns, location, self.answered)
        context = replace_surrogates(field(row, columns.context, str, location))
        identity = question_rows.read_identity(row, columns, location)
        location = location if identity is None else f"{location} (id {identity})"
        question_rows.check_row(row, columns, location, self.answered)
        if identity is None:
            identity = self.identities.make(replace_surrogates(field(row, columns.question, str, location)), context)
        title = str(row.get(columns.title) or "")
        question = self._question(row, location, identity, title, context, columns, nested=False)
        if self.group is None:
            return question
        if self.group not in row:
            raise InputError(f"{location}: the column data.group={self.group} is missing; found {', '.join(row)}")
        return question._replace(group=str(row[self.group]))

    def _question(
        self, qa: Any, location: str, identity: str, title: str, context: str, columns: Columns, nested: bool
    ) -> Question:
        question = replace_surrogates(field(qa, columns.question, str, location))
        title = replace_surrogates(title)
        if not self.answered:
            return Question(identity, title, context, question, [], location)
        impossible = qa.get("is_impossible")
        if impossible is not None and not isinstance(impossible, bool):
            raise InputError(f'{location}: "is_impossible" must be true or false, not {reading.type_name(impossible)}')
        # In 2.0 an unanswerable question may lack the key; its plausible_answers do not count.
        if nested and not isinstance(qa.get("answers"), dict) and not (impossible and qa.get("answers") is None):
            field(qa, "answers", list, location)
        answers, repeated = question_rows.read_answers(qa, columns, context, location)
        if impossible and answers:
            raise InputError(f"{location}: is_impossible is true, but the question has answers")
        if not answers:
            if self.version_2 is False:
                raise InputError(
                    f"{location}: no answers; if questions may be unanswerable (SQuAD 2.0), set data.version_2=true"
                )
            if self.version_2 is None and nested and not impossible:
                raise InputError(
                    f'{location}: no answers; if it is unanswerable (SQuAD 2.0), add "is_impossible": true'
                )
        return Question(identity, title, context, question, answers, location, repeated)


def _is_json_lines(scanner: Scanner, file: str, question: str) -> bool:
    """Recognise JSON Lines by the file's name, or by a first line that is a complete object with a question."""
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
    return "data" not in first and question in first
