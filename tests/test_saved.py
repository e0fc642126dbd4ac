"""A saved model says the same of the same inputs wherever it is asked: validation, evaluate, predict, and without isotrain."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Run

COMMON = (
    "trainer.max_steps=6",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "quality=off",
    "logger=none",
    "optim.lr=1e-3",
)
QUESTIONS = (
    "data=squad_sample",
    "data.sample.train=120",
    "data.sample.val=40",
    "model.vocab_size=400",
    "data.batch_size=8",
)
IMAGES = ("data=image_folder", "data.path=images", "data.batch_size=8", "data.image_size=32",
          "data.suitable.pretrained=false", "data.suitable.stem=small")  # fmt: skip


def encoder(kind: str) -> tuple[str, ...]:
    """Overrides that make a small encoder of a kind from random weights."""
    sizes = {
        "bert": "hidden_size:32,num_hidden_layers:2,num_attention_heads:2,intermediate_size:64",
        "distilbert": "dim:32,n_layers:2,n_heads:2,hidden_dim:64",
        "roberta": "hidden_size:32,num_hidden_layers:2,num_attention_heads:2,intermediate_size:64",
    }
    return ("~model.architecture", f"+model.architecture={{model_type:{kind},{sizes[kind]}}}", "model.pretrained=null")


ENCODERS = {
    "bert_tiny": ("model=bert_tiny",),
    "bert": ("model=bert", *encoder("bert")),
    "distilbert": ("model=distilbert", *encoder("distilbert")),
    "minilm": ("model=minilm", *encoder("roberta")),
}
# Every key of conf/model and conf/data that an answer depends on, at a value that is not its default.
ANSWERING = {
    "defaults": (),
    "short answers": ("model.max_answer_tokens=1", "model.n_best=5"),
    "many windows": ("data.max_length=48", "data.stride=8", "data.max_query_length=8"),
    "no answers": ("data.sample.unanswerable=0.4", "trainer.max_steps=40"),
    "no answers, declared": ("data.version_2=true",),
    "precise": ("trainer.precision=32-true",),
    "coarse": ("trainer.precision=bf16-mixed",),
    "averaged": ("trainer.ema_decay=0.9",),
}
NETWORKS = {
    "resnet18": ("model=resnet18",),
    "resnet50": ("model=resnet50", "model.name=test_resnet", "model.stem=standard"),
    "convnext_tiny": ("model=convnext_tiny", "model.name=test_convnext"),
    "vit_small": ("model=vit_small", "model.name=test_vit"),
}
CLASSIFYING = {
    "defaults": (),
    "standard stem": ("model.stem=standard",),
    "other colours": ("data.mean=[0.2,0.3,0.4]", "data.std=[0.1,0.2,0.3]"),
    "dropout": ("model.dropout=0.3", "model.drop_path=0.1"),
    "arguments": ("model.stem=standard", "+model.arguments={output_stride:16}"),
    "augmented": ("data.augment.label_smoothing=0.1", "data.augment.mixup=0.2"),
    "size": ("data.image_size=48",),
    "coarse": ("trainer.precision=bf16-mixed",),
}


def quick(cases: Iterable[tuple[Any, ...]], *names: str) -> list[Any]:
    """Cases of which only those with these names run in `make test`; the others are `make test-more`'s."""
    return [pytest.param(*case, marks=[] if names_of(case) & set(names) else [pytest.mark.slow]) for case in cases]


def names_of(case: tuple[Any, ...]) -> set[str]:
    """The names in a case: of its model, and of its settings unless they are the default ones."""
    return {name for name in case if isinstance(name, str) and name != "defaults"}


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


_TRAINED: dict[tuple[str, ...], Path] = {}  # folders of runs by their overrides: what two tests train is trained once


