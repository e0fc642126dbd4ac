"""A run's folder and record, predictions, and `python -m runs`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import files, masking, terminal
from config.errors import InputError
from runs import folder as folders
from runs import listing, listing_table, predictions, provenance, record

ROOT = Path(__file__).resolve().parents[1]
CONFIG: dict[str, Any] = {
    "seed": 3,
    "monitor": "val_f1",
    "model": {"_target_": "a.Model", "name": "bert_tiny", "dropout": 0.1},
    "data": {"path": None, "workers": 0, "epochs": 2, "batch_size": 8},
    "optim": {"lr": 1e-4, "horizon": None},
    "trainer": {"max_steps": -1, "max_epochs": 2, "enable_progress_bar": False},
    "logger": {"save_dir": "/a"},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def changed(**values: Any) -> dict[str, Any]:
    """CONFIG with other values at dotted keys (`__` for the dot)."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        *path, last = key.split("__")
        node = config
        for name in path:
            node = node[name]
        node[last] = value
    return config


def finished(folder: Path, config: Any = None, words: Sequence[str] = (), **metrics: float) -> record.Record:
    run = record.start_record(
        folder,
        config=config or CONFIG,
        seeds={"seed": 3},
        command=["python", "train.py", *words, f"hydra.run.dir={folder}"],
    )
    run.update(
        choices={"model": "bert_tiny", "data": "squad_sample"},
        data={"fingerprints": {"train": "ab" * 32, "val": "cd" * 32}, "train": {"questions": 4000}},
        metrics=metrics or {"val_f1": 81.25, "val_loss": 1.5},
    )
    with run.phase("fit"):
        pass
    run.end("finished")
    return run


# The folder


def test_states_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert folders.check_folder(folder) == "absent"
    folder.mkdir()
    assert folders.check_folder(folder) == "new"
    (folder / ".hydra").mkdir()
    (folder / "train.log").touch()
    (folder / folders.LOCK).touch()
    assert folders.check_folder(folder) == "new"
    run = record.start_record(folder, config=CONFIG, seeds={})
    assert folders.check_folder(folder) == "unfinished"
    run.end("failed", exit_code=3, reason="diverged")
    assert folders.check_folder(folder) == "unfinished"
    run = record.start_record(folder, config=CONFIG, seeds={})
    run.update(metrics={"val_f1": 1.0})
    run.end("finished")
    assert folders.check_folder(folder) == "finished"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"notes.txt": "mine"}, r"not a run folder \(notes.txt\)"),
        ({"run.json": "{"}, "is damaged"),
        ({"run.json": "[1]"}, "no status"),
        ({"run.json": '{"job": 1}'}, "no status"),
        ({"run.json": "[" * 100_000}, "is damaged"),
        ({"metrics.jsonl": "{}", "x": ""}, "metrics.jsonl, x"),
    ],
)
def test_foreign_folders_are_refused_and_left_alone(content: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]}
    assert folders.folder_state(tmp_path) == "foreign"
    with pytest.raises(InputError, match=said):
        folders.check_folder(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]} == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        folders.check_folder(tmp_path / "file")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError), files.atomic_write(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


# Going on


def test_the_same_configuration_goes_on() -> None:
    assert folders.config_differences(CONFIG, CONFIG) == []
    assert folders.config_differences(CONFIG, json.loads(json.dumps(CONFIG))) == []
    assert folders.config_differences(changed(model__betas=(0.9, 0.999)), changed(model__betas=[0.9, 0.999])) == []
    assert folders.config_differences(changed(trainer__max_time=1), changed(trainer__max_time=1.0)) == []


@pytest.mark.parametrize(
    "values",
    [
        {"logger": {"save_dir": "/b", "name": "x"}},
        {"logger": None},
        {"data__workers": 8},
        {"data__cache_dir": "/c"},
        {"trainer__enable_progress_bar": True},
        {"metrics_file": "/tmp/m"},
    ],
)
def test_what_changes_nothing_may_differ(values: dict[str, Any]) -> None:
    assert folders.config_differences(CONFIG, changed(**values)) == []
    assert folders.config_differences(changed(**values), CONFIG) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"optim__lr": 2e-4}, "optim.lr"),
        ({"model__dropout": None}, "model.dropout"),
        ({"data__batch_size": 16}, "data.batch_size"),
        ({"data__eval_batch_size": 16}, "data.eval_batch_size"),
        ({"seed": 4}, "seed"),
        ({"model__dropout": {"a": 1}}, "model.dropout"),
        ({"trainer__max_epochs": 3}, "trainer.max_epochs"),
        ({"data__workers": 1, "trainer__max_steps": 7}, "trainer.max_steps"),
        ({"trainer__enable_checkpointing": True}, "trainer.enable_checkpointing"),
    ],
)
def test_what_changes_training_may_not_differ(values: dict[str, Any], key: str) -> None:
    found = folders.config_differences(CONFIG, changed(**values))
    assert key in [name for name, _, _ in found]
    message = folders.describe_differences("/runs/a", found)
    assert key in message
    assert "/runs/a" in message
    assert "hydra.run.dir" in message


