"""Files that others wrote or something damaged: refused with a message, whatever is in them (tests/fuzz finds more of them)."""

import errno
import json
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import files, parsing
from config.error_handling import library_errors, report_errors
from config.errors import InputError, ResourceError
from config.parsing import MAX_NODES, parse_json, parse_yaml
from config.system_errors import to_expected_error
from datamodules.classes import declared_names
from datamodules.storage import manifest
from datamodules.text import squad
from katib import documents
from katib.trials import Store, Trial, read_trials
from pipelines import record
from runs.folder import read_record
from trainers import checkpoints, saved_model

DEEP, LONG = "[" * 100_000 + "]" * 100_000, "7" * 5000


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_a_file_that_is_none(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is opened: a pipe waits, and a device may have no end."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "run.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "large":
            path.write_text("{}")
            monkeypatch.setattr(parsing, "MAX_BYTES", 1)
            monkeypatch.setattr(parsing.read_bytes, "__defaults__", (1,))
    with pytest.raises(InputError, match=r"run\.json (is damaged|cannot be read)"):
        read_record(folder)
    with pytest.raises(OSError, match=r"run\.json"):
        parsing.read_json(path)
    assert files.read_json(path) == {}


def test_a_model_folder_with_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json: is a pipe"):
        saved_model.open_model(str(tmp_path))


@given(st.binary() | st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_json_is_parsed_or_a_value_error(text: str | bytes) -> None:
    try:
        expected: Any = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_json(text)
    else:
        assert repr(parse_json(text)) == repr(expected)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested too deeply"),
        (LONG, "more than 300 digits"),
        ("[-" + "7" * 301 + "]", "more than 300 digits"),
        (b"\xff", "utf-8"),
        ("{", "line 1"),
    ],
)
def test_json_that_python_cannot_hold(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def aliases(depth: int) -> str:
    """Aliases that stand for 9 ** depth values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested too deeply"),
        (LONG, "line 1: a number has more than 300 digits"),
        (f"a: 1\nb: {LONG}", "line 2: a number has more than 300 digits"),
        ("x: &x [*x]", "line 1: an alias contains itself"),
        ("a: 1\nx: &x {y: [*x]}", "line 2: an alias contains itself"),
        (aliases(9), f"more than {MAX_NODES:,} values"),
        ("2026-13-45", "month"),
        ("? {a: 1}\n: 2", "unhashable"),
        ("*nothing", "undefined alias"),
        ("!!bool x", "does not fit its tag"),
        ("!!timestamp x", "does not fit its tag"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: [", "expected the node content"),
        (b"a: \xff", "invalid"),
        ("a: \0", "not allowed"),
    ],
)
def test_yaml_that_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["!!bool x", DEEP, "x: &x [*x]", "a: \0", "a: ["])
def test_an_experiment_that_is_no_yaml(text: str) -> None:
    with pytest.raises(InputError, match=r"search\.yaml.*not valid YAML"):
        documents.parse(text, "search.yaml")


def test_yaml_is_parsed() -> None:
    assert parse_yaml("a: 1\n---\n[b, {c: null}]\n") == [{"a": 1}, ["b", {"c": None}]]
    assert parse_yaml("") == []
    assert len(parse_yaml(aliases(5))[0]) == 5  # what is shared is no bomb


@pytest.mark.parametrize(
    "content", [DEEP, f'{{"data": [{LONG}]}}', '{"data": [{"paragraphs": [{"context": "a", "qas": 3}]}]}']
)
def test_questions_that_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"train\.json"):
        list(squad.read([str(path)], None))


@pytest.mark.parametrize(
    "metadata",
    [b"", b"junk", b"[]", b'{"info": 1}', b'{"info": {"features": [1]}}', b'{"info": {"features": {"label": {"names": 1}}}}',
     b'{"info": {"features": {"label": {"names": [1]}}}}', b"\xff", DEEP.encode()],
)  # fmt: skip
def test_metadata_of_a_table_that_is_junk(metadata: bytes) -> None:
    schema = pa.schema([("label", pa.int64())], metadata={b"huggingface": metadata})
    with pytest.raises(InputError, match="metadata"):
        declared_names(schema)


@pytest.mark.parametrize(
    "metadata", [b"{}", b'{"info": {}}', b'{"info": {"features": {"text": {}}}}', b'{"info": null}']
)
def test_metadata_without_classes(metadata: bytes) -> None:
    assert declared_names(pa.schema([("label", pa.int64())], metadata={b"huggingface": metadata})) is None


def test_a_damaged_database_is_no_bug(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(SystemExit) as ended, report_errors(), sqlite3.connect(path) as connection:
        connection.execute("select * from x")
    assert ended.value.code == 2
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"junk", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_storage_of_a_search(content: bytes, tmp_path: Path) -> None:
    from katib.experiment import Experiment

    store = Store.__new__(Store)
    document = documents.parse("metadata: {name: toy}\nspec: {objective: {type: minimize}}", "toy.yaml")[0]
    store.folder, store.experiment, store.trials = tmp_path, Experiment(document), []
    (tmp_path / "optuna.db").write_bytes(content)
    with pytest.raises(InputError, match=r"optuna\.db"):
        store.study(None)


@pytest.mark.parametrize(
    "step",
    [
        {"step": 1.5, "state": "done"},
        {"step": "train"},
        {"step": "train", "state": "done", "seconds": 10**200},
        {"step": "train", "state": "done", "seconds": "x"},
    ],
)
def test_a_damaged_record_of_a_step(step: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "train.json").write_text(json.dumps(step))
    with pytest.raises(InputError, match=r"steps/train\.json is damaged"):
        record.read_steps(tmp_path)


CHECKPOINT: dict[str, Any] = {
    **{"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}, "epoch": 0, "global_step": 0},
    **{"position": {}, "should_stop": False, "callbacks": {"Checkpoints": {"best": {}, "lines": 0}}},
}


@pytest.mark.parametrize("key", CHECKPOINT)
def test_a_checkpoint_that_lacks_a_key(key: str, tmp_path: Path) -> None:
    """The previous one is used, and without it the message names the key."""
    torch.save({name: value for name, value in CHECKPOINT.items() if name != key}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=rf"last\.ckpt is not a checkpoint .* lacks {key}"):
        checkpoints.read_latest(tmp_path, checkpoints.check_content)
    torch.save(CHECKPOINT, tmp_path / "last-1.ckpt")
    assert checkpoints.read_latest(tmp_path, checkpoints.check_content) == (tmp_path / "last-1.ckpt", CHECKPOINT)


@pytest.mark.parametrize("key", CHECKPOINT)
def test_a_checkpoint_with_a_value_of_another_type(key: str, tmp_path: Path) -> None:
    torch.save({**CHECKPOINT, key: "x"}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=rf"last\.ckpt is damaged: {key} "):
        checkpoints.read_latest(tmp_path, checkpoints.check_content)


@pytest.mark.parametrize("state", [None, {}, {"best": {}}, {"best": 1, "lines": 1}, {"best": {}, "lines": "1"}])
def test_a_checkpoint_that_lacks_the_best(state: Any, tmp_path: Path) -> None:
    torch.save({**CHECKPOINT, "callbacks": {"Checkpoints": state}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="lacks the best validation"):
        checkpoints.read_latest(tmp_path, checkpoints.check_content)


def test_an_error_of_a_library_is_one_of_its_input() -> None:
    with (
        pytest.raises(InputError, match=r"the model a cannot be used \(JSONDecodeError: Expecting"),
        library_errors("the model a cannot be used"),
    ):
        json.loads("x")
    with pytest.raises(KeyError), library_errors("the model a cannot be used"):
        {}["ours"]
    with pytest.raises(OSError, match="No space"), library_errors("the model a cannot be used"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ResourceError), library_errors("the model a cannot be used"):
        raise ResourceError("full")


@pytest.mark.parametrize("status", ["Succeeded", "Running"])
def test_a_storage_that_contradicts_the_rows(status: str, tmp_path: Path) -> None:
    """A row of a trial that Optuna does not have, or that has ended there, is damage."""
    import optuna

    from katib.experiment import Experiment

    optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="toy").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    store = Store.__new__(Store)
    document = documents.parse("metadata: {name: toy}\nspec: {objective: {type: minimize}}", "toy.yaml")[0]
    store.folder, store.experiment = tmp_path, Experiment(document)
    store.trials = [Trial("toy-a", 0, "Succeeded", {}, 1.0)]
    store.study(None)
    store.trials.append(Trial("toy-b", 1, status, {}) if status == "Succeeded" else Trial("toy-b", 0, status, {}))
    with pytest.raises(InputError, match=rf"optuna\.db: trial ., .*{status} in trials\.jsonl"):
        store.study(None)


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1"},
        {"status": "lost"},
        {"assignments": []},
        {"value": "x"},
        {"history": None},
        {"exit_code": True},
        {"curve": [["a", 1]]},
        {"curve": [["a"]]},
        {"history": ["x"]},
        {"assignments": {"lr": 1}},
        {"metrics": {"f1": {"max": 1}}},
    ],
    ids=str,
)
def test_a_row_of_a_trial_with_a_value_of_another_type(change: dict[str, Any], tmp_path: Path) -> None:
    row = Trial("toy-a", 0, "Succeeded", {}, 1.0).to_row()
    (tmp_path / "trials.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_trials(tmp_path)) == 1
    (tmp_path / "trials.jsonl").write_text(json.dumps(row | change) + "\n")
    with pytest.raises(InputError, match=r"trials\.jsonl, line 1: not a trial"):
        read_trials(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_or_socket_for_a_file_of_a_search_or_cache(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("trials.jsonl", "manifest.json"):
        if kind == "pipe":
            os.mkfifo(name)
        else:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(name)
    with pytest.raises(SystemExit) as ended, report_errors():
        read_trials(tmp_path)
    assert ended.value.code == 2
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("number", [errno.ENXIO, errno.ENODEV])
def test_a_path_that_is_no_file_is_an_input_and_a_device_that_has_gone_is_not(number: int) -> None:
    assert to_expected_error(OSError(number, "no such device", "model/x.json")).exit_code == 2  # type: ignore[attr-defined]
    assert to_expected_error(OSError(number, "no such device")).exit_code == 8  # type: ignore[attr-defined]
