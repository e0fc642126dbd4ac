"""`python -m runs floor`: what a first champion must reach, and what becomes of a model that does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import made_runs
from tests.conftest import Run

from config import files
from config.errors import InputError
from runs import floor
from runs import folder as folders

QUESTIONS = ["data=squad_sample", "data.sample.train=64", "data.sample.val=32", "trainer.threads=1", "logger=none",
             "quality=off"]  # fmt: skip


def made(folder: Path, rate: float = 0.8, seed: int = 1, **verdicts: str) -> Path:
    """A finished run with a model, and verdicts of gates."""
    made_runs.write(folder, made_runs.questions(200, rate, seed))
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(bytes([seed]) * 1000)
    for gate, status in verdicts.items():
        files.write_json(folder / gate / "verdict.json", {"status": status})
    return folder


def change(folder: Path, **fields: Any) -> None:
    record = folders.read_record(folder)
    files.write_json(folder / "run.json", record | fields)


@pytest.mark.parametrize(
    ("rate", "status", "reason"),
    [(0.2, "passed", "better"), (0.8, "failed", "no difference shown"), (0.99, "failed", "worse")],
)
def test_a_run_must_exceed_the_baseline(
    rate: float, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_baseline(folder: Path, output: str) -> str:
        asked.append(folder)
        made_runs.write(Path(output), made_runs.questions(200, rate, 2))
        return ""

    monkeypatch.setattr(floor, "_run_baseline", run_baseline)
    run = made(tmp_path / "a")
    verdict = floor.judge_floor(run)
    assert (verdict.status, verdict.metric) == (status, "val_f1")
    assert verdict.reason.endswith(reason)
    assert "of model=majority" in verdict.reason
    assert verdict.value == pytest.approx(folders.read_record(run)["metrics"]["val_f1"])
    assert floor.judge_floor(run) == verdict
    assert len(asked) == 1  # recorded
    rows = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(rows.replace("it is 3", "it was 3"))
    assert floor.read_floor(run) is None  # the run was continued: other predictions


def test_a_known_result_is_the_floor_of_its_model_and_data(tmp_path: Path) -> None:
    run = made(tmp_path / "a")
    change(run, choices={"model": "bert", "data": "squad"}, metrics={"val_f1": 80.0, "val_loss": 1.0})
    verdict = floor.judge_floor(run)
    assert str(verdict) == "failed: val_f1 80, at least 87.5"
    assert verdict.source.startswith("known_results.yaml: BERT-base")
    # A person's floor replaces it, also for later commands.
    assert floor.judge_floor(run, 79.5).status == "passed"
    assert floor.judge_floor(run).source == "--floor"
    config = folders.read_record(run)["config"]
    change(run, config={**config, "monitor": "val_loss"})
    assert str(floor.judge_floor(run, 0.5)) == "failed: val_loss 1, at most 0.5"
    assert str(floor.judge_floor(run, 1.0)) == "passed: val_loss 1, at most 1"


def test_the_baseline_is_that_of_train_py(run: Run, tmp_path: Path) -> None:
    """The whole way: train, run the baseline on the run's own data, compare."""
    done = run("train.py", "model=bert_tiny", *QUESTIONS, "trainer.max_steps=2", "hydra.run.dir=a")
    assert done.returncode == 0, done.stderr
    done = run("train.py", "model=majority", *QUESTIONS, "hydra.run.dir=majority")
    assert done.returncode == 0, done.stderr
    done = run("-m", "runs", "floor", "a", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("floor          failed: val_f1 ")
    assert "champion       no, it stays a candidate" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads((tmp_path / "a" / "floor.json").read_text())
    metrics = json.loads((tmp_path / "majority" / "run.json").read_text())["metrics"]
    assert found["floor"] == pytest.approx(metrics["val_f1"], abs=1e-4)
    # Without its data there is no floor, and the message says why.
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    record["config"]["data"]["path"] = str(tmp_path / "gone")
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))
    (tmp_path / "a" / "floor.json").unlink()
    reason = json.loads(run("-m", "runs", "floor", "a", "--json").stdout)["reason"]
    assert reason.startswith("there is none, as model=majority cannot be compared: ")
    assert str(tmp_path / "gone") in reason