@pytest.mark.parametrize(
    ("old", "new", "fine"),
    [(2, 3, True), (2, -1, True), (2, None, True), (3, 2, False), (-1, 100, False), (2, 2, True)],
)
def test_more_epochs_go_on_under_a_horizon_of_their_own(old: Any, new: Any, fine: bool) -> None:
    begun, longer = (
        {"trainer__max_epochs": count, "data__epochs": count, "optim__horizon": 500} for count in (old, new)
    )
    assert (folders.config_differences(changed(**begun), changed(**longer)) == []) is fine
    without = {"optim__horizon": None}
    assert (folders.config_differences(changed(**begun | without), changed(**longer | without)) == []) is (old == new)


@pytest.mark.parametrize(
    ("schedule", "warmup", "fine"),
    [("constant", 0, True), ("constant", 100, True), ("constant", 0.1, False), ("linear", 0, False)],
)
def test_more_epochs_go_on_where_the_schedule_does_not_end(schedule: str, warmup: float, fine: bool) -> None:
    begun, longer = (
        {"trainer__max_epochs": count, "optim__schedule": schedule, "optim__warmup": warmup} for count in (1, 3)
    )
    assert (folders.config_differences(changed(**begun), changed(**longer)) == []) is fine


def test_a_horizon_that_comes_late_is_a_difference() -> None:
    found = folders.config_differences(CONFIG, changed(optim__horizon=500, trainer__max_epochs=3))
    assert found == [("optim.horizon", None, 500)]


def test_the_refusal_is_short_however_much_differs() -> None:
    found = [(f"key{index}", "x" * 1000, index) for index in range(100)]
    message = folders.describe_differences("/runs/a", found)
    assert "and 80 more" in message
    assert max(map(len, message.splitlines())) < 200


@given(json_values)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_equals_itself_after_a_trip_through_a_file(value: Any) -> None:
    config = {"model": value}
    stored = json.loads(json.dumps(masking.mask_secrets(folders.to_plain(config))))
    assert folders.config_differences(stored, config) == []


