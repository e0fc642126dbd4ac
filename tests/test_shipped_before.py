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

from pipelines import steps

ROOT = Path(__file__).resolve().parents[1]
BEFORE = ROOT / "tests" / "fixtures" / "shipped_2026_11"
EXPERIMENTS = sorted((BEFORE / "katib").glob("*.yaml"))
PIPELINES = sorted((BEFORE / "pipelines").glob("*.yaml"))
SMALL = ["model=bert_tiny", "data=squad_sample", "data.sample.train=64", "data.sample.val=32", "trainer.threads=1",
         "trainer.max_steps=4", "explain.examples=8", "explain.minimum=1"]  # fmt: skip


def isotrain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_experiments_still_check(tmp_path: Path) -> None:
    assert len(EXPERIMENTS) == 16
    done = isotrain(tmp_path, "katib", "check", "--strict", *map(str, EXPERIMENTS))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert "16 Experiments checked, 0 errors, 0 warnings" in done.stderr


def test_compiled_pipelines_still_check(tmp_path: Path) -> None:
    assert len(PIPELINES) == 2
    done = isotrain(tmp_path, "pipelines", "check", *map(str, PIPELINES))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert "2 pipelines checked: 0 findings" in done.stderr


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls of pipelines.steps in the bodies of a compiled pipeline's steps, by executor."""
    spec = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for name, executor in spec["deploymentSpec"]["executors"].items():
        (source,) = [word for word in executor["container"]["command"] if "\nfrom kfp import dsl" in word]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("steps."):
                yield name, node


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_compiled_steps_call_functions_of_today(path: Path) -> None:
    found = list(calls(path))
    assert len({name for name, _ in found}) == len(found) == 15  # one call for each executor
    for name, call in found:
        function = getattr(steps, ast.unparse(call.func).removeprefix("steps."))
        assert not [word for word in call.keywords if word.arg is None]
        keywords = {str(word.arg): word.value for word in call.keywords}
        bound = inspect.signature(function).bind(*call.args, **keywords)  # TypeError: it would fail on the cluster
        for parameter, value in bound.arguments.items():
            # In another order it would bind, and do something else. `given`: model, data and overrides in one list.
            if isinstance(value, ast.Name) and value.id != "given":
                assert value.id == parameter, f"{name}: {value.id} would be taken for {parameter}"


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
    assert verdicts["register"] == "question_answering-squad_sample version 1 (champion)"