def trained(run: Run, folder: Path, *overrides: str) -> None:
    """Makes a finished run in the folder's run/."""
    if overrides in _TRAINED:
        shutil.copytree(_TRAINED[overrides], folder / "run")
        return
    done = run("train.py", *COMMON, *overrides, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    _TRAINED[overrides] = folder / "run"


def predicted(run: Run, folder: str, *args: str) -> list[dict[str, Any]]:
    done = run("-m", "trainers", "predict", f"run={folder}", *args)
    assert done.returncode == 0, done.stderr
    return rows(done.stdout)


def assert_same(predictions: list[dict[str, Any]], validation: list[dict[str, Any]], tolerance: float) -> None:
    """Every field that both say of an example; numbers may differ by what padding does to them."""
    assert len(predictions) == len(validation) > 0
    for one, other in zip(predictions, validation, strict=True):
        for key in (one.keys() & other.keys()) - {"id"}:
            if isinstance(one[key], float):
                assert one[key] == pytest.approx(other[key], abs=tolerance, rel=tolerance), (key, one, other)
            else:
                assert one[key] == other[key], (key, one, other)


# -- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *quick(((model, "defaults") for model in ENCODERS), "bert_tiny"),
        *quick((("bert_tiny", name) for name in ANSWERING if name != "defaults"), "short answers", "no answers"),
    ],
)
def test_predict_answers_what_validation_answered(
    model: str, settings: str, run: Run, tmp_path: Path, cache: Path
) -> None:
    trained(run, tmp_path, *QUESTIONS, *ENCODERS[model], *ANSWERING[settings])
    validation = rows((tmp_path / "run" / "predictions.jsonl").read_text())
    val = source(cache, tmp_path / "run") / "dev-v2.0.json"
    val = val if val.exists() else val.with_name("dev-v1.1.json")
    tolerance = 0.06 if settings == "coarse" or (model != "" and coarse() and settings != "precise") else 2e-4
    at_zero = () if "no answers" not in settings else ("--no-answer-threshold", "0")
    for folder in folders(settings):
        predictions = predicted(run, folder, str(val), *at_zero)
        assert [row["id"] for row in predictions] == [row["id"] for row in validation]
        assert_same(predictions, validation, tolerance)
    evaluated = run("-m", "trainers", "evaluate", "run=run", "trainer.threads=1", "--output", "out")
    assert evaluated.returncode == 0, evaluated.stderr
    scored = rows((tmp_path / "out" / "predictions.jsonl").read_text())
    # Averaged weights lie elsewhere in memory while they are averaged: the last digit may differ.
    if settings == "averaged":
        assert_same(scored, validation, tolerance)
    else:
        assert scored == validation


def folders(settings: str) -> tuple[str, ...]:
    """What is asked: the run's folder, or its model folder alone."""
    return ("run", "run/model") if settings in ("short answers", "other colours") else ("run",)


def coarse() -> bool:
    """Whether this machine trains in bfloat16 by itself."""
    from trainers.hardware import resolve_precision

    return resolve_precision("auto", "cpu") != "32-true"


def source(cache: Path, folder: Path) -> Path:
    """The generated data that a run was trained on."""
    record = json.loads((folder / "run.json").read_text())
    kind, _, name = record["data"]["fingerprints"]["val"].split(":")[0].partition("-")
    return cache / kind / name


