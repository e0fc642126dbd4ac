"""`predict --output`: the formats say what standard output says, and a command that was stopped goes on when it is repeated."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.conftest import ROOT, Run

from config.errors import InputError
from trainers import predict as predict_module
from trainers import prediction_formats, prediction_output

COMMON = ("trainer.max_steps=1", "trainer.accelerator=cpu", "trainer.threads=1", "quality=off", "logger=none")
TRAININGS = {
    "questions": ("model=bert_tiny", "data=squad_sample", "data.sample.train=40", "data.sample.val=8",
                  "data.sample.unanswerable=0.4"),
    "texts": ("model=bert_tiny_classifier", "data=topics_sample", "data.sample.train=40", "data.sample.val=8"),
    "images": ("model=resnet18", "data=shapes", "data.sample.train=40", "data.sample.val=8", "model.pretrained=false"),
}  # fmt: skip
GROUP = predict_module.CHUNK_BATCHES  # texts that are written together, with batches of one
BROKEN = GROUP + 4  # inputs before a broken one
COUNT = BROKEN + 4
_TRAINED: dict[str, Path] = {}


@pytest.fixture
def trained(run: Run, tmp_path: Path) -> Any:
    """Makes a finished run of a task in the folder's run/; what two tests train is trained once."""

    def make(task: str) -> None:
        if task in _TRAINED:
            shutil.copytree(_TRAINED[task], tmp_path / "run")
            return
        done = run("train.py", *COMMON, *TRAININGS[task], "hydra.run.dir=run")
        assert done.returncode == 0, done.stderr
        _TRAINED[task] = tmp_path / "run"

    return make


