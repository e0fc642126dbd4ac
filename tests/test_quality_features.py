"""What drift compares of a model is what its validation saw: the same predictions, and the features that they come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import tasks
from config.errors import InputError
from datamodules import factory
from quality import facts, features
from quality.features import ModelOutputs


def validation(run: Path, task: str, spill: Path) -> tuple[list[dict[str, Any]], ModelOutputs]:
    """predictions.jsonl of some validation examples, and what `look` says of them."""
    record = json.loads((run / "run.json").read_text())
    data = factory.build(record["config"]["data"])
    rows = features.sample_rows(facts.load_facts(data, task), "val", spill)
    seen = tasks.load_member(task, "model_outputs", "a test")(str(run), data, "val", rows)
    lines = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    predictions = {line["id"]: line for line in lines}
    return [{**predictions[row["id"]], "context": row.get("context")} for row in rows], seen


@pytest.mark.parametrize("stem", ["small", "standard"])
def test_images_are_seen_as_in_validation(run: Any, tmp_path: Path, stem: str) -> None:
    import timm
    import torch

    done = run(
        "train.py", "model=resnet18", f"model.stem={stem}", "data=shapes", "data.sample.train=96", "data.sample.val=48",
        "trainer.max_steps=3", "quality=off", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, seen = validation(tmp_path / "run", "image_classification", tmp_path)
    assert len(rows) == 48
    assert seen.predictions.tolist() == [row["prediction"] for row in rows]
    assert np.allclose(seen.confidence, [row["probability"] for row in rows], atol=1e-5)
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'model'}", pretrained=True)
    with torch.no_grad():
        logits = network.get_classifier()(torch.from_numpy(seen.features).float())
    assert np.allclose(logits.softmax(1).max(1).values, seen.confidence, atol=0.01)  # bfloat16, where there is one


def test_questions_are_seen_as_in_validation(run: Any, tmp_path: Path) -> None:
    done = run(
        "train.py", "model=bert_tiny", "data.sample.train=120", "data.sample.val=40", "data.max_length=64",
        "data.stride=16", "data.max_query_length=24", "model.max_answer_tokens=4", "trainer.max_steps=3", "quality=off",
        "trainer.precision=32-true",  # batches are padded to other lengths, which changes bfloat16 by more
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, seen = validation(tmp_path / "run", "question_answering", tmp_path)
    assert len(rows) >= 10  # one of each paragraph
    places = [row["start"] / len(row["context"]) if row["start"] is not None else np.nan for row in rows]
    assert np.allclose(seen.predictions, places, equal_nan=True)
    assert np.allclose(seen.confidence, [row["probability"] for row in rows], atol=1e-4)
    assert seen.features.shape == (
        len(rows),
        json.loads((tmp_path / "run/model/config.json").read_text())["hidden_size"],
    )
    assert np.isfinite(seen.features).all()
    with pytest.raises(InputError, match="is a model of question_answering, the data is of image_classification"):
        tasks.load_member("image_classification", "model_outputs", "a test")(str(tmp_path / "run"), None, "val", [])


def test_texts_are_seen_as_in_validation(run: Any, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    done = run(
        "train.py", "model=bert_tiny_classifier", "data=topics_sample", "data.sample.train=120", "data.sample.val=40",
        "data.max_length=24", "trainer.max_steps=3", "trainer.precision=32-true", "quality=off",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, seen = validation(tmp_path / "run", "text_classification", tmp_path)
    assert len(rows) == 40
    assert seen.predictions.tolist() == [row["prediction"] for row in rows]
    assert np.allclose(seen.confidence, [row["probability"] for row in rows], atol=1e-5)
    # The features are the encoder's own: of one text, without padding, the mean over its tokens.
    from datamodules.storage import cache
    from datamodules.text import tokenizer
    from datamodules.text.encoding import EncodedTexts

    folder = str(tmp_path / "run" / "model")
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = EncodedTexts.of_records(tokenizer.prepare(cache.root(), tokenizer=folder), [rows[0]["text"]], 24)
    ids = torch.from_numpy(texts.batch([0])["input_ids"][:, : int(texts.lengths[0])])
    with torch.no_grad():
        expected = network.base_model(input_ids=ids).last_hidden_state.mean(1)
    assert np.allclose(seen.features[0], expected, atol=1e-4)