def test_only_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from runs import folder\n"
        "with folder.lock_folder(sys.argv[1]):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "hf_token=hush"],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        assert folders.is_locked(tmp_path)
        with (
            pytest.raises(InputError, match=f"process {other.pid} on ") as refused,
            folders.lock_folder(tmp_path, timeout=0.1),
        ):
            pass
        assert "hush" not in str(refused.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
        # What the dead process left keeps nobody out.
        assert not folders.is_locked(tmp_path)
        with folders.lock_folder(tmp_path, timeout=5):
            owner = json.loads((tmp_path / folders.OWNER).read_text())
            assert owner["pid"] == os.getpid()
        assert not (tmp_path / folders.OWNER).exists()
        assert folders.check_folder(tmp_path) == "new"
    finally:
        other.kill()
        other.wait()


def test_a_folder_in_use_can_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys, time; from runs import folder\n"
        "with folder.lock_folder(sys.argv[1]):\n"
        "    print('in', flush=True); time.sleep(1)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "in\n"
    monkeypatch.setenv(folders.WAIT_VARIABLE, "1")
    with folders.lock_folder(tmp_path, timeout=0.1):
        assert owner.wait() == 0
    assert f"is in use by process {owner.pid} on " in capsys.readouterr().err


# The record


def test_a_record_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial-7")
    monkeypatch.setenv("KFP_RUN_ID", "run-9")
    monkeypatch.setenv("SOME_TOKEN", "hush-environment")
    config = changed(
        model__hf_token="hush-config", model__url="https://me:hush-address@host/x", model__tokenizer="bert"
    )
    run = record.start_record(
        tmp_path, config=config, seeds={"seed": 3},
        command=["python", "train.py", "model.hf_token=hush-command", "--api-key", "hush-flag"],
    )  # fmt: skip
    run.update(data={"fingerprints": {"train": "ab"}}, parent="runs/before", metrics={"val_f1": 80.0})
    with run.phase("fit"):
        time.sleep(0.02)
    with pytest.raises(KeyError), run.phase("export"):
        raise KeyError
    begun = json.loads((tmp_path / "run.json").read_text())
    assert begun["status"] == "running"
    assert set(begun["timings"]) == {"fit", "export"}
    run.end("finished")
    text = (tmp_path / "run.json").read_text()
    assert "hush" not in text
    got = folders.read_record(tmp_path)
    assert got["status"] == "finished"
    assert got["exit_code"] == 0
    assert got["metrics"] == {"val_f1": 80.0}
    assert got["config"]["model"]["tokenizer"] == "bert"
    assert got["config_hash"] == record.config_hash(config)
    assert len(got["config_hash"]) == 64
    assert got["lock_hash"] == provenance.lock_hash()
    assert got["packages"]["python"].startswith("3.")
    assert {"torch", "lightning", "transformers", "timm", "hydra-core"} <= set(got["packages"])
    assert got["hardware"]["cores"] >= 1
    assert got["hardware"]["memory_mib"] > 100
    assert got["timings"]["fit"] >= 0.02
    assert got["peak_memory"]["process_mib"] > 5
    assert got["utilisation"]["cpu_percent"] >= 0
    assert got["trial"] == "trial-7"
    assert got["pipeline"] == {"run_id": "run-9"}
    assert got["parent"] == "runs/before"
    assert got["data"] == {"fingerprints": {"train": "ab"}}
    assert got["seeds"] == {"seed": 3}
    assert got["started"] <= got["ended"]
    assert got["command"][:2] == ["python", "train.py"]
    assert len(got["sessions"]) == 1
    assert got["sessions"][0]["exit_code"] == 0
    assert got["git"].keys() == {"revision", "dirty", "untracked", "diff"}


def test_a_restart_is_counted_and_adds_up(tmp_path: Path) -> None:
    first = record.start_record(tmp_path, config=CONFIG, seeds={})
    with first.phase("fit"):
        time.sleep(0.02)
    first.update(threads=2, data={"fingerprints": {}}, parent="x", choices={"model": "m"})
    first.end("interrupted", exit_code=143, reason="SIGTERM")
    before = folders.read_record(tmp_path)
    second = record.start_record(tmp_path, config=CONFIG, seeds={})
    again = folders.read_record(tmp_path)
    assert again["status"] == "running"
    assert again["restarts"] == 1
    assert again["started"] == before["started"]
    assert again["parent"] == "x"
    assert again["choices"] == {"model": "m"}
    assert again["threads"] == 2
    assert again["ended"] is again["reason"] is again["exit_code"] is None
    with second.phase("fit"):
        time.sleep(0.02)
    second.end("finished")
    got = folders.read_record(tmp_path)
    assert got["timings"]["fit"] >= before["timings"]["fit"] + 0.02
    assert got["duration_seconds"] >= before["duration_seconds"] + 0.02
    assert [session["exit_code"] for session in got["sessions"]] == [143, 0]


def test_odd_values_do_not_break_a_record(tmp_path: Path) -> None:
    config = {
        "path": Path("/a"),
        "inf": float("inf"),
        "nested": ({"x": float("nan")}, {1, 2}),
        "type": int,
        7: "seven",
    }
    record.start_record(tmp_path, config=config, seeds={}).end("finished")
    got = folders.read_record(tmp_path)["config"]
    assert got["path"] == "/a"
    assert got["inf"] == "inf"
    assert got["nested"] == [{"x": "nan"}, [1, 2]]
    assert folders.config_differences(got, config) == []


def test_a_failure_inside_a_phase_is_not_hidden_by_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record.start_record(tmp_path, config=CONFIG, seeds={})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(KeyError), run.phase("fit"):
        raise KeyError
    with pytest.raises(OSError, match="No space"), run.phase("fit"):
        pass


def test_the_hash_is_of_what_is_computed() -> None:
    assert record.config_hash(CONFIG) == record.config_hash(dict(reversed(CONFIG.items())))
    assert record.config_hash(CONFIG) == record.config_hash(changed(logger={"save_dir": "/other"}))
    assert record.config_hash(CONFIG) != record.config_hash(changed(optim__lr=2e-4))


def test_code_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    monkeypatch.delenv(provenance.REVISION_VARIABLE, raising=False)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "train.py"))
    assert provenance.git_state(tmp_path)["revision"] is None
    monkeypatch.setenv(provenance.REVISION_VARIABLE, "from-the-image")
    assert provenance.git_state(tmp_path)["revision"] == "from-the-image"
    git("init", "-q")
    assert provenance.git_state(tmp_path)["revision"] is None
    (tmp_path / "train.py").write_text("one\n")
    (tmp_path / "requirements.lock").write_text("torch==1\n")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = provenance.git_state(tmp_path)
    assert (len(clean["revision"]), clean["dirty"], clean["diff"]) == (40, False, "")
    (tmp_path / "train.py").write_text("two\n")
    (tmp_path / "new file").touch()
    dirty = provenance.git_state(tmp_path)
    assert dirty["dirty"]
    assert "+two" in dirty["diff"]
    assert dirty["untracked"] == ["new file"]
    # A long diff has a file of its own.
    (tmp_path / "train.py").write_text("line\n" * 100_000)
    run = record.start_record(tmp_path / "run", config=CONFIG, seeds={}, project=tmp_path)
    assert run.fields["git"]["diff"] == "see uncommitted.diff"
    assert (tmp_path / "run" / "uncommitted.diff").stat().st_size > 200_000
    # A copy in an environment that the repository ignores is none of its files.
    (tmp_path / ".gitignore").write_text("train.py\n")
    git("rm", "-q", "--cached", "train.py")
    assert provenance.git_state(tmp_path)["revision"] == "from-the-image"


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hf_token",
        "api_key",
        "apikey",
        "password",
        "db.password",
        "aws-secret",
        "auth_token",
        "SECRET",
    ],
)
def test_names_of_secrets(key: str) -> None:
    assert masking.is_secret(key)
    assert masking.mask_secrets({key: "hush", "a": [{key: "hush"}]}) == {key: "***", "a": [{key: "***"}]}
    assert "hush" not in masking.mask_text(f"x: 1\n{key}: hush hush\n- {key}=hush hush\ny: 2\n")
    assert masking.mask_command([f"logger.{key}=hush", f"+{key}=hush"]) == [
        f"logger.{key}=***",
        f"+{key}=***",
    ]