def write_inputs(folder: Path, task: str, count: int = COUNT) -> tuple[str, ...]:
    """Writes inputs of a task and returns their names."""
    if task == "images":
        (folder / "photos").mkdir(exist_ok=True)
        for i in range(count):
            Image.new("RGB", (16 + i % 7, 20), (i * 3 % 256, 90, 200 - i)).save(folder / "photos" / f"{i:03d}.png")
        return ("photos",)
    (folder / "inputs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in make_rows(task, count)))
    return ("inputs.jsonl",)


def make_rows(task: str, count: int = COUNT) -> list[dict[str, str]]:
    texts = [f'Ship {i}, the "Ä"; ' + "sails north and south, " * (i % 9) for i in range(count)]
    if task == "texts":
        return [{"id": f"t,{i}", "text": text} for i, text in enumerate(texts)]
    return [{"id": f"q,{i}", "question": f"Which ship is {i}?", "context": text} for i, text in enumerate(texts)]


def predict(run: Run, *words: str, batch_size: int = 1) -> str:
    done = run("-m", "trainers", "predict", "run=run", *words, f"--batch-size={batch_size}")
    assert done.returncode == 0, done.stderr
    return done.stdout if "--output" not in words else done.stderr


def refusal(run: Run, *words: str) -> str:
    done = run("-m", "trainers", "predict", *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr


def parse_cell(text: str, value: Any) -> Any:
    """What a reader makes of a cell of CSV, by the type of the value."""
    if value is None:
        return None if text == "" else text
    return text if isinstance(value, str) else json.loads(text)


@pytest.mark.parametrize("task", TRAININGS)
def test_each_format_has_the_rows_of_standard_output(run: Run, tmp_path: Path, trained: Any, task: str) -> None:
    trained(task)
    inputs = write_inputs(tmp_path, task)
    printed = predict(run, *inputs, batch_size=8)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert len(rows) == COUNT
    for suffix in prediction_formats.SUFFIXES:
        predict(run, *inputs, "--output", f"new/out{suffix}", batch_size=8)
        prediction_formats.check_output(tmp_path / "new" / f"out{suffix}", inputs)  # which can be replaced
    assert (tmp_path / "new" / "out.jsonl").read_text() == printed
    with (tmp_path / "new" / "out.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [list(each) for each in cells] == [list(row) for row in rows]
    assert [
        {key: parse_cell(each[key], row[key]) for key in row} for each, row in zip(cells, rows, strict=True)
    ] == rows
    assert pq.read_table(tmp_path / "new" / "out.parquet").to_pylist() == rows
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out.csv", "out.jsonl", "out.parquet"]


@pytest.mark.parametrize("task", TRAININGS)
def test_after_a_broken_input_the_same_command_goes_on(run: Run, tmp_path: Path, trained: Any, task: str) -> None:
    trained(task)
    inputs = write_inputs(tmp_path, task)
    broken = tmp_path / (f"photos/{BROKEN:03d}.png" if task == "images" else "inputs.jsonl")
    content = broken.read_bytes()
    broken.write_bytes(b"no image" if task == "images" else b"\n".join(content.split(b"\n")[:BROKEN]) + b"\n{}\n")
    refused = refusal(run, "run=run", *inputs, "--output", "out.csv", "--batch-size=1")
    assert (broken.name if task == "images" else f"inputs.jsonl: line {BROKEN + 1}") in refused
    partial = tmp_path / "out.csv.partial.jsonl"
    assert not (tmp_path / "out.csv").exists()
    kept = partial.read_bytes()
    count = BROKEN if task == "images" else GROUP
    assert len(kept.splitlines()) == 1 + count
    broken.write_bytes(content)
    partial.write_bytes(kept[:-9])  # as a killed process may leave it
    said = predict(run, *inputs, "--output", "out.csv")
    assert f"out.csv.partial.jsonl: {count - 1} predictions were there" in said
    assert ("the input files have changed since" in said) is (task != "images")
    assert not partial.exists()
    predict(run, *inputs, "--output", "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_killed_command_goes_on(tmp_path: Path, run: Run, cache: Path, trained: Any) -> None:
    trained("questions")
    lines = [json.dumps(row) + "\n" for row in make_rows("questions")]
    command = [sys.executable, "-m", "trainers", "predict", "run=run", "--output", "out.parquet", "--batch-size=1"]
    settings: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
        "text": True,
    }
    partial = tmp_path / "out.parquet.partial.jsonl"
    with subprocess.Popen(command, stdin=subprocess.PIPE, **settings) as process:
        assert process.stdin is not None
        process.stdin.write("".join(lines[:BROKEN]))
        process.stdin.flush()  # and the rest does not come
        deadline = time.monotonic() + 120
        while not partial.exists() or len(partial.read_bytes().splitlines()) < 1 + GROUP:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        busy = refusal(run, "run=run", "--output", "out.parquet", "--batch-size=1")
        assert "out.parquet.partial.jsonl is being written by another process" in busy
        process.kill()
    assert not (tmp_path / "out.parquet").exists()
    again = subprocess.run(command, input="".join(lines), capture_output=True, check=False, **settings)
    assert again.returncode == 0, again.stderr
    assert f"out.parquet.partial.jsonl: {GROUP} predictions were there" in again.stderr
    whole = [*command[:-2], "whole.parquet", command[-1]]
    subprocess.run(whole, input="".join(lines), check=True, **settings)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_what_does_not_belong_together_is_refused(run: Run, tmp_path: Path, trained: Any) -> None:
    trained("texts")
    inputs = write_inputs(tmp_path, "texts")
    content = (tmp_path / "inputs.jsonl").read_text()
    (tmp_path / "inputs.jsonl").write_text("".join(content.splitlines(keepends=True)[:GROUP]) + "{}\n")
    command = ("run=run", *inputs, "--output", "out.jsonl")
    refusal(run, *command, "--batch-size=1")
    kept = (tmp_path / "out.jsonl.partial.jsonl").read_bytes()
    (tmp_path / "inputs.jsonl").write_text(content)

    options = refusal(run, *command, "--batch-size=2")
    assert 'has predictions with other options ({"batch_size": 1}; now {"batch_size": 2})' in options
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "isotrain.json").read_text())
    settings["data"]["max_length"] -= 1
    (tmp_path / "other" / "isotrain.json").write_text(json.dumps(settings))
    model = refusal(run, "run=other", *command[1:], "--batch-size=1")
    assert "out.jsonl.partial.jsonl has predictions of another model: name the model that made them" in model
    (tmp_path / "inputs.jsonl").write_text(content.replace(f'"t,{GROUP - 1}"', '"t,x"'))
    ids = refusal(run, *command, "--batch-size=1")
    assert (
        f"prediction {GROUP} is of t,{GROUP - 1}, but input {GROUP} is t,x: name the same inputs in the same order"
        in ids
    )
    (tmp_path / "inputs.jsonl").write_text("".join(content.splitlines(keepends=True)[:3]))
    fewer = refusal(run, *command, "--batch-size=1")
    assert f"out.jsonl.partial.jsonl has {GROUP} predictions, but there are 3 inputs" in fewer
    assert (tmp_path / "out.jsonl.partial.jsonl").read_bytes() == kept
    (tmp_path / "out.jsonl.partial.jsonl").write_text('{"id": "mine"}\n')
    assert "out.jsonl.partial.jsonl has no header" in refusal(run, *command)
    assert (tmp_path / "out.jsonl.partial.jsonl").read_text() == '{"id": "mine"}\n'


def test_an_output_is_refused_before_the_model_is_opened(run: Run, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, "texts", 2)
    for name in ("out.json", "out", "out.CSV.gz"):
        said = refusal(run, "run=none", *inputs, "--output", name)
        assert f"--output {name}: the format is chosen by the suffix: .jsonl, .csv, .parquet" in said
    assert "is one of the inputs" in refusal(run, "run=none", *inputs, "--output", "./inputs.jsonl")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    own = '{"id": "1", "prediction": "a"}\n'
    for name, content in (
        ("notes.jsonl", '{"id": "1", "text": "mine"}\n'),
        ("notes.csv", "id,text\n1,mine\n"),
        ("notes.parquet", "mine"),
        ("run/predictions.jsonl", own),
    ):
        (tmp_path / name).write_text(content)
        assert f"{name} exists and is not a file of predictions" in refusal(run, "run=none", *inputs, "--output", name)
        assert (tmp_path / name).read_text() == content
    (tmp_path / "own.jsonl").write_text(own)
    assert "run=none: neither a run nor a model folder" in refusal(run, "run=none", *inputs, "--output", "own.jsonl")


# -- parts


def write(path: Path, rows: Sequence[dict[str, Any]], header: dict[str, Any] | None = None) -> list[int]:
    """Writes rows as a task without an offset, and returns the numbers of predictions that were there."""
    offsets = []

    def lines(offset: int) -> Iterator[tuple[str, str]]:
        offsets.append(offset)
        for row in rows:
            if row["id"] == "broken":
                raise InputError("broken")
            yield row["id"], json.dumps(row, ensure_ascii=False)

    header = header or {"isotrain_partial_predictions": 1, "model": "m", "options": {}, "inputs": "i"}
    prediction_output.write(path, header, lines, 2)
    return offsets


@pytest.mark.parametrize("suffix", prediction_formats.SUFFIXES)
def test_rows_of_any_task_are_written(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_formats, "_GROUP_ROWS", 1)
    rows = [
        {"id": "a\n\x00", "prediction": 1, "top": []},
        {"id": "\ud800", "prediction": 2.5, "top": ["x", "ü"], "map": {"k": 1}},
        {"id": "", "prediction": None, "top": None},
    ]
    path = tmp_path / f"out{suffix}"
    partial = tmp_path / f"out{suffix}.partial.jsonl"
    with pytest.raises(InputError, match="broken"):
        write(path, [*rows[:2], {"id": "broken"}])
    with partial.open("ab") as file:
        file.write(b'{"id": "", "predic')  # as a killed process leaves it
    assert write(path, rows) == [2]
    if suffix == ".jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    elif suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [
                ["id", "prediction", "top", "map"],
                ["a\n\x00", "1", "[]", ""],
                ["\\ud800", "2.5", '["x", "ü"]', '{"k": 1}'],
                ["", "", "", ""],
            ]
    else:
        found = pq.read_table(path)
        assert found["id"].to_pylist() == ["a\n\x00", "\\ud800", ""]
        assert found["prediction"].to_pylist() == [1.0, 2.5, None]
        assert found["map"].to_pylist() == [None, {"k": 1}, None]
    assert write(path, []) == [0]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_columns_of_two_types_are_refused_as_parquet(tmp_path: Path) -> None:
    rows = [{"id": "a", "prediction": "x"}, {"id": "b", "prediction": 1}]
    with pytest.raises(InputError, match=r"cannot be written as Parquet .*use --output NAME\.jsonl"):
        write(tmp_path / "out.parquet", rows)


def test_a_header_that_was_not_written_to_its_end_is_written_again(tmp_path: Path) -> None:
    path, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial.jsonl"
    for torn in (b"", b'{"iso', b'{"isotrain_partial_predictions": 1, "mod'):
        partial.write_bytes(torn)
        assert write(path, [{"id": "a"}]) == [0]
    partial.write_bytes(b'{"other')
    with pytest.raises(InputError, match="has no header of this version"):
        write(path, [{"id": "a"}])
    assert partial.read_bytes() == b'{"other'


def test_without_predictions_no_partial_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="broken"):
        write(tmp_path / "out.csv", [{"id": "broken"}])
    assert list(tmp_path.iterdir()) == []