def test_a_task_without_a_baseline_says_so(run: Run, tmp_path: Path) -> None:
    made_runs.write(tmp_path / "a", made_runs.ages(20, 3.0, 1))
    done = run("-m", "runs", "floor", "a", "--json", **made_runs.own_task())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "unevaluated"
    assert "conf/task/age.yaml names no class of model=majority" in found["reason"]


def register(run: Run, *arguments: str | Path) -> dict[str, Any]:
    done = run("-m", "runs", "register", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_nobody_becomes_champion_below_the_floor(run: Run, tmp_path: Path, mlflow_store: Callable[[Path], str]) -> None:
    mlflow = pytest.importorskip("mlflow")
    server = mlflow_store(tmp_path / "mlflow.db")
    client = mlflow.MlflowClient(tracking_uri=server, registry_uri=server)
    options = ("--server", server, "--name", "ships")
    one = made(tmp_path / "one", explain="failed")

    found = register(run, one, *options, "--champion", "--despite-gates", "--floor", "99.5")
    assert found["aliases"] == ["candidate"]
    assert found["reason"].startswith("the floor: failed: val_f1 ")
    version = client.get_model_version("ships", "1")
    assert version.tags["not_promoted"] == found["reason"]
    assert f"- Not promoted: {found['reason']}" in version.description
    done = run("-m", "runs", "register", str(one), *options, "--champion", "--despite-gates")
    assert "candidate\nnot promoted: the floor: failed" in done.stdout  # the floor stays until another is set

    # Above the floor a failed gate is in the way, and --despite-gates only registers.
    found = register(run, one, *options, "--champion", "--despite-gates", "--floor", "1")
    assert (found["aliases"], found["reason"]) == (["candidate"], "Explanations: failed")

    reason = "first model; nothing else can answer"
    found = register(run, one, *options, "--champion", "--despite-gates", "--justification", reason)
    assert (found["aliases"], found["reason"]) == (["champion"], "")
    version = client.get_model_version("ships", "1")
    assert version.tags["justification"] == reason
    assert version.tags["floor"].startswith("passed: val_f1 ")
    assert "not_promoted" not in version.tags
    assert f"- Justification: {reason}" in version.description
    card = mlflow.artifacts.download_artifacts(
        run_id=version.run_id, artifact_path="model/README.md", tracking_uri=server, dst_path=str(tmp_path / "back")
    )
    assert Path(card).read_text() == version.description

    # The same champion again needs no verdict, and a second model has its own floor.
    assert register(run, one, *options, "--champion", "--despite-gates")["aliases"] == ["champion"]
    two = made(tmp_path / "two", seed=2)
    assert register(run, two, *options, "--champion", "--floor", "99.5")["aliases"] == ["candidate"]
    assert register(run, two, *options, "--champion", "--floor", "1")["aliases"] == ["champion"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--floor", "1"], "--floor needs --champion"),
        (["--justification", "x"], "--justification needs --champion"),
        (["--champion", "--justification", " "], "an argument is empty"),
        (["--champion", "--floor", "nan"], "must be a finite number"),
        (["--champion", "--floor", "1", "--instead-of", "3"], "it was compared with the champion"),
    ],
)
def test_options_that_have_no_effect_are_refused(options: list[str], message: str, run: Run, tmp_path: Path) -> None:
    done = run("-m", "runs", "register", str(made(tmp_path / "a")), *options, "--server", "sqlite:///m.db")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "m.db").exists()


def test_a_run_without_its_monitor_has_no_floor(tmp_path: Path) -> None:
    run = made(tmp_path / "a")
    change(run, metrics={})
    with pytest.raises(InputError, match="has no value of val_f1"):
        floor.judge_floor(run, 3.0)