@pytest.mark.parametrize(
    "key", ["tokenizer", "max_tokens", "mask_token", "tokens", "keyboard", "passages", "class_token", "key"]
)
def test_names_of_no_secrets(key: str) -> None:
    assert masking.mask_secrets({key: "open"}) == {key: "open"}
    assert masking.mask_text(f"{key}: open\n") == f"{key}: open\n"


def test_hydra_files_hold_no_secrets(tmp_path: Path) -> None:
    folders.write_hydra(
        tmp_path,
        config="logger:\n  api_key: hush\n  secret: null\nmodel:\n  name: bert\n",
        hydra="hydra:\n  job:\n    override_dirname: logger.api_key=hush,model=bert\n",
        overrides="- logger.api_key=hush\n- model=bert\n",
    )
    texts = {path.name: path.read_text() for path in (tmp_path / ".hydra").iterdir()}
    assert texts.keys() == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert not any("hush" in text for text in texts.values())
    assert "secret: null" in texts["config.yaml"]
    assert "- model=bert" in texts["overrides.yaml"]
    assert ",model=bert" in texts["hydra.yaml"]


@pytest.mark.parametrize(
    "override",
    [
        "logger.api_key='a: bS'",
        "logger.hf_token=a\\,bS",
        "+wandb.token=a'bS",
        "logger={api_key:abcS}",
        "logger={api_key: abcS,x: 1}",
        "~a.token=bS",
    ],
)
def test_overrides_hold_no_secrets_however_they_are_quoted(override: str, tmp_path: Path) -> None:
    import yaml

    others = ["model=bert", "model.arguments={depth: 5, x: 'a: b'}", "data.path=a b"]
    folders.write_hydra(tmp_path, config="", hydra="", overrides=yaml.safe_dump([override, *others]))
    found = yaml.safe_load((tmp_path / ".hydra" / "overrides.yaml").read_text())
    assert found == [f"{override.partition('=')[0]}=***", *others]
    assert masking.mask_command([override]) == found[:1]


