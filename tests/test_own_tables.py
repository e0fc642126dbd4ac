"""Tables as people have them: their own names of columns, any delimiter, no ids, answers without an offset."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Run

from config.errors import InputError
from datamodules.text import columns, examples, records, squad
from datamodules.text.question_rows import Columns, Question
from runs.folder import config_differences

CONTEXT = "Anna lives in Bonn, Bert in Köln; Bonn is small."
OTHER = Columns(question="q", context="passage", answer="a")


def read(path: Path, text: str | None = None, names: Columns | None = None, **options: Any) -> list[Question]:
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return list(squad.read([str(path)], columns=names, **options))


# --- delimiters


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", "\t"), ("a.tsv.gz", "\t")],
)
def test_delimiters_are_told_apart_by_the_header(tmp_path: Path, name: str, delimiter: str) -> None:
    import gzip

    quoted = f'"one{delimiter} two; three, ""four"""'
    text = delimiter.join(["text", "label"]) + "\n" + delimiter.join([quoted, "x"]) + "\n"
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (row,) = records.read([str(tmp_path / name)], records.Columns())
    assert (row.text, row.label, row.problem) == (f'one{delimiter} two; three, "four"', "x", "")
    assert row.location.endswith("line 2")


def test_a_delimiter_in_the_name_of_another_column_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("size; in m;text;label, true or not,x,y\n1;2;hello;a\n", encoding="utf-8")
    names = records.Columns(label="label, true or not,x,y")
    (row,) = records.read([str(path)], names)
    assert (row.text, row.label) == ("hello", "a")


def test_a_table_of_one_column_has_no_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nhello\n", encoding="utf-8")
    (row,) = records.read([str(path)], records.Columns(), labelled=False)
    assert row.text == "hello"


