"""The data of text classification: files of every layout, caches, batches, and what is refused."""

import gzip
import json
import logging
import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import forked

from config.errors import InputError
from datamodules.samples import topics
from datamodules.text import columns, labelled_texts, records
from datamodules.text.encoding import EncodedTexts
from datamodules.text.records import Columns, Record
from datamodules.text_classification import TextClassificationData

SRC = str(Path(labelled_texts.__file__).resolve().parents[2])
ROWS = [
    ("a", "The fox runs.", "yes"),
    ("b", "A dog, and\na cat.", "no"),
    ("c", "Grün ist der Wald \u2013 immer.", "yes"),
    ("d", "The cat sleeps all day long.", "no"),
]


def write_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_table(path: Path, columns: dict[str, list[Any]], names: list[str] | None = None) -> Path:
    """A Parquet file; `names` of the classes are declared as the Hub's files do."""
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def rows(count: int, classes: Sequence[Any] = ("x", "y"), first: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"text number {number} about {'many ' * (number % 40)}things", "label": classes[number % len(classes)]}
        for number in range(first, first + count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "texts"
    made.mkdir()
    write_json_lines(made / "train.jsonl", rows(100))
    write_json_lines(made / "val.jsonl", rows(37, first=100))
    return made


def module(path: Path | None, root: Path, **settings: Any) -> TextClassificationData:
    settings = {"vocab_size": 200, "cache_dir": str(root), "batch_size": 8, "eval_batch_size": 16, **settings}
    return TextClassificationData(path=None if path is None else str(path), **settings)


def ready(path: Path | None, root: Path, **settings: Any) -> TextClassificationData:
    data = module(path, root, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def encode(data: TextClassificationData, texts: Sequence[Any]) -> EncodedTexts:
    return EncodedTexts.of_records(data.prepared_tokenizer, texts, data.max_length)


def read(path: Path, columns: Columns | None = None, **options: Any) -> list[Record]:
    return list(records.read([str(path)], columns or Columns(), **options))


# -- reading


def test_every_layout_gives_the_same_records(tmp_path: Path) -> None:
    objects = [dict(zip(("id", "text", "label"), row, strict=True)) for row in ROWS]
    lines = write_json_lines(tmp_path / "a.jsonl", objects)
    table = write_table(tmp_path / "a.parquet", {key: [row[key] for row in objects] for key in ("id", "text", "label")})
    cells = "".join(f'{row["label"]},"{row["text"]}",{row["id"]},more\n' for row in objects)
    (tmp_path / "a.csv").write_text(f"label,text,id,other\n{cells}", encoding="utf-8-sig")
    found = {"jsonl": read(lines), "parquet": read(table), "csv": read(tmp_path / "a.csv")}
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        found[f"{name}.gz"] = read(tmp_path / f"{name}.gz")
    for layout, known in found.items():
        assert [(record.id, record.text, record.label) for record in known] == ROWS, layout
        assert not any(record.problem or record.pair for record in known)
    assert [record.location.rpartition("/")[2] for record in found["csv"]] == [
        "a.csv: line 2", "a.csv: line 4", "a.csv: line 5", "a.csv: line 6",
    ]  # fmt: skip
    assert found["jsonl"][3].location.endswith("a.jsonl: line 4")
    assert found["parquet"][3].location.endswith("a.parquet: row 4")


def test_columns_are_named_by_configuration_and_ids_are_file_and_row_where_there_are_none(tmp_path: Path) -> None:
    made = [{"body": "One.", "answer": "Two.", "topic": 1, "key": 7}, {"body": "Three.", "answer": None, "topic": 0}]
    path = write_json_lines(tmp_path / "train-00000-of-00001.jsonl", made)
    named = columns.parse(Columns, {"text": "body", "text_pair": "answer", "label": "topic"})
    first, second = read(path, named)
    assert (first.id, first.text, first.pair, first.label) == ("train-00000/0", "One.", "Two.", "1")
    assert (second.id, second.pair, second.problem) == ("train-00000/1", "", "")
    first, second = read(path, columns.parse(Columns, {"text": "body", "label": "topic", "id": "key"}))
    assert (first.id, second.problem) == ("7", "the id ('key') must be text or a whole number, not null")
    with pytest.raises(InputError, match=r"data\.columns has no key lable; valid keys: text, text_pair, label, id"):
        columns.parse(Columns, {"lable": "topic"})
    with pytest.raises(InputError, match=r"data\.columns\.text=null: must be text$"):
        columns.parse(Columns, {"text": None})


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 2, 10], ["2", "10"]),
        ([True, False, True], ["false", "true"]),
        (["10", "2", "a"], ["2", "10", "a"]),
        ([-1, 1, 0], ["0", "1", "-1"]),
    ],
)
def test_classes_come_in_a_fixed_order(tmp_path: Path, labels: list[Any], classes: list[str]) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"text": "t", "label": label} for label in labels])
    listing = records.survey([str(path)], Columns())
    assert listing.classes == classes
    assert [classes[label] for label in listing.labels] == [
        str(label).lower() if isinstance(label, bool) else str(label) for label in labels
    ]


