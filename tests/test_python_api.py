"""`import isotrain`: calls do what commands do, in records, folders and messages."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import made_runs
from tests.conftest import ROOT, Run

import isotrain

SMALL = [
    "data=squad_sample",
    "data.sample.train=64",
    "data.sample.val=16",
    "trainer.threads=1",
    "logger=none",
    "quality=off",
]
TRAINED = ["model=bert_tiny", *SMALL, "trainer.max_steps=3", "trainer.deterministic=true"]
HEAVY = ("torch", "lightning", "transformers", "timm", "pandas", "mlflow", "hydra")


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> isotrain.Run:
    return isotrain.fit(*TRAINED, folder=tmp_path_factory.mktemp("api") / "a run's folder", show=False)


def test_ten_functions_and_nothing_heavy(tmp_path: Path) -> None:
    functions = [name for name in isotrain.__all__ if inspect.isfunction(getattr(isotrain, name))]
    assert len(functions) == 10
    text = (ROOT / "docs" / "python.md").read_text()
    for name in isotrain.__all__:
        assert inspect.getdoc(getattr(isotrain, name))
        assert f"`{name}" in text, name
    done = python(tmp_path, f"import isotrain, sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_call_leaves_what_the_command_leaves(trained: isotrain.Run, run: Run, tmp_path: Path) -> None:
    done = run("train.py", *TRAINED, "hydra.run.dir=b")
    assert done.returncode == 0, done.stderr
    other = isotrain.load(tmp_path / "b")
    assert trained.status == other.status == "finished"
    exact = ("val_loss", "val_exact_match", "val_f1")
    assert {name: trained.metrics[name] for name in exact} == {name: other.metrics[name] for name in exact}
    assert trained.record["config_hash"] == other.record["config_hash"]
    assert trained.record["data"]["fingerprints"] == other.record["data"]["fingerprints"]
    assert trained.predictions.equals(other.predictions)
    names = [
        sorted(path.relative_to(each.folder).as_posix() for path in each.folder.rglob("*")) for each in (trained, other)
    ]
    assert names[0] == names[1]
    assert list(trained.history.columns[:3]) == ["time", "epoch", "step"]
    assert trained.history["val_f1"].iloc[-1] == pytest.approx(trained.metrics["val_f1"])


def test_the_result_of_a_finished_run_is_returned_again(
    trained: isotrain.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    again = isotrain.fit(*TRAINED, folder=trained.folder)
    assert (again.metrics, again.record["restarts"]) == (trained.metrics, 0)
    assert "val_f1=" in capsys.readouterr().out
    with pytest.raises(isotrain.InputError, match=r"optim\.lr"):  # another configuration
        isotrain.fit(*TRAINED, "optim.lr=0.5", folder=trained.folder, show=False)


@pytest.mark.parametrize(
    "words", [["model=bret"], ["optim.lr=-1"], ["data.nonsense=1"], ["model=bert_tiny", "data=shapes"]]
)
def test_messages_are_those_of_the_command(words: list[str], run: Run, tmp_path: Path) -> None:
    done = run("train.py", *words, "hydra.run.dir=c")
    assert done.returncode == 2
    message = done.stderr.removeprefix("isotrain: ").strip()
    with pytest.raises(isotrain.InputError) as caught:
        isotrain.compose(*words)
    assert str(caught.value) == message
    if words == ["model=bret"]:
        with pytest.raises(isotrain.InputError) as caught:
            isotrain.fit(*words, folder=tmp_path / "c", show=False)
        assert str(caught.value) == message
        assert not (tmp_path / "c").exists()


def test_a_model_is_evaluated_and_predicts(trained: isotrain.Run, tmp_path: Path) -> None:
    metrics = isotrain.evaluate(trained, "trainer.threads=1", output=tmp_path / "again")
    assert metrics == {name: trained.metrics[name] for name in metrics}
    assert isotrain.compare(trained, tmp_path / "again", metric=["val_f1"])["verdict"].tolist() == [
        "no difference shown"
    ]
    rows = [{"id": "a", "question": "Who sails?", "context": "Ada Löw sails a ship."},
            {"id": "b", "question": "What?", "context": "Nothing."}]  # fmt: skip
    predictions = isotrain.predict(trained, rows)
    assert predictions["id"].tolist() == ["a", "b"]
    (tmp_path / "rows.jsonl").write_text('{"question": "no context"}\n')
    with pytest.raises(isotrain.InputError, match="context"):
        isotrain.predict(trained.folder, tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (3, "must be paths"),
        ([], "there are none"),
        ([3], "paths or mappings"),
        ([{"a": {1}}], "cannot be written as JSON"),
    ],
)
def test_inputs_that_nobody_can_read(inputs: Any, message: str) -> None:
    with pytest.raises(isotrain.InputError, match=message):
        isotrain.predict("none", inputs)


def test_verdicts_of_gates_are_returned(tmp_path: Path) -> None:
    pytest.importorskip("soda_core")
    words = ["data=squad_sample", "data.sample.train=64", "data.sample.val=16"]
    verdict = isotrain.check_data(*words, folder=tmp_path / "quality")
    assert verdict["status"] == "passed"
    assert (tmp_path / "quality" / "report.html").exists()
    with pytest.raises(isotrain.InputError, match="no such choice"):
        isotrain.check_data("data=sqad")


@pytest.mark.slow
def test_explanations_are_returned(trained: isotrain.Run) -> None:
    verdict = isotrain.explain(trained, "explain.examples=4", "explain.min_correct=1", "trainer.threads=1")
    assert verdict["status"] in ("passed", "failed", "inconclusive")
    assert (trained.folder / "explain" / "report.html").exists()


def test_runs_are_listed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rate in (("a", 0.3), ("b", 0.9)):
        made_runs.write(tmp_path / "outputs" / name, made_runs.questions(200, rate, 1))
    monkeypatch.chdir(tmp_path)
    table = isotrain.runs(sort="val_f1")
    assert [Path(folder).name for folder in table["folder"]] == ["b", "a"]
    assert table["val_f1"].is_monotonic_decreasing
    assert len(isotrain.runs(conditions=[f"val_f1>{table['val_f1'].mean()}"])) == 1
    found = isotrain.compare("outputs/a", isotrain.load("outputs/b"))
    assert set(found["verdict"]) == {"better"}
    assert found.attrs["examples"] == 200
    with pytest.raises(isotrain.InputError, match="there is no folder nowhere"):
        isotrain.runs("nowhere")
    with pytest.raises(isotrain.InputError, match="nowhere"):
        isotrain.load("nowhere")


def test_a_registration_says_why_there_is_no_champion(tmp_path: Path, mlflow_store: Any) -> None:
    folder = made_runs.write(tmp_path / "a", made_runs.questions(60, 0.5, 1))
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    server = mlflow_store(tmp_path / "mlflow.db")
    found = isotrain.register(folder, "ships", server=server, champion=True, floor=99.0)
    assert found["aliases"] == ("candidate",)
    assert found["reason"].startswith("the floor: failed: val_f1 ")


def test_an_interrupt_reaches_the_training(tmp_path: Path) -> None:
    """Ctrl-C in a notebook: the run writes its checkpoint, the notebook goes on."""
    code = f"""
import isotrain, os, signal, threading, time, pathlib
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets programs in the background ignore it
folder = pathlib.Path("long")
def interrupt():
    while not list(folder.glob("metrics.jsonl")): time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    isotrain.fit(*{[*SMALL, "model=bert_tiny", "trainer.max_steps=100000", "trainer.val_check_interval=2"]!r}, folder=folder, show=False)
except KeyboardInterrupt:
    print(isotrain.load(folder).status)
"""
    done = python(tmp_path, code)
    assert done.stdout == "interrupted\n", done.stderr
    assert list((tmp_path / "long" / "checkpoints").glob("last.ckpt"))


def test_files_with_the_names_of_our_packages(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("LR = 1\n")
    done = python(tmp_path, "import isotrain; print(isotrain.compose('model=bert_tiny')['seed'])")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert f"UserWarning: {tmp_path}/config.py: isotrain has packages of these names" in done.stderr
    done = python(tmp_path, "import config, isotrain")
    assert done.returncode == 1
    assert (
        f"ImportError: isotrain has a package config, but {tmp_path}/config.py is imported by that name" in done.stderr
    )