def test_a_header_without_the_columns_is_split_by_what_it_has_most_of(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column 'context' is missing; found q, passage; old, a; data"):
        read(tmp_path / "a.tsv", "q\tpassage; old\ta\n")
    with pytest.raises(InputError, match="the column 'context' is missing; found q,x, passage, a; data"):
        read(tmp_path / "a.csv", "q,x;passage;a\n")
    with pytest.raises(InputError, match="has as many commas and semicolons, and none of them separates the columns"):
        read(tmp_path / "b.csv", "q,passage;a\n")


# --- names of columns


def test_columns_are_named_by_configuration_in_every_flat_layout(tmp_path: Path) -> None:
    row = {"q": "Where?", "passage": CONTEXT, "a": "Köln", "question": "another column"}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "lines.json").write_text(json.dumps(row) + "\n" + json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(f'q;passage;a\nWhere?;"{CONTEXT}";Köln\n', encoding="utf-8")
    for name in ("a.json", "a.jsonl", "lines.json", "a.parquet", "a.csv"):
        found = read(tmp_path / name, names=OTHER)
        assert found[0][:5] == (found[0].id, "", CONTEXT, "Where?", [("Köln", CONTEXT.index("Köln"))]), name
        assert found[0].id == read(tmp_path / "a.csv", names=OTHER)[0].id, name
    assert len(read(tmp_path / "lines.json", names=OTHER)) == 2


def test_a_missing_column_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    message = r"a\.csv: the column 'question' is missing; found Question, context, answer \(did you mean Question\?\); "
    with pytest.raises(InputError, match=message + r"data\.columns\.question=NAME reads another column$"):
        read(tmp_path / "a.csv", "Question,context,answer\n")
    with pytest.raises(InputError, match=r"the column 'answer' or 'answers' is missing; found .*reply; data"):
        read(tmp_path / "b.csv", "question,context,reply\nWho?,I,I\n")
    named = Columns(id="key")
    with pytest.raises(InputError, match=r"the column 'key' is missing; found .*data\.columns\.id=NAME"):
        read(tmp_path / "c.csv", "question,context,answer\n", named)
    with pytest.raises(InputError, match=r"data\.columns has no key questoin; valid keys: question, .*did you mean"):
        columns.parse(Columns, {"questoin": "q"})


def test_a_run_of_a_version_without_columns_is_resumed_with_the_default_ones_only() -> None:
    old: dict[str, Any] = {"data": {"max_length": 64}}
    new = {"data": {**old["data"], "columns": asdict(Columns())}}
    assert config_differences(old, new) == []
    new["data"]["columns"]["question"] = "q"
    assert config_differences(old, new) == [("data.columns.question", None, "q")]


# --- answers


def test_answers_come_as_text_as_a_list_or_as_json_in_a_text(tmp_path: Path) -> None:
    official = {"text": ["Bonn"], "answer_start": [34]}
    rows: list[tuple[Any, list[tuple[str, int]], int]] = [
        ({"answer": "Bonn"}, [("Bonn", 14)], 1),
        ({"answer": "Bonn", "answer_start": 34}, [("Bonn", 34)], 0),
        ({"answer": " Köln "}, [(" Köln ", CONTEXT.index("Köln"))], 0),
        ({"answer": "Rome"}, [("Rome", -1)], 0),
        ({"answer": None}, [], 0),
        ({"answers": ["Bonn", "Köln"]}, [("Bonn", 14), ("Köln", 28)], 1),
        ({"answers": official}, [("Bonn", 34)], 0),
        ({"answers": json.dumps(official), "answer": "not read"}, [("Bonn", 34)], 0),
        ({"answers": "Köln"}, [("Köln", 28)], 0),
        ({"answers": [{"text": "Bonn", "answer_start": 34}]}, [("Bonn", 34)], 0),
    ]
    for fields, answers, repeated in rows:
        (found,) = read(tmp_path / "a.jsonl", json.dumps({"question": "Where?", "context": CONTEXT, **fields}))
        assert (found.answers, found.repeated) == (answers, repeated), fields
    with pytest.raises(InputError, match="'answers' is not JSON"):
        read(tmp_path / "b.csv", "question,context,answers\nWhere?,Bonn,{'text': ['Bonn']}\n")
    with pytest.raises(InputError, match="'answer' must be text, not a whole number"):
        read(tmp_path / "c.jsonl", '{"question": "When?", "context": "In 1900.", "answer": 1900}')


def test_repeated_and_missing_answers_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    text = f'question,context,answer\nWhere?,"{CONTEXT}",Bonn\nWho?,"{CONTEXT}",Cleo\nWhere?,"{CONTEXT}",Köln\n'
    (tmp_path / "entry").mkdir()
    examples.write(tmp_path / "entry", read(tmp_path / "a.csv", text), None, "a.csv")
    stored = examples.Examples(tmp_path / "entry")
    stored.warn("train")
    assert "train: 1 of 3 answers occur more than once in their context; the first occurrence is taken" in caplog.text
    assert "train: 1 of 3 answers are not at their answer_start, or not in the context; 1 question(s)" in caplog.text
    assert f"{tmp_path}/a.csv: line 3: the answer 'Cleo' is not in the context" in caplog.text
    assert stored.spans.tolist()[0] == [14, 18]


# --- ids


def test_ids_are_made_of_the_content_and_stay(tmp_path: Path) -> None:
    lines = [{"question": f"Where is {n}?", "context": CONTEXT, "answer": "Bonn"} for n in (1, 2, 1, 3, 1)]
    found = [each.id for each in read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))]
    first = found[0]
    assert len(set(found)) == 5
    assert found[2] == f"{first}-2"
    assert found[4] == f"{first}-3"
    # A row in front of them and other answers change no id.
    others = [
        {"question": "New?", "context": CONTEXT, "answer": "Bonn"},
        *({**line, "answer": "Köln"} for line in lines),
    ]
    assert [each.id for each in read(tmp_path / "b.jsonl", "\n".join(map(json.dumps, others)))][1:] == found
    # Given ids are kept, also beside rows without one.
    mixed = [{"id": 7, **lines[0]}, {"id": None, **lines[1]}, {"id": "", **lines[2]}]
    assert [each.id for each in read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, mixed)))] == ["7", found[1], first]


# --- as a user types it


def test_a_table_of_ones_own_trains_and_predicts(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my"
    folder.mkdir()
    for split, count in (("train", 24), ("dev", 8)):
        rows = [f'Where does {split} {n} live?;"He, {n}, lives in town {n}; {split}.";town {n}' for n in range(count)]
        (folder / f"{split}.csv").write_text("q;passage;a\n" + "\n".join(rows), encoding="utf-8")
    small = ["model=bert_tiny", "data=squad", "data.path=my", "quality=off", "trainer.max_steps=1", "trainer.threads=1",
             "data.max_length=64", "data.stride=8", "data.max_query_length=16", "hydra.run.dir=run"]  # fmt: skip
    wrong = run("train.py", *small)
    assert wrong.returncode == 2
    assert (
        "my/train.csv: the column 'context' is missing; found q, passage, a; data.columns.context=NAME" in wrong.stderr
    )
    wrong = run("train.py", *small, "data.columns={qestion: q}")
    assert wrong.returncode == 2
    assert "unknown key data.columns.qestion; keys of data.columns: question, context, answer, answers" in wrong.stderr
    assert "title (did you mean question?)" in wrong.stderr
    named = run("train.py", *small, "data.columns={question: q, context: passage, answer: a}")
    assert named.returncode == 0, named.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    # New questions have no answers; the columns are those of training, and the ids are the same as with answers.
    (tmp_path / "new.csv").write_text('q,passage\nWhere does dev 0 live?,"He, 0, lives in town 0; dev."\n')
    made = run("-m", "trainers", "predict", "run=run", "new.csv")
    assert made.returncode == 0, made.stderr
    assert [json.loads(line)["id"] for line in made.stdout.splitlines()] == [rows[0]["id"]]