def test_declared_classes_keep_their_order_and_numbers(tmp_path: Path) -> None:
    names = ["neg", "pos", "neutral"]
    path = write_table(tmp_path / "train.parquet", {"text": ["a", "b", "c"], "label": [1, 0, -1]}, names)
    listing = records.survey([str(path)], Columns())
    assert (listing.classes, listing.declared, listing.present) == (names, True, ["neg", "pos"])
    found = read(path)
    assert [record.label for record in found] == ["pos", "neg", None]
    assert found[2].problem == "the label -1 is out of range (0 to 2)"


def test_the_reader_gives_what_is_there_whatever_is_wrong(tmp_path: Path) -> None:
    made = [
        {"text": "good", "label": "x"},
        {"text": "no label", "label": None},
        {"text": "", "label": "x"},
        {"label": "x"},
        {"text": 5, "label": "x"},
        {"text": "a list", "label": [1]},
        {"text": "half \ud800 a character", "label": 1.5},
    ]
    found = read(write_json_lines(tmp_path / "a.jsonl", made))
    assert [(record.text, record.label, record.problem) for record in found] == [
        ("good", "x", ""),
        ("no label", None, "it has no label"),
        ("", "x", ""),
        (None, "x", "the key 'text' is missing; found label"),
        (None, "x", "'text' must be text, not a whole number"),
        ("a list", None, "the label must be text, a whole number, or true or false, not a list"),
        ("half \ufffd a character", None, "the label must be text, a whole number, or true or false, not a number"),
    ]


def test_texts_to_predict_need_no_labels(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"text": "one", "id": 5}, {"text": "two", "id": 6}])
    assert [(record.id, record.text, record.problem) for record in read(path, labelled=False)] == [
        ("5", "one", ""),
        ("6", "two", ""),
    ]