def test_predict_uses_the_threshold_that_the_run_measured(run: Run, tmp_path: Path, cache: Path) -> None:
    trained(run, tmp_path, *QUESTIONS, *ENCODERS["bert_tiny"], *ANSWERING["no answers"])
    details = json.loads((tmp_path / "run" / "run.json").read_text())["details"]
    val = source(cache, tmp_path / "run")
    val = next(path for name in ("dev-v2.0.json", "dev-v1.1.json") if (path := val / name).exists())
    answers = {
        question["id"]: [answer["text"] for answer in question["answers"]]
        for article in json.loads(val.read_text())["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }
    from trainers import squad_metrics

    for folder in ("run", "run/model"):
        found = [
            squad_metrics.score(row["prediction"], answers[row["id"]], no_answer=True)
            for row in predicted(run, folder, str(val))
        ]
        assert squad_metrics.totals(found, no_answer=True).f1 == pytest.approx(details["best_f1"], abs=1e-6)


def test_a_plain_transformers_user_gets_the_same_answers(run: Run, tmp_path: Path, cache: Path) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    trained(run, tmp_path, *QUESTIONS, *ENCODERS["bert"], "trainer.precision=32-true")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    network = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "model").eval()
    val = json.loads((source(cache, tmp_path / "run") / "dev-v1.1.json").read_text())
    contexts = {q["id"]: p["context"] for a in val["data"] for p in a["paragraphs"] for q in p["qas"]}
    for row in rows((tmp_path / "run" / "predictions.jsonl").read_text())[:10]:
        batch = tokenizer(row["question"], contexts[row["id"]], return_tensors="pt", return_offsets_mapping=True)
        offsets = batch.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            output = network(**batch)
        first = next(k for k, (begin, _) in enumerate(offsets) if batch["token_type_ids"][0, k] == 1)
        start = next(k for k in range(first, len(offsets)) if offsets[k][0] == row["start"])
        end = next(k for k in range(start, len(offsets)) if offsets[k][1] == row["end"])
        score = float(output.start_logits[0, start] + output.end_logits[0, end])
        assert score == pytest.approx(row["score"], abs=2e-4)


def test_the_runs_own_decoding_is_used(run: Run, tmp_path: Path) -> None:
    trained(run, tmp_path, *QUESTIONS, *ENCODERS["bert_tiny"], "model.max_answer_tokens=1", "model.n_best=3")
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "alone")
    said = json.loads((tmp_path / "alone" / "isotrain.json").read_text())
    assert (said["task"], said["model"]) == ("question_answering", {"n_best": 3, "max_answer_tokens": 1})
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    sample = [f"data.sample.{key}={value}" for key, value in record["config"]["data"]["sample"].items()]
    for name, overrides in (("run", []), ("alone", ["data=squad_sample", *sample])):
        done = run("-m", "trainers", "evaluate", f"run={name}", "trainer.threads=1", *overrides)
        assert done.returncode == 0, done.stderr
        assert f"val_f1={record['metrics']['val_f1']:.4g}"[:12] in done.stdout
    (tmp_path / "alone" / "isotrain.json").unlink()
    done = run("-m", "trainers", "predict", "run=alone", str(write_questions(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "lacks settings that its predictions depend on; using defaults: model.n_best=20" in done.stderr


def test_named_data_keeps_what_chooses_its_examples() -> None:
    """The model's windows and decoding, and whether the data's own questions may have no answer."""
    from config.compose import compose
    from trainers.evaluate import apply_saved_model
    from trainers.saved_model import SavedModel

    settings = {
        "model": {"n_best": 3, "max_answer_tokens": 1},
        "data": {"max_length": 64, "stride": 16, "max_query_length": 64, "version_2": None},
    }
    model = SavedModel(Path("m"), "question_answering", {}, {}, settings, ("data.max_query_length",), {}, "32-true")
    config = compose(["model=bert", "data=squad_v2", "data.max_query_length=9"])
    apply_saved_model(model, config, preprocessing=True)
    assert (config.model.n_best, config.model.max_answer_tokens) == (3, 1)
    assert (config.data.max_length, config.data.stride, config.data.version_2) == (64, 16, True)
    assert config.data.max_query_length == 9  # which the folder does not say


def write_questions(folder: Path) -> Path:
    path = folder / "asked.jsonl"
    path.write_text(json.dumps({"question": "Who?", "context": "Ada wrote it."}) + "\n")
    return path


# -- texts ------------------------------------------------------------------------------------------------------------

TEXTS = (
    "data=topics_sample",
    "data.sample.train=120",
    "data.sample.val=40",
    "model.vocab_size=400",
    "data.batch_size=8",
)
CLASSIFIERS = {
    "bert_tiny_classifier": ("model=bert_tiny_classifier",),
    "bert_classifier": ("model=bert_classifier", *encoder("bert")),
    "distilbert_classifier": ("model=distilbert_classifier", *encoder("distilbert")),
}


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        *quick(((model, ()) for model in CLASSIFIERS), "none"),
        ("bert_tiny_classifier", ("data.max_length=16", "model.label_smoothing=0.1")),
        *quick([("bert_tiny_classifier", ("trainer.precision=32-true", "data.sample.classes=2"))], "none"),
    ],
)
def test_predict_classifies_what_validation_classified(
    model: str, overrides: tuple[str, ...], run: Run, tmp_path: Path, cache: Path
) -> None:
    trained(run, tmp_path, *TEXTS, *CLASSIFIERS[model], *overrides)
    validation = rows((tmp_path / "run" / "predictions.jsonl").read_text())
    val = source(cache, tmp_path / "run") / "val.jsonl"
    tolerance = 0.06 if coarse() and "trainer.precision=32-true" not in overrides else 2e-4
    for folder in ("run", "run/model") if overrides else ("run",):
        predictions = predicted(run, folder, str(val))
        assert [row["id"] for row in predictions] == [row["id"] for row in validation]
        assert_same(predictions, validation, tolerance)
    evaluated = run("-m", "trainers", "evaluate", "run=run", "trainer.threads=1", "--output", "out")
    assert evaluated.returncode == 0, evaluated.stderr
    assert rows((tmp_path / "out" / "predictions.jsonl").read_text()) == validation


def test_a_plain_transformers_user_gets_the_same_classes(run: Run, tmp_path: Path, cache: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    trained(run, tmp_path, *TEXTS, *CLASSIFIERS["bert_classifier"], "trainer.precision=32-true", "data.max_length=24")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    texts = {row["id"]: row["text"] for row in rows((source(cache, tmp_path / "run") / "val.jsonl").read_text())}
    for row in rows((tmp_path / "run" / "predictions.jsonl").read_text())[:10]:
        batch = tokenizer(texts[row["id"]], truncation=True, return_tensors="pt")  # the tokenizer knows the length
        with torch.inference_mode():
            probabilities = network(**batch).logits.softmax(1)[0]
        assert network.config.id2label[int(probabilities.argmax())] == row["prediction"]
        assert float(probabilities.max()) == pytest.approx(row["probability"], abs=2e-4)


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Photographs of all kinds: of several sizes, shapes, modes and formats."""
    random = np.random.default_rng(0)
    kinds = [
        ("RGB", ".png"),
        ("L", ".png"),
        ("I;16", ".png"),
        ("RGB", ".jpg"),
        ("RGB", ".ppm"),
        ("L", ".pgm"),
        ("P", ".png"),
    ]
    for split, count in (("train", 14), ("val", 14)):
        for label in ("stripes", "dots"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                mode, suffix = kinds[number % len(kinds)]
                height, width = (32, 32) if number < 4 else (37 + 5 * number, 64 - number)
                pattern = np.add.outer(np.arange(height) * (label == "dots"), np.arange(width)) % 8 < 4
                grey = np.clip(pattern * 160 + random.integers(0, 90, (height, width)), 0, 255)
                if mode == "I;16":
                    image = Image.fromarray((grey * 256).astype(np.uint16))
                else:
                    image = Image.fromarray(np.stack([grey, grey[::-1], 255 - grey], 2).astype(np.uint8)).convert(mode)
                image.save(folder / f"{number:02d}{suffix}")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *quick(((model, "defaults") for model in NETWORKS), "resnet18", "vit_small"),
        *quick((("resnet18", name) for name in CLASSIFYING if name != "defaults"), "other colours"),
    ],
)
def test_predict_labels_what_validation_labelled(
    model: str, settings: str, run: Run, tmp_path: Path, images: Path
) -> None:
    trained(run, tmp_path, *IMAGES, *NETWORKS[model], *CLASSIFYING[settings])
    validation = rows((tmp_path / "run" / "predictions.jsonl").read_text())
    tolerance = 0.02 if settings == "coarse" or coarse() else 2e-4
    for folder in folders(settings):
        predictions = predicted(run, folder, "images/val")
        assert [row["id"] for row in predictions] == [f"images/{row['id']}" for row in validation]
        assert_same(predictions, validation, tolerance)
    evaluated = run("-m", "trainers", "evaluate", "run=run", "trainer.threads=1", "--output", "out")
    assert evaluated.returncode == 0, evaluated.stderr
    scored = rows((tmp_path / "out" / "predictions.jsonl").read_text())
    # Averaged weights lie elsewhere in memory while they are averaged: the last digit may differ.
    if settings == "averaged":
        assert_same(scored, validation, tolerance)
    else:
        assert scored == validation


@pytest.mark.parametrize("model", NETWORKS)
def test_a_plain_timm_user_gets_the_same_labels(model: str, run: Run, tmp_path: Path, images: Path) -> None:
    import timm
    import torch

    trained(run, tmp_path, *IMAGES, *NETWORKS[model], "trainer.precision=32-true")
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'model'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    for row in rows((tmp_path / "run" / "predictions.jsonl").read_text()):
        with Image.open(images / row["id"]) as image:
            if image.mode.startswith("I;16") or (model == "resnet18" and image.size != (32, 32)):
                continue  # docs/runs.md: 16-bit greys, and other sizes with a small stem, need their own preparation first
            with torch.inference_mode():
                probabilities = network(transform(image.convert("RGB"))[None]).softmax(1)[0]
        assert float(probabilities.max()) == pytest.approx(row["probability"], abs=2e-4), row["id"]


def test_files_that_are_no_images_are_left_out_aloud(run: Run, tmp_path: Path, images: Path) -> None:
    trained(run, tmp_path, *IMAGES, *NETWORKS["resnet18"])
    (images / "val" / "notes.txt").write_text("")
    done = run("-m", "trainers", "predict", "run=run", "images/val")
    assert done.returncode == 0, done.stderr
    assert "images/val: skipped 1 file(s) that are not images, such as images/val/notes.txt" in done.stderr
    assert len(rows(done.stdout)) == 28
