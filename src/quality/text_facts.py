"""The table of facts of text classification: one row for each text, read as leniently as can be."""

import re
import tempfile
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.text import records
from datamodules.text.records import Record
from datamodules.text_classification import TextClassificationData
from quality import text_statistics
from quality.hashes import hash64
from quality.tables import class_counts, connect, sql_string

FORMAT = 1  # part of the cache's key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # its position in the split
        ("id", pa.string()),
        ("text", pa.string()),  # null if it is none
        ("text_pair", pa.string()),  # a second text that belongs to it; null if there is none
        ("label", pa.string()),  # id of its class; null if it has none
        ("problem", pa.string()),  # why training could not take the row as it is; null if nothing is wrong
        ("length", pa.int32()),  # characters, blanks at the ends not counted: only they are nothing to read
        ("pair_length", pa.int32()),  # null without a second text
        ("words", pa.int32()),  # of both texts
        ("broken_characters", pa.int32()),  # replacement and control characters: text decoded wrongly
        ("known", pa.bool_()),  # its label is one of training; null without a label
        ("text_hash", pa.int64()),  # without case, punctuation and articles: near duplicates have the same
        ("example_hash", pa.int64()),  # of both texts as they are, but for white space
        ("emails", pa.int32()),  # what looks like one, in both texts
        ("phones", pa.int32()),
        ("cards", pa.int32()),  # with a right check digit
    ]
)
CATEGORIES = ("label",)
SAID = "text"
TEXTS = ("text", "text_pair", "problem")
ROWS = 2_048  # written at a time
_TOKEN = re.compile(r"[:;=]['^-]?[()\[\]dp|/\\]+|\w+|[^\w\s]")  # an emoticon, a word, or a single sign
_ARTICLES = frozenset(("a", "an", "the"))
_BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

counts = class_counts


def tables(data: TextClassificationData, split: str) -> Iterator[pa.Table]:
    """The rows of a split, as many as its limit lets a model see.

    Raises:
        InputError: files that cannot be read as texts at all.
    """
    found = enumerate(records.read(data.files(split), data.columns, data.limit(split)))
    while rows := [_row(split, number, record) for number, record in islice(found, ROWS)]:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def classes(data: TextClassificationData) -> list[dict[str, str]]:
    """The classes that the training files declare, and those that they have."""
    return [{"id": name, "name": name} for name in records.survey(data.files("train"), data.columns).classes]


def finish(rows: Path, final: Path) -> None:
    """Writes the rows again, with whether training has their label: that is known when all have been read."""
    with tempfile.TemporaryDirectory(dir=rows.parent) as spill:
        connection = connect(rows, Path(spill))
        known = "label in (select label from facts where split = 'train' and label is not null)"
        connection.execute(
            f"copy (select * replace ({known} as known) from facts) to {sql_string(str(final))} "
            "(format parquet, compression zstd)"
        )
        connection.close()
    rows.unlink()


def _row(split: str, number: int, record: Record) -> dict[str, Any]:
    text, pair = record.text or "", record.pair or None
    parts = [text] if pair is None else [text, pair]
    emails, phones, cards = (
        sum(column) for column in zip(*map(text_statistics.count_personal_data, parts), strict=True)
    )
    return {
        "split": split,
        "number": number,
        "id": record.id,
        "text": record.text,
        "text_pair": pair,
        "label": record.label,
        "problem": record.problem or None,
        "length": len(text.strip()),
        "pair_length": None if pair is None else len(pair.strip()),
        "words": sum(len(part.split()) for part in parts),
        "broken_characters": sum(len(_BROKEN.findall(part)) for part in parts),
        "text_hash": hash64("\0".join(map(_normalised, parts))),
        "example_hash": hash64("\0".join(" ".join(part.split()) for part in parts)),
        "emails": emails,
        "phones": phones,
        "cards": cards,
    }


def _normalised(text: str) -> str:
    """A text without case, punctuation, articles and the width of its blanks; symbols and emoticons stay, for they can decide."""
    tokens = _TOKEN.findall(text.casefold())
    return " ".join(token for token in tokens if token not in _ARTICLES and not _is_punctuation(token)) or text


def _is_punctuation(token: str) -> bool:
    return len(token) == 1 and unicodedata.category(token).startswith("P")
