"""Reading questions: every layout gives the same, every mistake is told with its place, and the data module's
life."""

import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hub_double
from config.errors import InputError, ResourceError
from datamodules.question_answering import QuestionAnsweringData
from datamodules.sources import locations
from datamodules.storage import arrays
from datamodules.text import examples, json_stream, squad, tokenizer, windows

SRC = str(Path(squad.__file__).resolve().parents[2])


def nested(articles: int = 3, version_2: bool = False, **changes: Any) -> dict[str, Any]:
    """A small data set in the official layout; with 2.0, every third question is unanswerable."""
    number = itertools.count()
    data = []
    for a in range(articles):
        paragraphs = []
        for p in range(2):
            context = f'Paragraph {p} of article {a}: the fox 😀 is red, the dog is blue. Ünïcode \\ " here.'
            qas = []
            for colour in ("red", "blue", "fox"):
                i = next(number)
                qa: dict[str, Any] = {
                    "id": f"id-{i}",
                    "question": f"What is {colour}?",
                    "answers": [{"text": colour, "answer_start": context.index(colour)}],
                }
                if version_2:
                    qa["is_impossible"] = i % 3 == 0
                    if i % 3 == 0:
                        qa |= {"answers": [], "plausible_answers": [{"text": "dog", "answer_start": 3}]}
                qas.append(qa)
            paragraphs.append({"context": context, "qas": qas})
        data.append({"title": f"Article {a}", "paragraphs": paragraphs})
    return {"version": "v2.0" if version_2 else "1.1", "data": data, **changes}


