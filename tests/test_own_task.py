"""A task that lives outside the repository, in a package of its own with its own conf/: every command takes it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.conftest import ROOT, forked, needs_torch

Command = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = (
    "train.py",
    "model=counter",
    "data=dots",
    "quality=off",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
)


@pytest.fixture
def environment(tmp_path: Path, cache: Path) -> dict[str, str]:
    """What a user exports: where the package and its configuration are."""
    shutil.copytree(ROOT / "tests" / "own_task", tmp_path / "mine")
    return {
        **os.environ,
        "ISOTRAIN_CONF": str(tmp_path / "mine" / "conf"),
        "PYTHONPATH": f"{tmp_path / 'mine'}:{ROOT / 'src'}",
        "ISOTRAIN_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path, warm: Path) -> Command:
    """Runs a command line as that user."""

    def call(*args: str, expected: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        head = [str(ROOT / "train.py")] if args[0] == "train.py" else [args[0]]
        if needs_torch(args):
            done = forked(warm, [*head, *args[1:]], tmp_path, {**environment, **more}, 600)
        else:
            done = subprocess.run(
                [sys.executable, *head, *args[1:]], cwd=tmp_path, env={**environment, **more},
                capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        return done

    return call


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_it_trains_resumes_and_is_scored(command: Command, environment: dict[str, str], tmp_path: Path) -> None:
    # Whole, and once more killed in the middle: the same to the last digit.
    command(*TRAIN, "trainer.max_epochs=6", "hydra.run.dir=a")
    slow = [
        sys.executable,
        str(ROOT / "train.py"),
        *TRAIN[1:],
        "trainer.max_epochs=6",
        "hydra.run.dir=b",
        "trainer.checkpoint_steps=1",
    ]
    process = subprocess.Popen(
        slow, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert "val_mae=" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "b" / "run.json").read_text())["status"] == "running"
    command(*TRAIN, "trainer.max_epochs=6", "hydra.run.dir=b")
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in "ab")
    exact = ("val_loss", "val_mae")
    assert [first["metrics"][key] for key in exact] == [second["metrics"][key] for key in exact]
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()
    assert set(first["metrics"]) >= set(first["config"]["task"]["metrics"])

    # evaluate and predict say what validation said.
    done = command("-m", "trainers", "evaluate", "run=a", "trainer.threads=1", "--output", "out")
    assert f"val_mae={first['metrics']['val_mae']:.4g}"[:12] in done.stdout
    validation = rows((tmp_path / "a" / "predictions.jsonl").read_text())
    assert rows((tmp_path / "out" / "predictions.jsonl").read_text()) == validation
    sys.path.insert(0, str(tmp_path / "mine"))
    try:
        from counting.data import _Images  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path / "mine"))
    images = _Images(24, 16, 1).pixels
    with (tmp_path / "images.jsonl").open("w") as file:
        for row, pixels in zip(validation, images, strict=True):
            file.write(json.dumps({"id": row["id"], "pixels": np.asarray(pixels).tolist()}) + "\n")
    for name in ("a", "a/model"):
        predictions = rows(command("-m", "trainers", "predict", f"run={name}", "images.jsonl").stdout)
        assert [row["id"] for row in predictions] == [row["id"] for row in validation]
        assert [row["prediction"] for row in predictions] == pytest.approx(
            [row["prediction"] for row in validation], abs=1e-2
        )

    # compare, report, list, card.
    command(*TRAIN, "trainer.max_steps=1", "hydra.run.dir=worse")
    found = json.loads(command("-m", "runs", "compare", "worse", "a", "--json").stdout)
    by_metric = {result["metric"]: result for result in found["results"]}
    assert by_metric["val_mae"]["higher_is_better"] is False
    assert by_metric["val_mae"]["difference"]["b"] == pytest.approx(first["metrics"]["val_mae"], rel=1e-6)
    assert by_metric["val_mae"]["verdict"] == "better"
    command("-m", "runs", "report", "a")
    page = (tmp_path / "a" / "report.html").read_text()
    assert "off by" in page
    assert "counter" in command("-m", "runs", "list", ".").stdout
    command("-m", "runs", "register", "a", "--server", f"sqlite:///{tmp_path}/mlflow.db")

    # What it lacks is refused by name.
    done = command("-m", "explain", "run=a", expected=2)
    assert "explainer of the task counting, but counting.task does not define it" in done.stderr
    done = command(*TRAIN, "explain=warn", "hydra.run.dir=c", expected=2)
    assert "explainer of the task counting, but counting.task does not define it" in done.stderr
    done = command(*TRAIN, "quality=enforce", "hydra.run.dir=c", expected=2)
    assert "facts of the task counting, but counting.task does not define it" in done.stderr


def test_wrong_values_of_its_own_keys_are_refused_before_torch(command: Command) -> None:
    started = time.monotonic()
    done = command(*TRAIN, "data.side=2", expected=2)
    assert "data.side=2: must be a whole number, at least 4 and at most 64" in done.stderr
    done = command(*TRAIN, "data.sides=8", expected=2)
    assert "did you mean side?" in done.stderr
    assert time.monotonic() - started < 300


MISTAKES = {
    "a metric that is not declared": (
        "model.py", '"val_mae": float', '"val_extra": 0.0, "val_mae": float', (),
        "the validation reports val_extra, val_loss, val_mae, and the task's YAML declares val_loss, val_mae",
    ),
    "no config.json": ("model.py", '"config.json")', '"other.json")', (), "export of Counter wrote no config.json"),
    "no order of batches": ("data.py", "self.train_batches", "self.order", (), "Dots has no train_batches"),
    "an error of its own": ("model.py", "order = index.argsort()", "order = index.arg_sort()", (), "the code in "),
    "no baseline": ("model.py", "", "", ("model=majority",), "model=majority is not available for the task counting"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_task_are_told(mistake: str, command: Command, tmp_path: Path) -> None:
    name, right, wrong, overrides, message = MISTAKES[mistake]
    path = tmp_path / "mine" / "counting" / name
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong) if right else text)
    expected = 1 if mistake == "an error of its own" else 2
    done = command(*TRAIN, "trainer.max_steps=2", *overrides, "hydra.run.dir=run", expected=expected)
    assert message in done.stderr
    assert "a bug in isotrain" not in done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "val_mae: {mode: min, worst: 1000.0}",
            "val_mae: {mode: least, worst: 1000.0}",
            "metrics.val_mae must be {mode",
        ),
        ("val_mae: {mode: min, worst: 1000.0}", "val_mae: {mode: min}", "metrics.val_mae must be {mode"),
    ],
)
def test_the_tasks_yaml_is_checked(right: str, wrong: str, message: str, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "conf" / "task" / "counting.yaml"
    path.write_text(path.read_text().replace(right, wrong))
    assert message in command(*TRAIN, "hydra.run.dir=run", expected=2).stderr


def test_katib_checks_and_searches_it(command: Command, tmp_path: Path) -> None:
    done = command(
        "-m", "katib", "new", "model=counter", "data=dots", "quality=off", "logger=none", "trainer.max_steps=4",
        "trainer.accelerator=cpu", "trainer.threads=1", "optim.lr=loguniform(1e-3,1e-1)", "model.width=choice(4,8)",
        "--name", "counting-random", "--algorithm", "random", "--max-trials", "2", "--parallel", "1",
    )  # fmt: skip
    (tmp_path / "counting.yaml").write_text(done.stdout)
    experiment = yaml.safe_load(done.stdout)
    assert experiment["spec"]["objective"]["type"] == "minimize"
    assert experiment["spec"]["objective"]["objectiveMetricName"] == "val_mae"
    command("-m", "katib", "check", "counting.yaml")
    broken = done.stdout.replace("model.width", "model.widths")
    (tmp_path / "broken.yaml").write_text(broken)
    assert "widths" in command("-m", "katib", "check", "broken.yaml", expected=2).stdout
    command("-m", "katib", "run", "counting.yaml", "--folder", "search")
    done = command("-m", "katib", "best", "search")
    assert "optim.lr=" in done.stdout


def test_the_folder_is_named_on_the_command_line(command: Command, environment: dict[str, str], tmp_path: Path) -> None:
    """hydra.searchpath= and --config-dir, as in any Hydra program, in place of ISOTRAIN_CONF."""
    folder = environment.pop("ISOTRAIN_CONF")
    path = f"hydra.searchpath=[file://{folder}]"
    small = ["model=counter", "data=dots", "quality=off", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"]
    command("train.py", *small, "trainer.max_steps=2", path, "hydra.run.dir=a")
    command("train.py", "--config-dir", folder, *small, "trainer.max_steps=2", "hydra.run.dir=b")
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in "ab")
    assert first["metrics"]["val_mae"] == second["metrics"]["val_mae"]
    assert first["own_code"] == second["own_code"]
    assert folder in first["own_code"]["folders"]
    scored = command("-m", "trainers", "evaluate", "run=a", "trainer.threads=1", path, "--output", "again").stdout
    assert "val_mae=" in scored
    found = command("-m", "datamodules", "fingerprint", "model=counter", "data=dots", path).stdout
    assert json.loads(found.splitlines()[-1])["val"] == first["data"]["fingerprints"]["val"]

    search = ["optim.lr=loguniform(1e-3,1e-1)", "--max-trials", "1", "--parallel", "1", "-o", "counting.yaml"]
    command("-m", "katib", "new", path, *small, "trainer.max_steps=2", *search)
    assert path in (tmp_path / "counting.yaml").read_text()
    command("-m", "katib", "check", "counting.yaml")
    command("-m", "katib", "run", "counting.yaml", "--folder", "search")
    assert "optim.lr=" in command("-m", "katib", "best", "search").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.searchpath=[nowhere]"], "hydra.searchpath=[nowhere]: no such folder on this machine"),
        (["hydra.searchpath=[mine/conf,/tmp]"], "name one folder"),
        (["hydra.searchpath=[pkg://counting]"], "name the folder of the package"),
        (["--config-dir", "nowhere"], "no such folder on this machine"),
    ],
)
def test_a_folder_that_cannot_be_searched_is_refused(
    words: list[str], message: str, command: Command, environment: dict[str, str]
) -> None:
    del environment["ISOTRAIN_CONF"]
    done = command("train.py", *words, "model=counter", "data=dots", expected=2)
    assert message in done.stderr
    if not words[0].startswith("--"):
        done = command("-m", "katib", "new", *words, "model=counter", "optim.lr=choice(1,2)", expected=2)
        assert message in done.stderr


def test_trials_take_absolute_paths_only(command: Command, environment: dict[str, str]) -> None:
    del environment["ISOTRAIN_CONF"]
    words = ["hydra.searchpath=[mine/conf]", "model=counter", "data=dots", "quality=off"]
    done = command("-m", "katib", "new", *words, "optim.lr=loguniform(1e-3,1e-1)", expected=2)
    assert "trials run in another folder; name it by its absolute path" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_pipeline_takes_it(command: Command, tmp_path: Path) -> None:
    done = command(
        "-m", "pipelines", "run", "model=counter", "data=dots", "trainer.max_steps=8", "trainer.accelerator=cpu",
        "trainer.threads=1", "-p", "quality=off", "-p", "explain=off", "-p", "minimum=1", "--name", "one",
    )  # fmt: skip
    state = json.loads((tmp_path / "outputs" / "pipelines" / "one" / "pipeline.json").read_text())
    assert state["state"] == "SUCCEEDED", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "override", "message"),
    [
        ("counting.task", [], "the explainer counting.task of the task counting lacks FORMAT, CHUNK, MEASURES"),
        ("explain.text_explainer", [], "explain.counting is not configured: add its section"),
        (
            "explain.text_explainer",
            ["+explain.counting={measures: {colour: {block: true, bound: 0.0}}}"],
            "explain.counting.measures.colour: no such measure; valid: text_permutation",
        ),
    ],
)
def test_explanations_that_cannot_be_made_are_refused_before_training(
    module: str, override: list[str], message: str, command: Command, tmp_path: Path
) -> None:
    with (tmp_path / "mine" / "counting" / "task.py").open("a") as file:
        file.write(f"\n\ndef explainer():\n    import {module} as explanations\n\n    return explanations\n")
    done = command(*TRAIN, "explain=warn", *override, "hydra.run.dir=a", expected=2)
    assert message in done.stderr
    assert not (tmp_path / "a" / "metrics.jsonl").exists()
