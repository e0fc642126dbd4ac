"""The table of facts of text classification: one row per text. Invalid texts are rows too, if they can be read."""

import re
import tempfile
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.text.records import Record
from datamodules.text_classification import TextClassificationData
from quality.hashes import hash64
from quality.tables import class_counts, connect, sql_string
from quality.text_statistics import ARTICLES, count_broken_characters, count_personal_data

FORMAT = 1  # part of the cache key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # position in the split
        ("id", pa.string()),
        ("text", pa.string()),  # null if it is not a string
        ("text_pair", pa.string()),  # second text of a pair; null without one
        ("label", pa.string()),  # id of the class; null without one
        ("problem", pa.string()),  # why training refuses the row; null if it does not
        ("length", pa.int32()),  # characters without surrounding white space
        ("pair_length", pa.int32()),  # null without a second text
        ("words", pa.int32()),  # of both texts
        ("broken_characters", pa.int32()),  # replacement and control characters: a wrong encoding
        ("known", pa.bool_()),  # whether training has the label; null without a label
        ("text_hash", pa.int64()),  # without case, punctuation and articles: equal for near duplicates
        ("example_hash", pa.int64()),  # of both texts, white space normalised
        ("emails", pa.int32()),  # likely ones, in both texts
        ("phones", pa.int32()),
        ("cards", pa.int32()),  # with a valid check digit
    ]
)
CATEGORIES = ("label",)
CAPTION = "text"
TEXTS = ("text", "text_pair", "problem")
ROWS = 2_048  # of one pyarrow table
_TOKEN = re.compile(r"[:;=]['^-]?[()\[\]dp|/\\]+|\w+|[^\w\s]")  # an emoticon, a word, or a single sign

counts = class_counts


def tables(data: TextClassificationData, split: str) -> Iterator[pa.Table]:
    """Yield the rows of a split, up to the limit of the data module.

    Raises:
        InputError: a file cannot be read as texts.
    """
    texts = enumerate(data.records(split))
    while rows := [_text_row(split, number, record) for number, record in islice(texts, ROWS)]:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def classes(data: TextClassificationData) -> list[dict[str, str]]:
    """Return the classes that the training files declare or contain."""
    return [{"id": name, "name": name} for name in data.survey("train").classes]


def finish(rows: Path, final: Path) -> None:
    """Write the final file, with the column `known`, which needs all rows."""
    with tempfile.TemporaryDirectory(dir=rows.parent) as spill, connect(rows, Path(spill)) as connection:
        known_label = "label in (select label from facts where split = 'train' and label is not null)"
        connection.execute(
            f"copy (select * replace ({known_label} as known) from facts) to {sql_string(str(final))} "
            "(format parquet, compression zstd)"
        )
    rows.unlink()


def _text_row(split: str, number: int, record: Record) -> dict[str, Any]:
    text, pair = record.text or "", record.pair or None
    parts = [text] if pair is None else [text, pair]
    emails, phones, cards = (sum(column) for column in zip(*map(count_personal_data, parts), strict=True))
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
        "broken_characters": sum(map(count_broken_characters, parts)),
        "text_hash": hash64("\0".join(map(_normalise, parts))),
        "example_hash": hash64("\0".join(" ".join(part.split()) for part in parts)),
        "emails": emails,
        "phones": phones,
        "cards": cards,
    }


def _normalise(text: str) -> str:
    """Remove case, punctuation, articles and extra white space; keep symbols and emoticons, which can carry the class."""
    tokens = _TOKEN.findall(text.casefold())
    return " ".join(token for token in tokens if token not in ARTICLES and not _is_punctuation(token)) or text


def _is_punctuation(token: str) -> bool:
    return len(token) == 1 and unicodedata.category(token).startswith("P")