def flat(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as rows, as the Hub has them."""
    return [
        {
            "id": qa["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": qa["question"],
            "answers": {
                "text": [answer["text"] for answer in qa["answers"]],
                "answer_start": [answer["answer_start"] for answer in qa["answers"]],
            },
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)


LAYOUTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "nested.json": lambda path, content: path.write_text(json.dumps(content)),
    "indented.json": lambda path, content: path.write_text(json.dumps(content, indent=2, ensure_ascii=False)),
    "data_first.json": lambda path, content: path.write_text(json.dumps({k: content[k] for k in ("data", "version")})),
    "marked.json": lambda path, content: path.write_text("\ufeff" + json.dumps(content, ensure_ascii=False)),
    "list.json": lambda path, content: path.write_text(json.dumps(flat(content))),
    "flat_data.json": lambda path, content: path.write_text(json.dumps({"data": flat(content)}, indent=1)),
    "articles.json": lambda path, content: path.write_text(json.dumps(content["data"])),
    "lines.jsonl": lambda path, content: path.write_text("\n".join(map(json.dumps, flat(content)))),
    "lines.json": lambda path, content: path.write_text("\n".join(map(json.dumps, flat(content))) + "\n"),
    "zipped.json.gz": lambda path, content: path.write_bytes(gzip.compress(json.dumps(content).encode())),
    "rows.parquet": lambda path, content: write_parquet(path, flat(content)),
}


def read(path: Path | str, version_2: bool | None = None) -> list[tuple[Any, ...]]:
    return [question[:5] for question in squad.read([str(path)], version_2)]


@pytest.mark.parametrize("version_2", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_every_layout_gives_the_same(
    tmp_path: Path, layout: str, version_2: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    if layout != "lines.json":  # which is told by its whole first line
        monkeypatch.setattr(squad, "MAX_LINE", block)
    content = nested(version_2=version_2)
    LAYOUTS[layout](tmp_path / layout, content)
    expected = [
        (
            row["id"],
            row["title"],
            row["context"],
            row["question"],
            list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)),
        )
        for row in flat(content)
    ]
    assert read(tmp_path / layout, version_2) == read(tmp_path / layout) == expected
    assert sum(not row[4] for row in expected) == (6 if version_2 else 0)


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_other_keys_of_the_top_object_are_skipped(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    monkeypatch.setattr(squad, "MAX_LINE", block)
    content = {"about": {"data": [1]}, "number": 123456, **nested(), "rest": [1.5, None, "]"]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert len(read(tmp_path / "a.json")) == 18


def test_urls_are_read(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/squad/train.json", json.dumps(nested()).encode())
    assert len(read("memory://squad/train.json")) == 18


# -- what is wrong, and where
# ------------------------------------------------------------------------------------------


def change(*path: str | int, to: Any) -> Callable[[], str]:
    def make() -> str:
        content: Any = nested(version_2="is_impossible" in path)
        target = content
        for key in path[:-1]:
            target = target[key]
        if to is KeyError:
            del target[path[-1]]
        else:
            target[path[-1]] = to
        return json.dumps(content)

    return make


QA = ("data", 1, "paragraphs", 1, "qas", 2)
PLACE = r"article 2 \(Article 1\), paragraph 2, question 3"
TEXT = json.dumps(nested())
BROKEN = [
    ("{", r"broken JSON at line 1, column 2"),
    ("", r"broken JSON at line 1, column 1: expected '\{', found the end"),
    ("[1,", r"item 1: expected an object with the key 'context', found a whole number"),
    (TEXT[:-1], r"broken JSON at line 1, column \d+: expected ',', found the end"),
    (TEXT[:700], r"broken JSON at line 1, column \d+"),
    (TEXT + "x", r"text after the end"),
    ('{"data": [],}', r"line 1, column 13: a comma before the end"),
    ('{\n"data": [\n{"title": "x",\n "paragraphs" []}]}', r"line 4, column 15: Expecting ':' delimiter"),
    ('{"data": [\n{"title": "x\n"}]}', r"line 2, column 13: Invalid control character"),
    ('{"x": 1}', r"there is no list \"data\""),
    ('{"data": {}}', r"there is no list \"data\""),
    ("<html>", r"expected '\{', found '<'"),
    (
        change("data", 1, "paragraphs", to=3),
        r"article 2 \(Article 1\): 'paragraphs' must be a list, not a whole number",
    ),
    (change("data", 1, "title", to=3), r"article 2: \"title\" must be text, not a whole number"),
    (
        change("data", 1, "paragraphs", 1, "context", to=KeyError),
        r"paragraph 2: the key 'context' is missing; found qas",
    ),
    (
        change("data", 1, "paragraphs", 1, "context", to=None),
        r"paragraph 2: 'context' must be text, not null",
    ),
    (change(*QA, "id", to=KeyError), PLACE + r": the key 'id' is missing; found question, answers"),
    (change(*QA, "id", to=7.5), PLACE + r": 'id' must be text or a whole number, not a number"),
    (change(*QA, "id", to=True), PLACE + r": 'id' must be text or a whole number, not true or false"),
    (change(*QA, "id", to=None), PLACE + r": 'id' must be text or a whole number, not null"),
    (change(*QA, "question", to=[]), PLACE + r" \(id id-11\): 'question' must be text, not a list"),
    (change(*QA, "answers", to=KeyError), r"the key 'answers' is missing"),
    (change(*QA, "answers", to=[]), r"\(id id-11\): no answers; .* \"is_impossible\": true"),
    (change(*QA, "answers", to=[5]), r"answer 1: expected an object with the key 'text', found a whole number"),
    (
        change(*QA, "answers", 0, "answer_start", to="4"),
        r"answer 1: 'answer_start' must be a whole number, not text",
    ),
    (
        change(*QA, "answers", 0, "answer_start", to=True),
        r"'answer_start' must be a whole number, not true or false",
    ),
    (
        change(*QA, "answers", 0, "text", to=KeyError),
        r"answer 1: the key 'text' is missing; found answer_start",
    ),
    (change(*QA, "is_impossible", to="yes"), r"\"is_impossible\" must be true or false, not text"),
    (change(*QA, "is_impossible", to=True), r"is_impossible is true, but the question has answers"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[message[:40] for _, message in BROKEN])
def test_mistakes_are_told_with_file_and_place(tmp_path: Path, text: Any, message: str) -> None:
    file = tmp_path / "train.json"
    file.write_text(text if isinstance(text, str) else text())
    with pytest.raises(InputError, match=message) as told:
        read(file)
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, block: int, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("cut") / "train.json"
    file.write_text(TEXT[: data.draw(st.integers(0, len(TEXT) - 1))])
    before, json_stream.BLOCK, squad.MAX_LINE = (json_stream.BLOCK, squad.MAX_LINE), block, block
    try:
        with pytest.raises(InputError, match="broken JSON at line 1"):
            read(file)
    finally:
        json_stream.BLOCK, squad.MAX_LINE = before


def test_mistakes_in_other_layouts(tmp_path: Path) -> None:
    def told(name: str, content: str | bytes, message: str, version_2: bool | None = None) -> None:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message):
            read(file, version_2)

    rows = flat(nested())
    del rows[4]["question"]
    told(
        "a.jsonl",
        "\n".join(map(json.dumps, rows)),
        r"a\.jsonl: line 5 \(id id-4\): the key 'question' is missing",
    )
    told("b.json", json.dumps(rows), r"b\.json: item 5 \(id id-4\)")
    rows = flat(nested(version_2=True))
    told("c.jsonl", "\n".join(map(json.dumps, rows)), r"line 1 .*: no answers; .* data\.version_2=true", False)
    rows[1]["answers"]["text"].append("x")
    told("d.jsonl", "\n".join(map(json.dumps, rows)), r"line 2 .*: 2 answer texts, but 1 answer_start")
    told(
        "e.jsonl", '{"id": 1}\n{"id"', r"line 1: the column 'context' is missing; found id; data\.columns\.context=NAME"
    )
    told("f.jsonl", json.dumps(flat(nested())[0]) + '\n{"id"', r"broken JSON at line 2, column")
    told("g.parquet", "no parquet", r"g\.parquet: not a readable Parquet file")
    write_parquet(tmp_path / "h.parquet", [{"id": "1", "context": "x"}])
    told(
        "h.parquet",
        (tmp_path / "h.parquet").read_bytes(),
        r"the column 'question' is missing; found id, context",
    )
    told("i.json", TEXT.encode()[:300] + b"\xff" + TEXT.encode()[300:], r"not UTF-8 text \(near byte 300\)")
    told("j.json.gz", b"no gzip", r"cannot read .*j\.json\.gz")
    told("k.json.gz", gzip.compress(TEXT.encode())[:-20], r"cannot read .*k\.json\.gz")
    with pytest.raises(InputError, match=r"cannot read .*nothing\.json: No such file"):
        read(tmp_path / "nothing.json")


def test_half_a_surrogate_pair_is_replaced_by_one_character(tmp_path: Path) -> None:
    content = nested(1)
    content["data"][0]["paragraphs"][0]["context"] = "a \ud800 fox 😀 red"
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read(tmp_path / "a.json")[0][2] == "a \ufffd fox 😀 red"


# -- the store
# ---------------------------------------------------------------------------------------------------------


def store(folder: Path, content: dict[str, Any], limit: int | None = None) -> examples.Examples:
    folder.mkdir()
    (folder / "source.json").write_text(json.dumps(content))
    examples.write(folder, squad.read([str(folder / "source.json")]), limit, "source.json")
    return examples.Examples(folder)


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    content = nested(version_2=True)
    stored = store(tmp_path / "e", content)
    for i, row in enumerate(flat(content)):
        assert (stored.id(i), stored.title(i), stored.context(i), stored.question(i)) == (
            row["id"],
            row["title"],
            row["context"],
            row["question"],
        )
        assert [answer["text"] for answer in stored.answers(i)] == row["answers"]["text"]
        assert [answer["answer_start"] for answer in stored.answers(i)] == row["answers"]["answer_start"]
        assert stored.answerable[i] == bool(row["answers"]["text"])
        if stored.answerable[i]:
            low, high = stored.spans[i]
            assert stored.context(i)[low:high] == row["answers"]["text"][0]
    assert len(stored) == 18
    assert len(stored.contexts) == 6  # each once
    assert stored.counts["unanswerable"] == 6
    limited = store(tmp_path / "f", content, limit=5)
    assert [limited.id(i) for i in range(len(limited))] == [f"id-{i}" for i in range(5)]


def test_an_id_that_occurs_twice_and_an_empty_split_are_refused(tmp_path: Path) -> None:
    content = nested()
    content["data"][2]["paragraphs"][0]["qas"][1]["id"] = "id-3"
    with pytest.raises(InputError, match=r"source\.json: the id 'id-3' occurs twice, at questions 4 and 14"):
        store(tmp_path / "e", content)
    with pytest.raises(InputError, match=r"source\.json: there are no questions"):
        store(tmp_path / "f", {"data": []})


def test_answers_elsewhere_than_said_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = nested()
    content["data"][1]["paragraphs"][1]["qas"][2]["answers"][0]["answer_start"] += 1
    stored = store(tmp_path / "e", content)
    stored.warn("train")
    assert "train: 1 of 18 answers are not at their answer_start, or not in the context; 1 question(s)" in caplog.text
    assert (
        "article 2 (Article 1), paragraph 2, question 3 (id id-11): the answer 'fox' is not at character" in caplog.text
    )
    store(tmp_path / "f", nested()).warn("train")
    assert len(caplog.records) == 1


texts = st.text(max_size=8)


@given(before=texts, answer=texts, after=texts, shift=st.integers(-3, 3))
def test_a_span_is_what_the_answer_says_or_nothing(before: str, answer: str, after: str, shift: int) -> None:
    context, start = before + answer + after, len(before) + shift
    found = examples.find_span(context, answer, start)
    if found is not None:
        assert context[found[0] : found[1]] == answer.strip() != ""
        assert abs(found[0] - start) <= len(answer) - len(answer.lstrip())
    elif shift == 0:
        assert not answer.strip()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_are_stored_whole(tmp_path_factory: pytest.TempPathFactory, written: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    writer = arrays.TextWriter(folder, "x")
    for text in written:
        writer.append(text)
    writer.close()
    texts = arrays.TextArray(folder, "x")
    assert [texts[i] for i in range(len(texts))] == written


def test_an_array_written_in_pieces_is_the_whole(tmp_path: Path) -> None:
    writer = arrays.ArrayWriter(tmp_path / "a.npy", np.int32, columns=2)
    pieces = [np.arange(2 * n).reshape(n, 2) for n in (3, 0, 1000)]
    for piece in pieces:
        writer.append(piece)
    writer.close()
    assert np.array_equal(arrays.load(tmp_path / "a.npy"), np.concatenate(pieces))


# -- where files are
# ---------------------------------------------------------------------------------------------------


def resolve(folder: Path, *names: str, **options: Any) -> dict[str, list[str]]:
    for name in names:
        (folder / name).touch()
    named = locations.Names(str(folder), **options)
    found = {split: resolve_split(named, split) for split in ("train", "val")}
    return {split: [Path(file).name for file in files] for split, files in found.items()}


def resolve_split(names: locations.Names, split: str) -> list[str]:
    return locations.resolve_files(names, split, squad.OFFICIAL_NAMES, squad.SUFFIXES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["train-v1.1.json", "dev-v1.1.json", "train-other.json"],
            {"train": ["train-v1.1.json"], "val": ["dev-v1.1.json"]},
        ),
        (
            ["train-v1.1-subset.json", "dev.jsonl", "readme.md"],
            {"train": ["train-v1.1-subset.json"], "val": ["dev.jsonl"]},
        ),
        (
            ["train.parquet", "validation.parquet", "train.txt"],
            {"train": ["train.parquet"], "val": ["validation.parquet"]},
        ),
        (
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val.json"],
            {"train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "val": ["val.json"]},
        ),
    ],
)
def test_a_folders_files_are_found(tmp_path: Path, names: list[str], expected: dict[str, list[str]]) -> None:
    assert resolve(tmp_path, *names) == expected


def test_files_named_outright_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tmp_path, "a [1].json", "b.json", train="a [1].json", val=str(tmp_path / "b.json")) == {
        "train": ["a [1].json"],
        "val": ["b.json"],
    }
    monkeypatch.chdir(tmp_path)
    names = locations.Names(None, "b.json", "*.json")
    assert resolve_split(names, "train") == [str(tmp_path / "b.json")]
    assert resolve_split(names, "val") == [str(tmp_path / "a [1].json"), str(tmp_path / "b.json")]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["dev.json"],
            {},
            r"no file for the train split; expected train-v1\.1\.json or .*, else one file that begins with "
            r"\"train\" .*; found dev\.json",
        ),
        ([], {}, r"found nothing"),
        (
            ["train-a.json", "train-b.json"],
            {},
            r"more than one .* \(train-a\.json, train-b\.json\); name it with "
            r"data\.train_file",
        ),
        (["dev.json"], {"train": "nothing.json"}, r"there is no data\.train_file=nothing\.json"),
    ],
)
def test_what_cannot_be_found_is_told(tmp_path: Path, names: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(tmp_path, *names, **options)


def test_a_wrong_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder data\.path=.*nothing"):
        resolve_split(locations.Names(str(tmp_path / "nothing")), "train")
    (tmp_path / "file.json").touch()
    with pytest.raises(InputError, match=r"is a file; give its folder"):
        resolve_split(locations.Names(str(tmp_path / "file.json")), "train")
    with pytest.raises(InputError, match=r"data\.path=<folder>, or data\.train_file and data\.val_file"):
        resolve_split(locations.Names(), "train")


def test_a_remote_folder_is_searched_alike() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("train.json", "dev.json"):
        memory.pipe(f"/remote/{name}", json.dumps(nested()).encode())
    names = locations.Names("memory://remote")
    found = {split: resolve_split(names, split) for split in ("train", "val")}
    assert found == {"train": ["memory:///remote/train.json"], "val": ["memory:///remote/dev.json"]}
    assert len(read(found["train"][0])) == 18


# -- the data module
# ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both splits of 1.1."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, articles in (("train-v1.1.json", 3), ("dev-v1.1.json", 2)):
        (folder / name).write_text(json.dumps(nested(articles)))
    return folder


def module(folder: Path | None, tmp_path: Path, **options: Any) -> QuestionAnsweringData:
    given = {
        "path": None if folder is None else str(folder),
        "cache_dir": str(tmp_path / "cache"),
        "vocab_size": 120,
        "max_length": 64,
        "stride": 16,
        "max_query_length": 20,
        "batch_size": 4,
        **options,
    }
    data = QuestionAnsweringData(**given)
    data.prepare_data()
    data.setup("fit")
    return data


def test_from_a_folder_to_batches(folder: Path, tmp_path: Path) -> None:
    data = module(folder, tmp_path)
    assert data.answerable_only
    assert data.vocab_size <= 120
    (batch, *rest) = data.train_dataloader()
    assert len(rest) + 1 == len(data.train_batches) == 4
    names = ["input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions", "window"]
    assert list(batch) == names
    assert {(str(value.dtype), value.shape[0]) for value in batch.values()} == {("torch.int64", 4)}
    seen = [int(w) for each in data.val_dataloader() for w in each["window"]]
    assert sorted(seen) == list(range(len(data.windows)))
    assert data.describe()["train"]["questions"] == 18
    # Words of the data are whole tokens of the vocabulary that was trained on it.
    tokenizer = data.tokenizer()
    assert tokenizer.tokenize("the FOX") == ["the", "fox"]
    assert tokenizer.pad_token_id == data.pad_id
    # The target's tokens are the answer.
    w = 5
    window, question = data.train_windows, data.train_examples
    tokens = window.tokens[window.offsets[w] + window.start[w] : window.offsets[w] + window.end[w] + 1]
    assert tokenizer.decode(tokens) == question.answers(int(window.example[w]))[0]["text"]
    encoder = windows.PairEncoder(data.prepared_tokenizer.folder / "tokenizer.json")
    records = [("What is red?", data.examples.context(0))]
    made = windows.Windows.of_records(encoder, records, data.limits, data.pad_id, data.uses_types)
    assert made.tokens[: made.lengths[0]].tolist() == data.windows.tokens[: data.windows.lengths[0]].tolist()


def test_workers_make_the_same_batches(folder: Path, tmp_path: Path) -> None:
    data = module(folder, tmp_path)
    alone = [batch["input_ids"].tolist() for batch in data.train_dataloader()]
    data.workers = 1
    assert [batch["input_ids"].tolist() for batch in data.train_dataloader()] == alone


def test_two_processes_share_each_batch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = module(folder, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    both, seen = [], []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        both.append(module(folder, tmp_path, eval_batch_size=3))
        seen += [int(w) for batch in both[-1].val_dataloader() for w in batch["window"]]
    for whole, *parts in zip(alone.train_batches, *(data.train_batches for data in both), strict=True):
        assert sorted(whole) == sorted(index for part in parts for index in part)
    assert sorted(seen) == list(range(len(alone.windows)))


def test_version_2_is_told_by_the_data_or_configured(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for name in ("train-v2.0.json", "dev-v2.0.json"):
        (second / name).write_text(json.dumps(nested(version_2=True)))
    assert not module(second, tmp_path).answerable_only
    assert not module(second, tmp_path, version_2=True).answerable_only
    assert not module(folder, tmp_path, version_2=True).answerable_only
    with pytest.raises(InputError, match=r"no answers; .* set data\.version_2=true"):
        module(second, tmp_path, version_2=False)
    # Both versions in one folder: the one that is asked for.
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (second / name).write_text(json.dumps(nested()))
    assert module(second, tmp_path, version_2=False).answerable_only
    data = module(second, tmp_path, version_2=True)
    assert data.examples.counts["unanswerable"] == 6


def test_limits_take_the_first_and_change_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    whole, limited = module(folder, tmp_path), module(folder, tmp_path, max_train=5, max_val=2)
    assert [limited.train_examples.id(i) for i in range(5)] == [whole.train_examples.id(i) for i in range(5)]
    assert (len(limited.train_examples), len(limited.examples)) == (5, 2)
    assert limited.fingerprints == {
        "train": whole.fingerprints["train"] + ":first-5",
        "val": whole.fingerprints["val"] + ":first-2",
    }


def test_a_change_of_anything_that_counts_makes_another_entry_and_nothing_else_does(
    folder: Path, tmp_path: Path
) -> None:
    def place(**options: Any) -> str:
        return str(module(folder, tmp_path, **options).describe()["train"]["cache"])

    first = place()
    assert place(batch_size=2, seed=5, workers=0, eval_batch_size=1) == first
    assert len({first, place(max_length=60), place(stride=8), place(vocab_size=100), place(max_train=10)}) == 5
    (folder / "train-v1.1.json").write_text(json.dumps(nested(4)))
    assert place() != first
    (folder / "train-v1.1.json").write_text(json.dumps(nested(3)))
    assert place() == first


def test_a_sample_is_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datamodules.samples import squad_sample

    sample = {"seed": 1, "train": 30, "val": 10, "unanswerable": 0.0}
    options: dict[str, Any] = {"sample": sample, "max_length": 384, "stride": 128, "max_query_length": 64}
    first = module(None, tmp_path, **options)
    assert (len(first.train_examples), len(first.examples), first.answerable_only) == (30, 10, True)

    def again(folder: Path, seed: int, train: int, val: int, unanswerable: float) -> None:
        pytest.fail("generated again")

    monkeypatch.setattr(squad_sample, "write", again)
    assert module(None, tmp_path, **options).fingerprints == first.fingerprints
    monkeypatch.undo()
    other = module(None, tmp_path, **{**options, "sample": {**sample, "unanswerable": 0.4}})
    assert not other.answerable_only
    assert other.fingerprints != first.fingerprints


def test_no_source_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data: give data\.path"):
        module(None, tmp_path)


def test_a_full_disk_while_writing_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *given: Any, **options: Any) -> None:
        real(self, *given, **options)
        self.stream.close()
        self.stream = open("/dev/full", "wb")  # noqa: SIM115, PTH123

    real = arrays.ArrayWriter.__init__
    monkeypatch.setattr(arrays.ArrayWriter, "__init__", full)
    with pytest.raises(ResourceError, match="no space left for the data cache"):
        module(folder, tmp_path)
    monkeypatch.undo()
    assert len(module(folder, tmp_path).train_examples) == 18


def test_a_warm_start_reads_tokenises_and_loads_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = module(folder, tmp_path)
    for of, name in (
        (squad, "read"),
        (examples, "write"),
        (windows, "PairEncoder"),
        (tokenizer, "train"),
        (tokenizer, "wordpiece"),
    ):
        monkeypatch.setattr(of, name, None)
    warm = module(folder, tmp_path)
    assert warm.describe() == cold.describe()
    assert [batch["input_ids"].tolist() for batch in warm.train_dataloader()] == [
        batch["input_ids"].tolist() for batch in cold.train_dataloader()
    ]


# -- tokenizers
# --------------------------------------------------------------------------------------------------------


def vocabulary(folder: Path, cased: bool = False) -> Path:
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "fox",
        "is",
        "##s",
        "?",
        "what",
        *(["Fox"] if cased else []),
    ]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder / "vocab.txt"


def test_a_vocab_txt_is_taken_whole(folder: Path, tmp_path: Path) -> None:
    data = module(folder, tmp_path, tokenizer=str(vocabulary(tmp_path)))
    assert (data.vocab_size, data.pad_id, data.uses_types) == (11, 0, True)
    assert data.tokenizer().tokenize("The foxs?") == ["the", "fox", "##s", "?"]
    data = module(folder, tmp_path, tokenizer=str(vocabulary(tmp_path, cased=True)))
    assert data.vocab_size == 12
    assert data.tokenizer().tokenize("The Fox") == ["[UNK]", "Fox"]


def test_a_folder_and_a_tokenizer_json_are_taken(folder: Path, tmp_path: Path) -> None:
    first = module(folder, tmp_path, tokenizer=str(vocabulary(tmp_path)))
    saved = tmp_path / "saved"
    first.tokenizer().save_pretrained(saved)
    for option in (
        {"pretrained": str(saved)},
        {"tokenizer": str(saved)},
        {"tokenizer": str(saved / "tokenizer.json")},
    ):
        data = module(folder, tmp_path, **option)
        assert np.array_equal(data.windows.tokens, first.windows.tokens)
        assert data.tokenizer().pad_token == "[PAD]"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.txt", None, r"there is no file or folder model\.tokenizer=.*nothing\.txt"),
        ("vocab.txt", "the\nfox\n", r"not a WordPiece vocabulary, one token per line: \[PAD\]"),
        ("tokenizer.json", "{", r"cannot load the tokenizer .*tokenizer\.json"),
        ("folder", "", r"no tokenizer .*; found nothing"),
    ],
)
def test_what_is_no_tokenizer_is_told(
    folder: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        module(folder, tmp_path, tokenizer=str(tmp_path / name))


TRAIN = """
import json, random, sys
from datamodules.text.tokenizer import train
words = [a + b + c for a in "klmn" for b in "aeiou" for c in "rstöx"]
texts = [" ".join(random.Random(i).choices(words, k=9)) for i in range(300)]
print(json.dumps(train(lambda: texts, 90), sort_keys=True))
"""


def test_a_trained_vocabulary_is_the_same_in_every_process() -> None:
    """Token by token, also where all counts are alike. (The learner's own numbers are not.)"""
    trained = {
        subprocess.run(
            [sys.executable, "-c", TRAIN],
            text=True,
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": SRC},
        ).stdout
        for _ in range(3)
    }
    (only,) = (json.loads(text) for text in trained)
    assert sorted(only.values()) == list(range(90))
    assert [only[token] for token in tokenizer.SPECIAL_TOKENS.values()] == list(range(5))


# -- the Hub, and the command line
# -------------------------------------------------------------------------------------


def test_prepare_from_the_hub_and_again_without_it(run: Any, tmp_path: Path) -> None:
    """`data=squad model=bert` under their real names, from a stand-in on loopback, by the Hub's own
    client."""
    options = ("data=squad", "model=bert", f"data.cache_dir={tmp_path / 'cache'}")
    with hub_double.HubDouble() as hub:
        hub.add(
            "dataset",
            "rajpurkar/squad",
            hub_double.write_squad(tmp_path / "squad"),
            hub_double.SQUAD_REVISION,
        )
        hub.add("model", "google-bert/bert-base-uncased", hub_double.write_encoder(tmp_path / "bert"))
        environment = hub.environment(tmp_path / "home")
        first = run("-m", "datamodules", "prepare", *options, **environment)
        assert first.returncode == 0, first.stderr
    line = json.loads(first.stdout)
    assert line["fingerprints"]["train"].startswith("rajpurkar/squad@" + hub_double.SQUAD_REVISION)
    assert line["train"]["questions"] == 24
    assert line["source"] == "hub"
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    again = run("-m", "datamodules", "prepare", *options, **offline)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == line
    nothing = run(
        "-m",
        "datamodules",
        "prepare",
        *options[:2],
        f"data.cache_dir={tmp_path / 'other'}",
        **{**offline, "HF_HOME": str(tmp_path / "empty")},
    )
    assert nothing.returncode == 2
    assert "data.path=" in nothing.stderr
    assert len(nothing.stderr.strip().splitlines()) == 1


def test_fingerprint_and_errors_of_the_command_line(run: Any, folder: Path, tmp_path: Path) -> None:
    told = run("-m", "datamodules", "fingerprint", "data=squad", f"data.path={folder}")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == module(folder, tmp_path).fingerprints
    for arguments, message in (
        (("data.pth=x",), "unknown key data.pth"),
        (("data.path=nowhere",), "no folder"),
    ):
        wrong = run("-m", "datamodules", "prepare", *arguments)
        assert wrong.returncode == 2, wrong.stderr
        assert message in wrong.stderr
        assert "Traceback" not in wrong.stderr


HELP = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("datamodules", run_name="__main__")
except SystemExit:
    pass
print(*{"torch", "numpy", "hydra"} & set(sys.modules), file=sys.stderr)
"""


def test_the_commands_help_imports_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP],
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": SRC},
        check=True,
    )
    assert result.stderr.strip() == ""
    assert "prepare" in result.stdout


# -- real data
# -----------------------------------------------------------------------------------------------------------


def test_the_real_files_are_whole(shared_data: Path, tmp_path: Path) -> None:
    for name, questions, contexts, answers in (
        ("dev-v1.1", 10570, 2067, 34726),
        ("train-v1.1-subset", 7788, 1374, 7788),
    ):
        entry = tmp_path / name
        entry.mkdir()
        examples.write(entry, squad.read([str(shared_data / "squad" / f"{name}.json")], False), None, name)
        counts = examples.Examples(entry).counts
        assert (counts["questions"], counts["contexts"], counts["answers"]) == (questions, contexts, answers)
        assert counts["mismatched_answers"] == counts["unanswerable"] == 0


# --- CSV

CSV = """id,title,context,question,answer,answer_start
a,T,"Anna lives in Bonn, Bert in Köln.",Where does Anna live?,Bonn,14
b,T,"Anna lives in Bonn, Bert in Köln.",Where does Bert live?,Köln,
"""


def test_csv_is_read_with_and_without_offsets(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(CSV, encoding="utf-8-sig")
    found = list(squad.read([str(tmp_path / "train.csv")]))
    assert [(each.id, each.title, each.answers) for each in found] == [
        ("a", "T", [("Bonn", 14)]),
        ("b", "T", [("Köln", 28)]),
    ]
    (tmp_path / "dev.csv").write_text('question,context,answer\n"Who, then?","Two\nlines","lines"\nWhy?,Because.,\n')
    found = list(squad.read([str(tmp_path / "dev.csv")]))
    assert [(each.question, each.context, each.answers) for each in found] == [
        ("Who, then?", "Two\nlines", [("lines", 4)]),
        ("Why?", "Because.", []),
    ]
    long = "word " * 40_000
    (tmp_path / "long.csv").write_text(f"question,context,answer,is_impossible\nWho?,{long},nobody,False\n")
    (only,) = squad.read([str(tmp_path / "long.csv")])
    assert (len(only.context), only.answers) == (len(long), [("nobody", -1)])  # misplaced, for the contract to say


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\nWho?,I\n", "the column 'context' is missing; found question, answer"),
        ("", "the column 'context' is missing; found none"),
        ("context,question,answer,answer_start\nI,Who?,I,first\n", "must be a whole number, not 'first'"),
        ("context,question,answer\nI,Who?\n", "fewer columns"),
        ("context,question,answer\nI,Who?,I,0\n", "more columns"),
        ('context,question,answer\n"I,Who?,I\n', "not readable as CSV"),
    ],
)
def test_csv_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        list(squad.read([str(tmp_path / "train.csv")], version_2=True))
