"""Files of others that never end, or that are far larger inside than outside: refused with a message, not read."""

import gzip
import io
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tests.conftest import ROOT

from config import process
from config.compose import compose
from config.errors import InputError
from datamodules.images import decoder, folders
from datamodules.sources import files
from datamodules.storage import fingerprint
from datamodules.text import json_stream, reading, records, squad, tokenizer, vocabulary
from katib import check, documents
from katib.search import Search
from pipelines import arguments, compilation
from quality import contract
from runs import folder as run_folders
from runs import metric_lines, report_mistakes, rerun, step_metrics
from trainers import fit, predict_images, saved_model

COLUMNS = records.Columns()


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End a test that waits for a pipe."""

    def stop(*_: Any) -> None:
        pytest.fail("it waits")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def make_pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def make_link(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/zero")
    return path


def in_run(name: str) -> Callable[[Path, Callable[[Path], Path]], Path]:
    def make(folder: Path, kind: Callable[[Path], Path]) -> Path:
        kind(folder / "run" / name)
        return folder / "run"

    return make


# Of a reader: the path to give it, and the call.
READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "image": ("a.jpg", files.read_bytes),
    "image, as a URL": ("a.jpg", lambda path: files.read_bytes(f"file://{path}")),
    "image to predict": ("a.jpg", lambda path: predict_images._read(Path(path))),
    "digest": ("a.jpg", lambda path: fingerprint.hash_files([path], Path(path).parent / "cache")),
    "SQuAD": ("a.json", lambda path: list(squad.read([path]))),
    "SQuAD, as a URL": ("a.json", lambda path: list(squad.read([f"file://{path}"]))),
    "SQuAD, compressed": ("a.json.gz", lambda path: list(squad.read([path]))),
    "SQuAD, Parquet": ("a.parquet", lambda path: list(squad.read([path]))),
    "texts, CSV": ("a.csv", lambda path: list(records.read([path], COLUMNS))),
    "texts, JSON Lines": ("a.jsonl", lambda path: list(records.read([path], COLUMNS))),
    "texts, Parquet": ("a.parquet", lambda path: list(records.read([path], COLUMNS))),
    "annotations": ("val/a_annotations.txt", lambda path: folders.read_folder("val", str(Path(path).parent))),
    "contract": ("a.yaml", lambda path: contract.read(path, Path(path).parent / "cache")),
    "Experiment": ("a.yaml", documents.read),
    "pipeline": ("a.yaml", compilation.read_documents),
    "record of a run": ("run/run.json", lambda path: run_folders.read_record(Path(path).parent)),
    "checkpoint of a run": ("run/checkpoints/last.ckpt", lambda path: run_folders.read_record(Path(path).parents[1])),
    "model": ("model/config.json", lambda path: saved_model.open_model(str(Path(path).parent))),
    "weights": ("model/model.safetensors", lambda path: saved_model.open_model(str(Path(path).parent))),
    "tokenizer": ("model/vocab.txt", lambda path: tokenizer.prepare(Path(path), tokenizer=str(Path(path).parent))),
}


@pytest.mark.parametrize("kind", [make_pipe, make_link])
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_or_a_device_is_not_read(name: str, kind: Callable[[Path], Path], tmp_path: Path) -> None:
    file, read = READERS[name]
    with pytest.raises(InputError, match="is a pipe, a socket or a device"):
        read(str(kind(tmp_path / file)))


@pytest.mark.parametrize("kind", [make_pipe, make_link])
def test_readers_that_do_without_a_file_do_without_a_pipe(kind: Callable[[Path], Path], tmp_path: Path) -> None:
    kind(tmp_path / ".hydra" / "overrides.yaml")
    assert "optim.lr=1" in rerun.rerun_command(tmp_path, {"command": ["train.py", "optim.lr=1"]}).command
    kind(tmp_path / run_folders.MISTAKE_IMAGES)
    assert report_mistakes._images(tmp_path) == {}
    kind(tmp_path / run_folders.MISTAKES)
    assert report_mistakes._fields(tmp_path) == {}
    kind(tmp_path / "csv" / "version_0" / "metrics.csv")
    assert step_metrics.read(tmp_path) == {}
    with pytest.raises(OSError, match="is a pipe, a socket or a device"):
        metric_lines.read(kind(tmp_path / "metrics.jsonl"))


def test_an_image_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="has more than"):
        files.read_bytes(str(tmp_path / "a.jpg"))


def test_a_folder_that_contains_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="a folder that it is in"):
        list(files.walk_files(str(tmp_path)))
    (tmp_path / "a" / "b" / "c").unlink()
    (tmp_path / "a" / "c").symlink_to(tmp_path / "a" / "b")  # twice, but not in itself
    (tmp_path / "a" / "b" / "x").touch()
    assert list(files.walk_files(str(tmp_path))) == ["a/b/x", "a/c/x"]


# --- images


def encode_image(image_format: str, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", decoder.FORMATS)
def test_usual_formats_are_decoded(image_format: str) -> None:
    assert decoder.decode(encode_image(image_format), 4)[1] == (8, 8)


@pytest.mark.parametrize("image_format", ["EPS", "ICO", "PCX", "TGA", "SGI", "DDS", "IM"])
def test_other_formats_are_refused_whatever_the_name(image_format: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_image(image_format))
    with pytest.raises(InputError, match="not an image of the formats JPEG, PNG"):
        decoder._decode_chunk([("a.jpg", str(tmp_path / "a.jpg"))], 4, decoder.TRAINING)


def test_one_function_opens_images() -> None:
    """Elsewhere the formats would not be restricted."""
    sources = [*(ROOT / "src").rglob("*.py"), ROOT / "train.py"]
    openers = [str(path.relative_to(ROOT)) for path in sources if "Image.open(" in path.read_text()]
    assert openers == ["src/datamodules/images/decoder.py"]


def png_header(width: int, height: int) -> bytes:
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(20_000, 20_000), "exceeds limit of 178956970 pixels"),
        (encode_image("PNG", (1, 40_000)), "differ too much"),
        (encode_image("PNG", (40_000, 1)), "differ too much"),
    ],
)
def test_an_image_that_needs_gigabytes_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoder._decode_chunk([("a.png", content)], 224, decoder.TRAINING)


def test_pictures_of_mistakes_are_limited(tmp_path: Path) -> None:
    path = tmp_path / run_folders.MISTAKE_IMAGES
    np.savez_compressed(path, ids=np.array(["a"]), pixels=np.zeros((1, 8, 8, 3), np.uint8))
    assert list(report_mistakes._images(tmp_path)) == ["a"]
    np.savez_compressed(path, ids=np.array(["a"]), pixels=np.zeros((1, 5_000, 5_000, 3), np.uint8))
    assert report_mistakes._images(tmp_path) == {}


# --- texts


@pytest.mark.parametrize("content", [b" ", b"\n", b"0", b'"'])
@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.gz", "a.csv.gz"])
def test_a_small_file_does_not_become_a_large_one(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MIN_DECOMPRESSED", 1 << 20)
    (tmp_path / name).write_bytes(gzip.compress(content * (5 << 20)))
    with pytest.raises(InputError, match=name):  # at the first value, or at the limit
        list(squad.read([str(tmp_path / name)]))
    if name != "a.json.gz":
        with pytest.raises(InputError, match=name):
            list(records.read([str(tmp_path / name)], COLUMNS))


def test_blanks_are_refused_for_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MIN_DECOMPRESSED", 1 << 20)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b" " * (5 << 20)))
    with pytest.raises(InputError, match="decompressed to more than 200 times its size; if that is right"):
        list(squad.read([str(tmp_path / "a.json.gz")]))


def test_compressed_texts_are_read(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"text {number}", "label": "a"}) + "\n" for number in range(3_000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert sum(1 for _ in records.read([str(tmp_path / "a.jsonl.gz")], COLUMNS)) == 3_000


def test_parquet_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    rows = pa.table({"text": ["x" * 100_000] * 1_000, "label": ["a"] * 1_000})
    pq.write_table(rows, path)  # 100 MB in a dictionary of one value
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(files, "BATCH_BYTES", 1 << 20)
    with files.open_parquet(str(path)) as table:
        assert files.rows_per_batch(table, ["text"], 512) in range(5, 11)
        assert files.rows_per_batch(table, ["label"], 512) == 512
    assert sum(1 for _ in records.read([str(path)], COLUMNS)) == 1_000
    monkeypatch.setattr(files, "MIN_DECOMPRESSED", 1 << 20)
    pq.write_table(
        pa.table({"text": ["x" * 5_000_000], "label": ["a"]}), path, compression="zstd", use_dictionary=False
    )
    with pytest.raises(InputError, match="decompressed to more than 200 times"):
        list(records.read([str(path)], COLUMNS))


def test_values_and_lines_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1_000)
    monkeypatch.setattr(json_stream, "BLOCK", 100)
    monkeypatch.setattr(reading, "MAX_TEXT", 1_000)
    (tmp_path / "a.json").write_text('["' + "x" * 5_000)
    with pytest.raises(InputError, match="more than 1,000 characters"):
        list(squad.read([str(tmp_path / "a.json")]))
    (tmp_path / "a.csv").write_text("text,label\nx,a\n" + "x" * 5_000)
    with pytest.raises(InputError, match="line 3 has more than 1,000 characters"):
        list(records.read([str(tmp_path / "a.csv")], COLUMNS))
    (tmp_path / "a.csv").write_text('text,label\n"' + "x\n" * 5_000)
    with pytest.raises(InputError, match="field larger than field limit"):
        list(records.read([str(tmp_path / "a.csv")], COLUMNS))
    with pytest.raises(InputError, match="line 1 has more than 1,000 characters"):
        list(reading.limited_lines(io.StringIO("x" * 5_000), "standard input"))


@pytest.mark.parametrize("by_character", [False, True])
def test_a_very_long_word_is_not_trained_on(by_character: bool) -> None:
    texts = ["the cat sat on the mat, the cat sat"] * 5
    word = "".join(np.random.default_rng(0).choice(list("catsmon"), 3_000).tolist())
    expected = vocabulary.train(lambda: texts, 60, by_character)
    assert vocabulary.train(lambda: [*texts, f"the {word}, cat", "the , cat"], 60, by_character) == vocabulary.train(
        lambda: [*texts, "the , cat", "the , cat"], 60, by_character
    )
    assert vocabulary.train(lambda: [*texts, word], 60, by_character) == expected
    assert vocabulary.train(lambda: [*texts, word[:900]], 60, by_character) != expected


# --- processes, YAML, search spaces


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_more_processes_than_cores_are_refused(
    accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "available_cores", lambda: 2)
    overrides = ["model=bert_tiny", f"trainer.accelerator={accelerator}"]
    for setting in ("trainer.devices=99", "data.workers=99"):
        with pytest.raises(InputError, match=f"{setting}: as many .* this machine has 2 cores; set 16 or less"):
            fit.check_trainer(compose([*overrides, setting]), tmp_path)
    for setting in ("trainer.devices=1", "trainer.devices=auto", "data.workers=16"):
        fit.check_trainer(compose([*overrides, setting]), tmp_path)


def test_more_trials_at_a_time_than_cores_are_refused(tmp_path: Path) -> None:
    (document,) = documents.read(str(ROOT / "katib" / "questions-tpe.yaml"))
    document.value["spec"]["parallelTrialCount"] = 10_000
    with pytest.raises(InputError, match="parallelTrialCount=10000: as many processes would start"):
        Search(check.Experiment(document), tmp_path / "search")


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
YAML_BOMBS = {
    "aliases": (LAUGHS, "more than 200,000 values"),
    "a cycle": ("a: &a [*a]\n", "contains itself"),
    "depth": ("[" * 600, "nested too deeply"),
    "length": ("a: " + "x" * (1 << 20), "characters; at most"),
}
YAML_READERS: dict[str, Callable[[Path], Any]] = {
    "Experiment": lambda path: documents.read(str(path)),
    "contract": lambda path: contract.parse(path.read_text(), "x", str(path)),
    "pipeline": lambda path: compilation.read_documents(str(path)),
}


@pytest.mark.parametrize("bomb", YAML_BOMBS)
@pytest.mark.parametrize("reader", YAML_READERS)
def test_yaml_is_limited(bomb: str, reader: str, tmp_path: Path) -> None:
    text, message = YAML_BOMBS[bomb]
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        YAML_READERS[reader](tmp_path / "a.yaml")


@pytest.mark.parametrize("bomb", YAML_BOMBS)
def test_overrides_of_a_run_are_limited(bomb: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    text = YAML_BOMBS[bomb][0]
    if bomb == "aliases":  # as a list, which Hydra writes
        text = "".join(f"- {line.partition(': ')[2]}\n" for line in text.splitlines())
    (tmp_path / ".hydra" / "overrides.yaml").write_text(text)
    command = rerun.rerun_command(tmp_path, {"command": ["train.py", "optim.lr=1"]}).command
    assert command[2] == "optim.lr=1"


@pytest.mark.parametrize("bomb", ["aliases", "a cycle", "depth"])
def test_arguments_of_a_pipeline_are_limited(bomb: str) -> None:
    with pytest.raises(InputError, match="must be"):
        arguments._parse_value("x", YAML_BOMBS[bomb][0], "LIST")


def test_checks_of_a_contract_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "MAX_CHECKS", 20)
    checks = "".join(f"  - row_count: {{qualifier: q{number}}}\n" for number in range(21))
    with pytest.raises(InputError, match="has 21 checks; at most 20"):
        contract.parse(f"dataset: data/main/facts\ncolumns: [{{name: id}}]\nchecks:\n{checks}", "x", "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": 10_000}, "it has 10,000 parameters; at most 200"),
        ({"trialParameters": 10_000}, "it has 10,000 parameters; at most 200"),
        ({"choices": 100_000}, "have 100,000 values; at most 1,000"),
    ],
)
def test_search_spaces_are_limited(change: dict[str, int], message: str, tmp_path: Path) -> None:
    value = yaml.safe_load(next(iter(sorted((ROOT / "katib").glob("*.yaml")))).read_text())
    space = {"min": "1", "max": "2"}
    rows = value["spec"]["parameters"]
    rows += [
        {"name": f"p{number}", "parameterType": "double", "feasibleSpace": space}
        for number in range(change.get("parameters", 0) - len(rows))
    ]
    if count := change.get("choices"):
        choices = [str(number) for number in range(count)]
        value["spec"]["parameters"] = [
            {"name": "p", "parameterType": "categorical", "feasibleSpace": {"list": choices}}
        ]
    references = value["spec"]["trialTemplate"]["trialParameters"]
    references += [
        {"name": f"p{number}", "reference": "p"} for number in range(change.get("trialParameters", 0) - len(references))
    ]
    document = documents.Document("x.yaml", value, {}, ())
    (finding,) = check.check_experiment(check.Experiment(document))
    assert (finding.code, finding.level) == ("K005", "error")
    assert message in finding.message