# -- what is refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "body,label\na,b\n", r"train\.csv: the column 'text' is missing; found body, label"),
        ("train.csv", "", r"train\.csv: the column 'label' is missing; found none"),
        ("train.csv", "text,label\n", r"train\.csv: there are no texts"),
        ("train.csv", "text,label\na,b\nc\n", r"train\.csv: line 3: fewer columns"),
        ("train.csv", "text,label\na,b\nc,\n", r"train\.csv: line 3: it has no label"),
        (
            "train.csv",
            "id,text,label\n1,a,b\n1,c,d\n",
            r"the id '1' occurs twice, at texts 1 and 2; .*data\.columns\.id",
        ),
        ("train.csv", "text,label\na,b\nc,b\n", r"only one class \(b\); classification needs at least two"),
        ("train.jsonl", "", r"train\.jsonl: there are no texts"),
        ("train.jsonl", '{"text": "a"}\n', r"train\.jsonl: the column 'label' is missing; found text"),
        ("train.jsonl", '{"text": "a", "label": 1}\n{"label": 0}\n', r"line 2: the key 'text' is missing; found label"),
        ("train.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', r"train\.jsonl: line 2: it has no label"),
        ("train.jsonl", '{"text": "a", "label": 1}\n{"text": 3\n', r"train\.jsonl: broken JSON at line 3"),
        ("train.jsonl", '["a", 1]\n', r"line 1: expected an object with 'label', found a list"),
        ("train.parquet", "not a table", r"train\.parquet: not a readable Parquet file"),
    ],
)
def test_wrong_files_are_refused_with_their_place(
    folder: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (folder / "train.jsonl").unlink()
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        module(folder, tmp_path / "cache").prepare_data()


def test_missing_files_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("x")
    with pytest.raises(InputError, match=r"no file for the train split; .*\.csv, \.tsv, .*found train\.txt"):
        module(tmp_path, tmp_path / "cache").prepare_data()
    with pytest.raises(InputError, match=r"train\.txt: not a supported file of texts; its name must end with \.csv"):
        module(tmp_path, tmp_path / "cache", train_file="train.txt", val_file="train.txt").prepare_data()
    with pytest.raises(InputError, match=r"no data: .*choose data=topics_sample"):
        module(None, tmp_path / "cache").prepare_data()
    with pytest.raises(InputError, match=r"data\.sample has no key sed; valid keys: seed, train, val, classes"):
        module(None, tmp_path / "cache", sample={"sed": 1}).prepare_data()


def test_a_class_unknown_in_training_can_be_read_but_not_prepared(folder: Path, tmp_path: Path) -> None:
    write_json_lines(folder / "val.jsonl", rows(6, classes=("x", "z")))
    assert Counter(record.label for record in read(folder / "val.jsonl")) == {"x": 3, "z": 3}
    with pytest.raises(InputError, match="the validation split has texts of z, of which the training split has none"):
        module(folder, tmp_path / "cache").prepare_data()


def test_classes_that_a_split_lacks_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a", "b", "c"]
    write_table(tmp_path / "train.parquet", {"text": ["s", "t"], "label": [0, 1]}, names)
    write_table(tmp_path / "val.parquet", {"text": ["u"], "label": [0]}, names)
    with caplog.at_level(logging.WARNING):
        data = ready(tmp_path, tmp_path / "cache", batch_size=2)
    assert [entry["id"] for entry in data.classes] == names
    assert [record.getMessage() for record in caplog.records] == [
        "no training texts of c",
        "no validation texts of b, c",
    ]


def test_a_length_that_leaves_no_room_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.max_length=3 leaves no room for a text beside 3 special tokens"):
        module(folder, tmp_path / "cache", max_length=3).prepare_data()


# -- prepared


def test_batches_are_what_the_tokenizer_makes_of_the_texts(folder: Path, tmp_path: Path) -> None:
    data = ready(folder, tmp_path / "cache")
    tokenizer, texts = data.tokenizer(), data.texts("val")
    seen = []
    for batch in data.val_dataloader():
        assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "index"}
        assert {str(tensor.dtype) for tensor in batch.values()} == {"torch.int64"}
        width = batch["input_ids"].shape[1]
        assert width % 16 == 0 or width == data.val.longest
        for row, index in enumerate(batch["index"].tolist()):
            expected = tokenizer(texts.text(index), padding="max_length", max_length=width)
            assert batch["input_ids"][row].tolist() == expected["input_ids"]
            assert batch["attention_mask"][row].tolist() == expected["attention_mask"]
            assert batch["labels"][row] == texts.label(index) == texts.labels[index] == (index + 100) % 2
            seen.append(index)
    assert sorted(seen) == list(range(37))
    assert [texts.id(0), data.names[36], len(data.names)] == ["val/0", "val/36", 37]
    first = [batch["index"].tolist() for batch in data.train_dataloader()]
    assert len(first) == 100 // 8
    data.train_batches.set_epoch(1)
    assert first != [batch["index"].tolist() for batch in data.train_dataloader()]
    assert data.train.labels is not None
    assert data.train.labels.dtype == np.int64


