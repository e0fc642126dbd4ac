"""The gate itself, on models that were trained to be honest, to cheat, or not at all. `pytest -m slow`; CI runs it.

Accuracy does not tell the honest model from the one that cheats; the gate does.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import explain_gate, planted
from tests.conftest import Run

IMAGES = [
    *("model=resnet18", "model.name=resnet10t", "model.stem=standard", "data=tiny_imagenet", "data.image_size=32"),
    *("data.augment.crop_padding=2", "data.augment.flip=false", "data.augment.label_smoothing=0", "data.batch_size=32"),
    *("data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", "quality=off", "trainer.max_epochs=8"),
]
TEXTS = [*explain_gate.TEXTS, "quality=off"]
CELLS = ["explain.examples=96", "explain.image_classification.grid=4", "explain.image_classification.pictures=0"]
UNTRAINED = ["trainer.max_epochs=null", "trainer.max_steps=1", "optim.lr=1e-9"]


def trained(run: Run, folder: Path, *overrides: str) -> float:
    """Trains, and returns the monitored metric."""
    done = run("train.py", *overrides, f"hydra.run.dir={folder}", timeout=3600)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run.json").read_text())
    return float(record["metrics"][record["config"]["monitor"]])


def explained(run: Run, folder: Path, *overrides: str) -> tuple[int, dict[str, Any]]:
    """The gate's exit code and verdict."""
    done = run("-m", "explain", f"run={folder}", *overrides, timeout=3600)
    assert (folder / "explain" / "report.html").exists(), done.stderr
    return done.returncode, json.loads((folder / "explain" / "verdict.json").read_text())


def outcomes(verdict: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["outcome"] for each in verdict["measures"]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_images(run: Run, tmp_path: Path) -> None:
    honest = planted.marked_shapes(tmp_path / "honest", train=1600, val=400, classes=4, size=32, mark=False)
    marked = planted.marked_shapes(tmp_path / "marked", train=1600, val=400, classes=4, size=32)
    accuracy = trained(run, tmp_path / "a", *IMAGES, f"data.path={honest}")
    assert accuracy >= 90
    assert trained(run, tmp_path / "b", *IMAGES, f"data.path={marked}") >= accuracy  # which accuracy would prefer
    trained(run, tmp_path / "c", *IMAGES, f"data.path={honest}", *UNTRAINED)
    code, verdict = explained(run, tmp_path / "a", *CELLS)
    assert (code, verdict["status"]) == (0, "passed"), verdict["why"]
    code, verdict = explained(run, tmp_path / "b", *CELLS)
    assert (code, verdict["status"]) == (5, "failed")
    assert outcomes(verdict)["pointing"] == "failed"
    assert outcomes(verdict)["faithfulness"] == "passed"  # its explanations are true: it looks at the mark
    code, verdict = explained(run, tmp_path / "c", *CELLS, "explain.min_correct=1")
    assert (code, verdict["status"]) == (5, "failed")
    assert outcomes(verdict)["learned"] == "failed"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_questions(run: Run, tmp_path: Path) -> None:
    small = ("quality=off", "explain.examples=96")
    accuracy = trained(run, tmp_path / "a", "quality=off")
    assert accuracy >= 75
    first = planted.questions(tmp_path / "first", train=16_000, val=1_200, first=True)
    assert trained(run, tmp_path / "b", f"data.path={first}", "quality=off", "trainer.max_epochs=3") >= accuracy
    code, verdict = explained(run, tmp_path / "a", *small)
    assert (code, verdict["status"] in ("passed", "warned")) == (0, True), verdict["why"]
    code, verdict = explained(run, tmp_path / "b", *small)
    assert (code, verdict["status"]) == (5, "failed")
    assert outcomes(verdict)["question_permutation"] == "failed"
    assert outcomes(verdict)["comprehensiveness"] == "passed"
    blind = planted.questions(tmp_path / "blind", train=4_000, val=600, blind=True)
    trained(run, tmp_path / "c", f"data.path={blind}", "quality=off")
    trained(run, tmp_path / "d", f"data.path={blind}", "quality=off", *UNTRAINED)
    for folder in (tmp_path / "c", tmp_path / "d"):
        code, verdict = explained(run, folder, *small, "explain.min_correct=1")
        assert (code, verdict["status"]) == (5, "failed"), verdict
        assert outcomes(verdict)["question_permutation"] == "failed"
        assert explained(run, folder, *small, "explain.min_correct=96")[1]["status"] == "inconclusive"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_texts(run: Run, tmp_path: Path) -> None:
    small = ("explain.examples=96", "explain.text_classification.words=8")
    honest = planted.texts(tmp_path / "honest", train=2_000, val=400)
    blind = planted.texts(tmp_path / "blind", train=2_000, val=400, blind=True)
    assert trained(run, tmp_path / "a", *TEXTS, f"data.path={honest}") >= 95
    code, verdict = explained(run, tmp_path / "a", *small)
    assert (code, verdict["status"] in ("passed", "warned")) == (0, True), verdict["why"]
    trained(run, tmp_path / "b", *TEXTS, f"data.path={blind}")
    trained(run, tmp_path / "c", *TEXTS, f"data.path={honest}", *UNTRAINED)
    for folder in (tmp_path / "b", tmp_path / "c"):
        code, verdict = explained(run, folder, *small, "explain.min_correct=1")
        assert (code, verdict["status"]) == (5, "failed"), verdict
        assert outcomes(verdict)["text_permutation"] == "failed"
