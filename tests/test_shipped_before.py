"""Experiments and compiled pipelines of an earlier version: they still check, and their steps find today's functions.

Copies of both lie on clusters and in other people's repositories; tests/fixtures/shipped_2026_11 has those of November 2026.
"""

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.conftest import Run

from explain import calibrate
from pipelines import steps

ROOT = Path(__file__).resolve().parents[1]
BEFORE = ROOT / "tests" / "fixtures" / "shipped_2026_11"
EXPERIMENTS = sorted((BEFORE / "katib").glob("*.yaml"))
PIPELINES = sorted((BEFORE / "pipelines").glob("*.yaml"))
# Parameters of steps, which compiled pipelines pass by position: their names then, and today.
RENAMED_PARAMETERS = {"what": "subject", "compared": "evaluation", "despite": "policies", "again": "refresh"}
SMALL = ["model=bert_tiny", "data=squad_sample", "data.sample.train=64", "data.sample.val=32", "trainer.threads=1",
         "trainer.max_steps=4", "explain.examples=8", "explain.min_correct=1"]  # fmt: skip


def isotrain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_experiments_still_check(tmp_path: Path) -> None:
    assert len(EXPERIMENTS) == 16
    current = [path for path in EXPERIMENTS if path.name != "images-trainjob.yaml"]
    done = isotrain(tmp_path, "katib", "check", "--strict", *map(str, current))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert "15 Experiments checked, 0 errors, 0 warnings" in done.stderr


def test_a_trainjob_is_told_what_trainer_has_dropped_since(tmp_path: Path) -> None:
    """Volumes, security context and grace period of its podTemplateOverrides never reach a pod of Trainer 2.2 and newer."""
    done = isotrain(tmp_path, "katib", "check", str(BEFORE / "katib" / "images-trainjob.yaml"))
    assert done.returncode == 2
    assert [line.split()[1:3] for line in done.stdout.splitlines() if ".yaml:" in line] == [
        ["warning", "K314"],
        ["error", "K224"],
    ], done.stdout


def test_compiled_pipelines_still_check(tmp_path: Path) -> None:
    assert len(PIPELINES) == 2
    done = isotrain(tmp_path, "pipelines", "check", *map(str, PIPELINES))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert "2 pipelines checked: 0 findings" in done.stderr


def calls(path: Path) -> Iterator[tuple[str, ast.Call, bool]]:
    """The calls of pipelines.steps in the bodies of a compiled pipeline's steps, by executor, and whether it returns the result."""
    spec = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for name, executor in spec["deploymentSpec"]["executors"].items():
        (source,) = [word for word in executor["container"]["command"] if "\nfrom kfp import dsl" in word]
        nodes = list(ast.walk(ast.parse(source)))
        returned = [node.value for node in nodes if isinstance(node, ast.Return)]
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("steps."):
                yield name, node, node in returned


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_compiled_steps_call_functions_of_today(path: Path) -> None:
    found = list(calls(path))
    assert len({name for name, *_ in found}) == len(found) == 15  # one call for each executor
    for name, call, returned in found:
        function = getattr(steps, ast.unparse(call.func).removeprefix("steps."))
        assert not [word for word in call.keywords if word.arg is None]
        # Without an output that the step declares, KFP ends the step as failed.
        assert (inspect.signature(function).return_annotation is None) is not returned, name
        keywords = {str(word.arg): word.value for word in call.keywords}
        bound = inspect.signature(function).bind(*call.args, **keywords)  # TypeError: it would fail on the cluster
        for parameter, value in bound.arguments.items():
            # In another order it would bind, and do something else. `given`: model, data and overrides in one list.
            if isinstance(value, ast.Name) and value.id != "given":
                assert RENAMED_PARAMETERS.get(value.id, value.id) == parameter, (
                    f"{name}: {value.id} would be taken for {parameter}"
                )


RENAMED = {"level": ("alpha", 0.1), "stable": ("min_agreement", 0.5), "minimum": ("min_correct", 3)}


@pytest.mark.parametrize("source", ["override", "added", "file"])
@pytest.mark.parametrize("old", RENAMED)
def test_old_options_of_explanations_are_refused_with_the_new_name(
    old: str, source: str, run: Run, tmp_path: Path
) -> None:
    new, value = RENAMED[old]
    conf = tmp_path / "conf"
    (conf / "explain").mkdir(parents=True)
    (conf / "explain" / "mine.yaml").write_text(f"defaults: [enforce, _self_]\n{old}: {value}\n")
    words = {"override": f"explain.{old}={value}", "added": f"+explain.{old}={value}", "file": "explain=mine"}
    done = run("train.py", words[source], f"hydra.run.dir={tmp_path / 'run'}", ISOTRAIN_CONF=str(conf))
    assert done.returncode == 2, done.stderr
    assert f"explain.{old} is now explain.{new}" in done.stderr
    assert "Traceback" not in done.stderr


def test_bounds_and_verdicts_of_earlier_runs_are_read(tmp_path: Path) -> None:
    """Files of November 2026: the keys of verdict.json are what `calibrate` reads, and its file is explain.thresholds."""
    for number in range(3):
        about = {"model": str(number), "sample": "s", "settings": {"grid": 7, "bfloat16": number == 0}}
        measure = {
            "name": "pointing",
            "block": True,
            "bound": 0.0,
            "mean": {"value": 0.5 + 0.1 * number},
            "wrong": None,
        }
        fields = {"status": "passed", "task": "image_classification", "why": [], "measures": [measure], "about": about}
        (tmp_path / str(number) / "explain").mkdir(parents=True)
        (tmp_path / str(number) / "explain" / "verdict.json").write_text(json.dumps(fields))
    assert calibrate.command([str(tmp_path / str(number)) for number in range(3)], str(tmp_path / "bounds.json")) == 0
    old = json.dumps({"task": "image_classification", "runs": ["a", "b", "c"], "bounds": {"pointing": 0.4}}, indent=1)
    assert json.loads((tmp_path / "bounds.json").read_text()).keys() == json.loads(old).keys()
    assert calibrate.read_bounds(str(tmp_path / "bounds.json"), "image_classification") == pytest.approx(
        {"pointing": 0.4}
    )
    (tmp_path / "old.json").write_text(old)
    assert calibrate.read_bounds(str(tmp_path / "old.json"), "image_classification") == {"pointing": 0.4}


@pytest.mark.slow
def test_a_compiled_pipeline_and_an_experiment_still_run(tmp_path: Path, cache: Path) -> None:
    tune = ["-p", f"tune={BEFORE / 'katib' / 'questions-random.yaml'}", "-p", "trials=1"]
    policies = ["-p", "explain=warn", "-p", "minimum=10"]
    file = str(BEFORE / "pipelines" / "train.yaml")
    done = isotrain(tmp_path, "pipelines", "run", "--file", file, "--name", "one", *SMALL, *tune, *policies)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "outputs" / "pipelines" / "one" / "pipeline.json").read_text())
    assert {step["state"] for step in record["steps"]} == {"done"}
    verdicts = {step["step"]: step.get("verdict") for step in record["steps"]}
    # Then the first model became champion whatever it was worth.
    assert verdicts["register"].startswith("question_answering-squad_sample version 1 (candidate); it was not promoted")