def test_workers_make_the_same_batches(folder: Path, tmp_path: Path) -> None:
    data = ready(folder, tmp_path / "cache")
    again = pickle.loads(pickle.dumps(data.val))
    chosen = [3, 30, 7]
    for name, array in data.val.batch(chosen).items():
        assert np.array_equal(again.batch(chosen)[name], array)
    memory = encode(data, ["a", "b"])
    assert (
        pickle.loads(pickle.dumps(memory)).batch([1])["input_ids"].tolist() == memory.batch([1])["input_ids"].tolist()
    )


def test_long_texts_are_cut_as_transformers_cuts_them(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = ready(folder, tmp_path / "cache", max_length=24)
    tokenizer, texts = data.tokenizer(), data.texts("val")
    whole = [len(tokenizer(texts.text(index))["input_ids"]) for index in range(37)]
    cut = sum(length > 24 for length in whole)
    assert 0 < cut < 37
    assert data.val.counts["cut_texts"] == data.describe()["val"]["cut_texts"] == cut
    assert f"val: {cut} of 37 texts are longer than data.max_length=24 tokens and are truncated" in caplog.text
    for index in range(37):
        tokens = data.val.tokens[data.val.offsets[index] : data.val.offsets[index + 1]].tolist()
        assert tokens == tokenizer(texts.text(index), truncation=True, max_length=24)["input_ids"]


def test_pairs_are_encoded_as_pairs_in_files_and_in_memory(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("val", 5)):
        made = [
            {"text": f"one {number}", "second": f"{'two ' * number}", "label": number % 2} for number in range(count)
        ]
        write_json_lines(tmp_path / f"{split}.jsonl", made)
    data = ready(tmp_path, tmp_path / "cache", columns={"text_pair": "second"}, max_length=16)
    texts, tokenizer = data.texts("val"), data.tokenizer()
    assert [texts.pair(index) for index in (0, 2)] == ["", "two two "]
    pairs = [(texts.text(index), texts.pair(index)) for index in range(5)] + [("long " * 30, "longer " * 30)]
    encoded = encode(data, pairs)
    assert encoded.labels is None
    assert encoded.counts["cut_texts"] == 1
    batch, prepared = encoded.batch(range(6)), data.val.batch(range(5))
    assert "labels" not in batch
    for index, (text, pair) in enumerate(pairs):
        expected = tokenizer(*((text, pair) if pair else (text,)), truncation=True, max_length=16)
        length = len(expected["input_ids"])
        assert batch["input_ids"][index, :length].tolist() == expected["input_ids"]
        assert batch["token_type_ids"][index, :length].tolist() == expected["token_type_ids"]
        assert batch["attention_mask"][index].sum() == length
        if index < 5:
            assert prepared["token_type_ids"][index, :length].tolist() == expected["token_type_ids"]
    assert encode(data, ["plain text"]).batch([0])["input_ids"][0].tolist() == tokenizer("plain text")["input_ids"]


@pytest.mark.parametrize("limit", [1, 5, 6, 50])
def test_limits_are_even_over_the_classes(tmp_path: Path, limit: int) -> None:
    ordered = [{"text": f"text {number}", "label": "abc"[number // 10]} for number in range(30)]  # by class, as IMDB is
    path = write_json_lines(tmp_path / "train.jsonl", ordered)
    write_json_lines(tmp_path / "val.jsonl", ordered)
    data = ready(tmp_path, tmp_path / "cache", max_train=limit, batch_size=1)
    texts = data.texts("train")
    counts = Counter(texts.labels.tolist())
    assert len(texts) == min(limit, 30)
    assert max(counts.values()) - min(counts.values(), default=0) <= 1
    assert data.num_classes == 3
    assert [record.text for record in read(path, limit=limit)] == [texts.text(index) for index in range(len(texts))]
    assert data.fingerprint("train").endswith(f":balanced-{limit}")
    assert (data.limit("train"), data.limit("val")) == (limit, None)


# -- caches and fingerprints


def test_a_second_run_reads_nothing(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        first = ready(folder, tmp_path / "cache")
        assert caplog.text.count("reading") == 2
        caplog.clear()
        second = ready(folder, tmp_path / "cache")
    assert "reading" not in caplog.text
    assert first.describe() == second.describe()
    assert first.folder("val") == second.folder("val")


def test_fingerprints_follow_content_columns_and_limits(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    plain = module(folder, root).fingerprints
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert module(moved, root).fingerprints == plain
    assert module(moved, root, max_length=77, seed=3, columns={"text": "text"}).fingerprints == plain
    assert module(moved, root, max_val=5).fingerprints == {**plain, "val": f"{plain['val']}:balanced-5"}
    other = module(moved, root, columns={"label": "topic"}, max_val=5).fingerprints
    assert other["val"] == f"{plain['val']}:columns-text-None-topic-None:balanced-5"
    write_json_lines(moved / "val.jsonl", rows(37, first=101))
    changed = module(moved, root, verify="full").fingerprints
    assert changed["train"] == plain["train"]
    assert changed["val"] != plain["val"]


def test_the_hub_is_read_by_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from config.compose import compose

    for name, names in (("imdb", ["neg", "pos"]), ("ag_news", ["World", "Sports", "Business", "Sci/Tech"])):
        config = compose([f"data={name}", "model=majority"])
        assert config.task.name == "text_classification"
        hub = dict(config.data.hub)
        columns = {
            "text": [f"text {number}" for number in range(8)],
            "label": [number % len(names) for number in range(8)],
        }
        served = str(write_table(tmp_path / f"{name}.parquet", columns, names))
        monkeypatch.setattr("datamodules.sources.hub.download", lambda _, __, ___, served=served: [served])
        data = ready(None, tmp_path / "cache", hub=hub)
        assert [entry["id"] for entry in data.classes] == names
        assert data.fingerprints["val"] == f"{hub['repo']}@{hub['revision']}:{hub['val']}"
        assert data.origin == hub["repo"]
        assert data.expected("val") is None


TWO = """
import json, logging, sys
from datamodules.text_classification import TextClassificationData
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
data = TextClassificationData(path=sys.argv[1], cache_dir=sys.argv[2], vocab_size=200)
data.prepare_data()
data.setup()
print(json.dumps(data.describe()))
"""


def test_two_processes_prepare_once(folder: Path, tmp_path: Path, warm: Path) -> None:
    write_json_lines(folder / "train.jsonl", rows(4000))
    (tmp_path / "two.py").write_text(TWO)
    command = [str(tmp_path / "two.py"), str(folder), str(tmp_path / "cache")]
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(lambda _: forked(warm, command, tmp_path, {**os.environ, "PYTHONPATH": SRC}, 300), range(2))
        )
    assert [done.returncode for done in both] == [0, 0], both
    assert both[0].stdout == both[1].stdout
    assert sum(done.stderr.count("reading ") for done in both) == 2, "each split by one of them"


def test_prepare_and_fingerprint_from_the_command_line(run: Any, folder: Path, tmp_path: Path) -> None:
    options = ("data=text_folder", "model=majority", f"data.path={folder}", f"data.cache_dir={tmp_path / 'cache'}")
    prepared = run("-m", "datamodules", "prepare", *options)
    assert prepared.returncode == 0, prepared.stderr
    line = json.loads(prepared.stdout)
    assert (line["source"], line["classes"], line["train"]["texts"], line["val"]["texts"]) == ("path", 2, 100, 37)
    assert line["fingerprints"] == module(folder, tmp_path / "cache").fingerprints
    wrong = run("-m", "datamodules", "prepare", *options, "data.columns.label=topic")
    assert wrong.returncode == 2
    assert "the column 'topic' is missing; found text, label" in wrong.stderr
    assert "Traceback" not in wrong.stderr


# -- the generated texts


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    made = tmp_path_factory.mktemp("generated")
    topics.write(made, seed=0, train=12000, val=1000)
    return {
        split: [json.loads(line) for line in (made / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "val")
    }


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_generated_texts_are_even_over_the_classes_and_of_two_to_four_sentences(
    generated: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    for split, count in (("train", 12000), ("val", 1000)):
        made = generated[split]
        assert len(made) == len({row["id"] for row in made}) == count
        assert len({row["text"] for row in made}) == count
        counts = Counter(row["label"] for row in made)
        assert len(counts) == 6
        assert max(counts.values()) - min(counts.values()) <= 1
        assert {len(re.findall(r"\.", row["text"])) for row in made} == {2, 3, 4}
    topics.write(tmp_path / "again", seed=0, train=12000, val=1000)
    assert [json.loads(line) for line in (tmp_path / "again" / "val.jsonl").open()] == generated["val"]
    topics.write(tmp_path / "other", seed=1, train=1, val=40, classes=12)
    other = [json.loads(line) for line in (tmp_path / "other" / "val.jsonl").open()]
    assert len({row["label"] for row in other}) == 12
    assert not {row["text"] for row in other} & {row["text"] for row in generated["val"]}
    with pytest.raises(ValueError, match="classes=13 must be from 2 to 12"):
        topics.write(tmp_path, seed=0, train=1, val=1, classes=13)


def test_validation_has_combinations_that_training_lacks(generated: dict[str, list[dict[str, str]]]) -> None:
    verbs = {word for wording in topics.WORDINGS for word in words(wording)} - {
        word for wording in topics.DECOYS for word in words(wording)
    }
    trade_of = {person: trade for trade, people in topics.TRADES.items() for person in people}

    def combinations(split: str) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
        """(giver, receiver), and (adjective, person), of all texts."""
        exchanges, described = set(), set()
        for row in generated[split]:
            giver, receiver = row["label"].split("_to_")
            (event,) = [sentence for sentence in row["text"].split(". ") if verbs & set(words(sentence))]
            people = {trade_of[word]: word for word in words(event) if word in trade_of}
            assert set(people) == {giver, receiver}
            exchanges.add((people[giver], people[receiver]))
            pairs = zip(words(row["text"]), words(row["text"])[1:], strict=False)
            described |= {pair for pair in pairs if pair[0] in topics.ADJECTIVES and pair[1] in trade_of}
        return exchanges, described

    for train, val in zip(combinations("train"), combinations("val"), strict=True):
        assert min(len(train), len(val)) > 50
        assert not train & val


def test_no_word_and_no_set_of_words_tells_the_class(generated: dict[str, list[dict[str, str]]]) -> None:
    train, val = generated["train"], generated["val"]
    counts: dict[str, Counter[str]] = {}
    holding: dict[str, Counter[str]] = {}
    for row in train:
        counts.setdefault(row["label"], Counter()).update(words(row["text"]))
        for word in set(words(row["text"])):
            holding.setdefault(word, Counter())[row["label"]] += 1
    majority = Counter(row["label"] for row in train).most_common(1)[0][0]
    assert np.mean([row["label"] == majority for row in val]) < 0.2

    # The best word: texts with it are of its most common class, all others of the majority's.
    def accuracy(word: str) -> float:
        best = holding[word].most_common(1)[0][0]
        return float(np.mean([(best if word in words(row["text"]) else majority) == row["label"] for row in val]))

    common = [word for word, held in holding.items() if sum(held.values()) >= 100]
    assert max(max(held.values()) / sum(held.values()) for word, held in holding.items() if word in common) < 0.3
    assert max(accuracy(word) for word in common[:60]) < 0.25

    # Multinomial naive Bayes over words, with add-one smoothing.
    totals = {label: sum(known.values()) for label, known in counts.items()}

    def bayes(text: str) -> str:
        def score(label: str) -> float:
            return sum(math.log((counts[label][word] + 1) / (totals[label] + len(holding))) for word in words(text))

        return max(counts, key=score)

    assert np.mean([bayes(row["text"]) == row["label"] for row in val]) < 0.3
    assert np.mean([bayes(row["text"]) == row["label"] for row in train[:1000]]) < 0.45