# Predictions

rows_strategy = st.lists(
    st.builds(
        lambda i, p, e: {"id": i, "p": p, **e},
        st.text(),
        st.text(),
        st.dictionaries(st.text("ab", min_size=1), json_values, max_size=2),
    )
)


@given(rows_strategy.filter(lambda rows: "inf" not in json.dumps(rows).lower()))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_predictions_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    assert predictions.write(path, iter(rows)) == len(rows)
    assert list(predictions.read(path)) == rows
    assert len(path.read_bytes().split(b"\n")) == len(rows) + 1


def test_odd_text_in_predictions(tmp_path: Path) -> None:
    rows = [{"id": "1", "p": "a\u2028b\x85c\rd\n"}, {"id": "2", "p": "\ud800"}, {"id": "3", "p": "naïve 🤖"}]
    predictions.write(tmp_path / "p", rows)
    assert list(predictions.read(tmp_path / "p")) == rows
    assert "naïve 🤖".encode() in (tmp_path / "p").read_bytes()


def test_predictions_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    predictions.write(path, [{"id": "1"}])
    for bad in ({"p": 1}, {"id": "2", "p": float("nan")}):
        with pytest.raises(ValueError):
            predictions.write(path, iter([{"id": "0"}, bad]))
    assert list(predictions.read(path)) == [{"id": "1"}]


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"p": 1}', "\xff"])
def test_broken_predictions_name_the_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b'{"id": 1}\n' + text.encode("latin-1") + b"\n")
    with pytest.raises(InputError, match="p, line 2"):
        list(predictions.read(tmp_path / "p"))
    with pytest.raises(InputError, match="cannot read"):
        list(predictions.read(tmp_path / "none"))


# python -m runs

