"""The generated data sets show real learning in minutes, and nothing to a model that cannot read. `pytest -m slow`."""

import json
from pathlib import Path

import pytest
from tests.conftest import Run

from datamodules.samples import squad_sample


def best(folder: Path, name: str) -> float:
    return float(json.loads((folder / "run.json").read_text())["metrics"][name])


@pytest.mark.slow
def test_bert_tiny_learns_the_questions_from_random_weights(run: Run, tmp_path: Path) -> None:
    result = run("train.py", f"hydra.run.dir={tmp_path}/run", timeout=3600)
    assert result.returncode == 0, result.stderr
    assert best(tmp_path / "run", "val_f1") >= 80


@pytest.mark.slow
def test_resnet18_learns_the_shapes_from_random_weights(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "model=resnet18", "data=shapes", f"hydra.run.dir={tmp_path}/run", timeout=3600)
    assert result.returncode == 0, result.stderr
    assert best(tmp_path / "run", "val_accuracy") >= 95


@pytest.mark.slow
def test_a_model_that_does_not_see_the_question_learns_nothing(run: Run, tmp_path: Path) -> None:
    squad_sample.write(tmp_path, seed=0, train=24000, val=1000)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        content = json.loads((tmp_path / name).read_text())
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    question["question"] = "?"
        (tmp_path / name).write_text(json.dumps(content))
    result = run("train.py", f"data.path={tmp_path}", "quality=off", f"hydra.run.dir={tmp_path}/run", timeout=3600)
    assert result.returncode == 0, result.stderr
    assert best(tmp_path / "run", "val_f1") < 25


@pytest.mark.slow
def test_a_small_encoder_learns_the_topics_from_random_weights(run: Run, tmp_path: Path) -> None:
    """Which no single word tells (tests/test_text_data.py): the best rule of one word stays far below."""
    result = run(
        "train.py", "model=bert_tiny_classifier", "data=topics_sample", f"hydra.run.dir={tmp_path}/run", timeout=3600
    )
    assert result.returncode == 0, result.stderr
    assert best(tmp_path / "run", "val_accuracy") >= 80
    result = run("train.py", "model=majority", "data=topics_sample", f"hydra.run.dir={tmp_path}/majority", timeout=600)
    assert result.returncode == 0, result.stderr
    assert best(tmp_path / "majority", "val_accuracy") < 25