Runs = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    def call(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", **environment}
        return subprocess.run(
            [sys.executable, "-m", "runs", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_show(tmp_path: Path, runs: Runs) -> None:
    folder = tmp_path / "outputs" / "a"
    run = finished(folder)
    predictions.write(folder / folders.PREDICTIONS, [{"id": "1"}])
    done = runs("show", "outputs/a")
    assert done.returncode == 0
    assert done.stderr == ""
    cores = f"{run.fields['hardware']['cores']} cores"
    names = ("train.py", "bert_tiny", "squad_sample", "predictions.jsonl", "abababababab")
    for said in ("finished", "val_f1 81.25", "fit 0.0 s", "train.questions 4000", cores, *names):
        assert said in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert json.loads(runs("show", "outputs/a", "--json").stdout) == run.fields


@pytest.mark.parametrize(("make", "said"), [(lambda f: None, "no such folder"), (Path.mkdir, "no run.json"),
    (lambda f: (f.mkdir(), (f / "run.json").write_text("{")), "damaged")])  # fmt: skip
def test_show_refuses_what_is_no_run(make: Callable[[Path], Any], said: str, tmp_path: Path, runs: Runs) -> None:
    make(tmp_path / "x")
    done = runs("show", "x")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("value", [None, 7, "text", [], [1], {}, {"a": None}, True, -1.5, "\x1b[31m"])
def test_show_and_list_live_with_any_record(value: Any, tmp_path: Path) -> None:
    from runs.show import format_run

    full = finished(tmp_path / "full").fields
    for key in full:
        if key == "status":
            continue
        folder = tmp_path / "odd"
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({**full, key: value}))
        text = format_run(folder, folders.read_record(folder), 80) + listing_table.format_runs(
            listing.find_runs([folder]), 80
        )
        assert "\x1b" not in text


def test_list(tmp_path: Path, runs: Runs) -> None:
    outputs = tmp_path / "outputs"
    finished(outputs / "2026-01-01" / "10-00-00", val_f1=70.0, val_loss=2.0)
    finished(outputs / "a-run-with-a-rather-long-name-that-goes-on-and-on" / "and-on-and-on-for-ever", val_f1=71.5)
    (outputs / "damaged").mkdir()
    (outputs / "damaged" / "run.json").write_text("{")
    (outputs / "half" / ".hydra").mkdir(parents=True)
    (outputs / "notes").mkdir()
    (outputs / "notes" / "notes.txt").touch()
    (outputs / "loop").symlink_to(outputs)
    record.start_record(outputs / "killed", config=CONFIG, seeds={})
    done = runs("list")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = json.loads(runs("list", "--json").stdout)
    assert [row["status"] for row in rows] == [
        "stopped",
        "finished",
        "finished",
        "damaged",
        "incomplete",
        "foreign",
    ]
    assert [row["value"] for row in rows[:3]] == [None, 71.5, 70.0]
    assert rows[1]["monitor"] == "val_f1"
    assert len(done.stdout.splitlines()) == 1 + len(rows)
    with folders.lock_folder(outputs / "killed"):
        assert listing.summarise_run(outputs / "killed")["status"] == "running"
    again = json.loads(runs("list", "outputs/killed", "outputs", "outputs/killed", "--json").stdout)
    assert [row["folder"] for row in again].count("outputs/killed") == 1


def test_list_filters_and_sorts(tmp_path: Path, runs: Runs) -> None:
    for name, value in (("a", 10.0), ("b", 30.0), ("c", 20.0)):
        finished(tmp_path / name, val_f1=value)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{")

    def names(*arguments: str) -> list[str]:
        done = runs("list", str(tmp_path), *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [Path(row["folder"]).name for row in json.loads(done.stdout)]

    assert names("--sort", "val_f1") == ["b", "c", "a", "d"]
    assert names("--sort=-value") == ["a", "c", "b", "d"]
    assert names("--sort", "val_f1", "-n", "1") == ["b"]
    assert names("--sort=folder") == ["a", "b", "c", "d"]
    assert sorted(names("--where", "val_f1>=20")) == ["b", "c"]
    assert sorted(names("--where", "status=finished", "--where", "value!=30")) == ["a", "c"]
    assert names("--where", "status=damaged") == ["d"]
    for arguments, said in (
        (["--where", "val_f1"], "a name, one of"),
        (["--where", "val_g=1"], "no field val_g"),
        (["--where", "val_f1>much"], "not a number"),
        (["--sort", "x"], "no field x"),
    ):
        done = runs("list", str(tmp_path), *arguments)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert "no such runs" in runs("list", str(tmp_path), "--where", "model=other").stdout


def test_list_beside_a_database_of_mlflow(tmp_path: Path, runs: Runs) -> None:
    """`mlflow ui` and a registry put mlflow.db where it is started; copies of records in MLflow's folders are no runs."""
    finished(tmp_path / "outputs" / "a", val_f1=1.0)
    finished(tmp_path / "outputs" / "artifacts" / "b", val_f1=2.0)
    for store in ("outputs", "outputs/mlflow"):
        finished(tmp_path / store / "artifacts" / ("0123456789abcdef" * 2) / "artifacts", val_f1=3.0)
        (tmp_path / store / "mlflow").mkdir(exist_ok=True)
        (tmp_path / store / "mlflow.db").touch()
    for folder, names in (
        (".", ["a", "b"]),
        ("outputs", ["a", "b"]),
        ("outputs/mlflow", []),
        ("outputs/artifacts", ["b"]),
    ):
        done = runs("list", folder, "--json")
        assert sorted(Path(row["folder"]).name for row in json.loads(done.stdout)) == names, folder
    assert "no runs in outputs/mlflow" in runs("list", "outputs/mlflow").stdout


def test_list_where_there_is_nothing(tmp_path: Path, runs: Runs) -> None:
    done = runs("list")
    assert done.returncode == 0
    assert "no runs" in done.stdout
    assert runs("list", "--json").stdout == "[]\n"
    assert runs("list", "nowhere").returncode == 2
    assert "nowhere" in runs("list", "nowhere").stderr
    assert runs().returncode == 2
    assert runs("lst").returncode == 2


@pytest.mark.parametrize(
    "name",
    [b"bl ank", b"new\nline", b"\x1b[31mred", b"-rf", b"\xff\xfe", "ü🤖漢字".encode(), b"$(touch x)", b"a|b"],
)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_hostile_names(name: bytes, locale: str, tmp_path: Path, runs: Runs) -> None:
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"outputs", name)))  # noqa: PTH118
    finished(folder)
    for arguments in (
        ["list"],
        ["list", "--json"],
        ["show", b"outputs/" + name],
        ["show", "--json", b"./outputs/" + name],
    ):
        done = runs(*arguments, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        if arguments == ["list"]:
            assert len(done.stdout.splitlines()) == 2
    assert not (tmp_path / "x").exists()


@given(st.text(), st.integers(0, 40))
def test_shortened_text_fits(text: str, room: int) -> None:
    for keep in ("head", "tail"):
        assert terminal.text_width(terminal.shorten(terminal.make_printable(text), room, keep)) <= room


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5))
def test_tables_fit(rows: list[tuple[str, str, str]]) -> None:
    cells = [[terminal.make_printable(cell) for cell in row] for row in rows]
    text = terminal.format_table(["run", "status", "model"], cells, 60)
    assert len(text.split("\n")) == len(rows) + 1
    assert max(terminal.text_width(line) for line in text.split("\n")) <= 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.06, "8.1 s"),
        (59.99, "60.0 s"),
        (200, "3:20"),
        (7400, "2:03:20"),
        (None, "-"),
        (True, "-"),
    ],
)
def test_durations(seconds: Any, text: str) -> None:
    assert terminal.format_duration(seconds) == text


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, runs.__main__, runs.listing, runs.show, runs.record, runs.metric_lines\n"
        "heavy = {'torch', 'lightning', 'numpy', 'omegaconf', 'hydra', 'datamodules', 'trainers'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_the_documents_say_what_may_differ() -> None:
    text = (ROOT / "docs" / "resume.md").read_text()
    for key in folders.ALLOWED_CHANGES:
        assert f"`{key}`" in text
    text = (ROOT / "docs" / "runs.md").read_text()
    for field in ("config_hash", "peak_memory", "sessions"):
        assert f"`{field}`" in text


# --- runs of other machines


@pytest.mark.parametrize(
    ("lock", "heartbeat", "age", "status"),
    [
        ("free", True, 0, "running"),  # a file system that shows a lock only to the machine that holds it
        ("free", True, folders.SILENCE - 60, "running"),
        ("free", True, folders.SILENCE + 60, "lost"),
        ("held", True, folders.SILENCE + 60, "running"),  # it hangs, and lives
        ("unknown", True, folders.SILENCE + 60, "lost"),
        ("unknown", True, folders.SILENCE - 60, "running"),
        ("free", False, folders.SILENCE + 60, "running"),  # a version without a heartbeat
        ("free", False, folders.LONG_SILENCE + 60, "lost"),
    ],
)
def test_a_run_of_another_machine_is_lost_without_lock_and_sign_of_life(
    lock: str, heartbeat: bool, age: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runs.show import format_run

    folder = tmp_path / "a"
    started = record.start_record(folder, config=CONFIG, seeds={})
    started.update(sessions=[{**started.fields["sessions"][0], "host": "another-machine"}])
    (folder / ".lock.json").write_text(json.dumps({"pid": 1} | ({"heartbeat_seconds": 30} if heartbeat else {})))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    for path in [*folder.rglob("*"), folder / "checkpoints"]:
        os.utime(path, (time.time() - age, time.time() - age))
    monkeypatch.setattr(folders, "_lock_state", lambda _: lock)
    assert listing.summarise_run(folder)["status"] == status
    assert ("its process is gone; repeat the command to resume" in format_run(folder, started.fields, 80)) == (
        status == "lost"
    )
    (folder / "checkpoints" / "last.ckpt").touch()  # any file that changes is a sign of life
    assert listing.summarise_run(folder)["status"] == "running"


def test_a_training_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "HEARTBEAT", 0.01)
    with folders.lock_folder(tmp_path / "a"):
        owner = tmp_path / "a" / ".lock.json"
        os.utime(owner, (0, 0))
        end = time.monotonic() + 10
        while owner.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert owner.stat().st_mtime > time.time() - 60
        assert folders.is_locked(tmp_path / "a")
    assert not owner.exists()


# --- trials whose job was deleted


@pytest.mark.parametrize(
    ("previous", "environment", "status", "refused"),
    [
        ("uid-1", {"ISOTRAIN_JOB_UID": "uid-2", "KATIB_TRIAL_NAME": "a-1"}, "interrupted", True),
        ("uid-1", {"ISOTRAIN_JOB_UID": "uid-2", "KATIB_TRIAL_NAME": "a-1"}, "running", True),
        ("uid-1", {"ISOTRAIN_JOB_UID": "uid-2", "KATIB_TRIAL_NAME": "a-1"}, "finished", False),  # it prints its result
        ("uid-1", {"ISOTRAIN_JOB_UID": "uid-1", "KATIB_TRIAL_NAME": "a-1"}, "interrupted", False),  # after an eviction
        ("uid-1", {"ISOTRAIN_JOB_UID": "", "KATIB_TRIAL_NAME": "a-1"}, "interrupted", False),  # no such label
        ("uid-1", {"ISOTRAIN_JOB_UID": "uid-2"}, "interrupted", False),  # a Job of one's own that is applied again
        ("", {"ISOTRAIN_JOB_UID": "uid-2", "KATIB_TRIAL_NAME": "a-1"}, "interrupted", False),  # an older version
    ],
)
def test_the_folder_of_a_deleted_trial_is_not_trained_in(
    previous: str,
    environment: dict[str, str],
    status: str,
    refused: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    for name in ("ISOTRAIN_JOB_UID", "KATIB_TRIAL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ISOTRAIN_JOB_UID", previous)
    record.start_record(tmp_path, config=CONFIG, seeds={}).update(status=status)
    monkeypatch.delenv("ISOTRAIN_JOB_UID")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if refused:
        with pytest.raises(InputError, match="the job of the trial a-1 was deleted"):
            record.check_job(tmp_path)
    else:
        record.check_job(tmp_path)
    record.check_job(tmp_path / "new")
