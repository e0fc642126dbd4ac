"""train.py as a user types it: what it leaves, that others can use it, and that its losses stay what they were."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT, Run, forked, parse_metric_line

from runs import metric_lines

TINY = (
    "~model.architecture",
    "+model.architecture={model_type:bert,hidden_size:32,num_hidden_layers:2,num_attention_heads:2,intermediate_size:64}",
)
QUESTIONS = [
    "train.py",
    "data=squad_sample",
    "data.sample.train=160",
    "data.sample.val=40",
    "data.batch_size=16",
    "model.vocab_size=400",
    *TINY,
    "optim.lr=2e-3",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.deterministic=true",
    "trainer.precision=32-true",
]
IMAGES = [
    "train.py",
    "model=resnet18",
    "data=shapes",
    "data.sample.train=96",
    "data.sample.val=48",
    "data.batch_size=16",
    "optim.lr=1e-3",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.precision=32-true",
    "trainer.deterministic=true",
]


def shown(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics as a metric line has them."""
    return metric_lines.round_metrics(metrics, metric_lines.LINE_DIGITS)


def lines(stdout: str) -> list[metric_lines.MetricLine]:
    """Stdout holds metric lines and nothing else."""
    return [parse_metric_line(line) for line in stdout.splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path, warm: Path) -> dict[str, tuple[Path, str]]:
    """One finished run of each task: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    environment = {**os.environ, "ISOTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    runs = {}
    for name, command in (("questions", QUESTIONS), ("images", IMAGES)):
        done = forked(warm, [str(ROOT / command[0]), *command[1:], f"hydra.run.dir={name}"], folder, environment, 300)
        assert done.returncode == 0, done.stderr
        runs[name] = (folder / name, done.stdout)
    return runs


def test_images_leave_a_confusion_matrix(finished: dict[str, tuple[Path, str]]) -> None:
    folder, _ = finished["images"]
    record = json.loads((folder / "run.json").read_text())
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    counted: dict[str, dict[str, int]] = {}
    for row in rows:
        counted.setdefault(row["label"], {}).setdefault(row["prediction"], 0)
        counted[row["label"]][row["prediction"]] += 1
    assert record["details"]["confusion"] == counted
    assert record["details"]["class_accuracy"] == {
        label: pytest.approx(100 * found.get(label, 0) / sum(found.values()), abs=1e-3)
        for label, found in counted.items()
    }


@pytest.mark.parametrize("task", ["questions", "images"])
def test_the_task_reports_exactly_the_metrics_it_declares(task: str, finished: dict[str, tuple[Path, str]]) -> None:
    folder, stdout = finished[task]
    declared = set(json.loads((folder / "run.json").read_text())["config"]["task"]["metrics"])
    reported = lines(stdout)
    for line in reported[:-1]:
        assert set(line.values) == declared | {"train_loss", "train_examples_per_second", "peak_memory_mib"}
    assert set(reported[-1].values) >= declared


@pytest.mark.parametrize("task", ["questions", "images"])
def test_the_last_line_the_record_the_predictions_and_the_model_agree(
    task: str, finished: dict[str, tuple[Path, str]]
) -> None:
    folder, stdout = finished[task]
    record = json.loads((folder / "run.json").read_text())
    last = lines(stdout)[-1]
    assert shown(record["metrics"]) == last.values
    assert record["status"] == "finished"
    assert [
        metric_lines.format_line(line) for line in metric_lines.read(folder / "metrics.jsonl")
    ] == stdout.splitlines()
    monitored = record["config"]["monitor"]
    assert last.values[monitored] == max(line.values[monitored] for line in lines(stdout))
    rows = [json.loads(row) for row in (folder / "predictions.jsonl").read_text().splitlines()]
    if task == "questions":
        assert np.mean([row["f1"] for row in rows]) * 100 == pytest.approx(last.values["val_f1"])
        assert len(rows) == 40
    else:
        assert np.mean([row["correct"] for row in rows]) * 100 == pytest.approx(last.values["val_accuracy"])
        assert len(rows) == 48


def test_the_record_is_complete(finished: dict[str, tuple[Path, str]]) -> None:
    record = json.loads((finished["questions"][0] / "run.json").read_text())
    for key in (
        "config",
        "config_hash",
        "git",
        "lock_hash",
        "data",
        "packages",
        "hardware",
        "seeds",
        "timings",
        "utilisation",
        "peak_memory",
        "parent",
        "metrics",
        "command",
        "started",
        "ended",
        "choices",
    ):
        assert key in record, key
    assert set(record["timings"]) == {"data", "quality", "model", "fit", "export", "explain"}
    assert set(record["data"]["fingerprints"]) == {"train", "val"}
    assert record["choices"]["model"] == "bert_tiny"
    assert {"torch", "lightning", "transformers", "timm", "hydra-core"} <= set(record["packages"])
    assert sorted(path.name for path in (finished["questions"][0] / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]


def test_transformers_loads_the_model_folder_and_gives_the_same_answers(finished: dict[str, tuple[Path, str]]) -> None:
    """Plain transformers, the recipe's way: nothing of ours is imported to predict."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    folder, _ = finished["questions"]
    model = AutoModelForQuestionAnswering.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = {row["id"]: row for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())}
    questions = {}
    for found in (
        Path(json.loads((folder / "run.json").read_text())["data"]["val"]["cache"])
        .parents[1]
        .glob("squad_sample/*/dev*")
    ):
        for article in json.loads(found.read_text())["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    questions[qa["id"]] = (qa["question"], paragraph["context"])
    for key, row in rows.items():
        question, context = questions[key]
        inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        inside = [i for i, part in enumerate(inputs.sequence_ids(0)) if part == 1]
        with torch.inference_mode():
            output = model(**inputs)
        starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        spans = [(starts[i] + ends[j], i, j) for i in inside for j in inside if i <= j < i + 30]
        best = max(spans)[0] - 1e-4  # the last digits choose among spans that are equally likely
        assert row["prediction"] in {context[offsets[i][0] : offsets[j][1]] for score, i, j in spans if score >= best}


def generated(cache: Path, run_folder: Path) -> Path:
    """The folder of the shapes that a run was trained on."""
    fingerprint = json.loads((run_folder / "run.json").read_text())["data"]["fingerprints"]["val"]
    return cache / "shapes" / fingerprint.removeprefix("shapes-").partition(":")[0]


def test_timm_loads_the_model_folder_and_gives_the_same_labels(
    finished: dict[str, tuple[Path, str]], cache: Path
) -> None:
    """Plain timm with its own preprocessing; the small stem is exported in timm's own shape."""
    import timm
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    folder, _ = finished["images"]
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["model"]["stem"] == "small"
    model = timm.create_model(f"local-dir:{folder / 'model'}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model), is_training=False)
    names = json.loads((folder / "model" / "config.json").read_text())["label_names"]
    rows = [json.loads(row) for row in (folder / "predictions.jsonl").read_text().splitlines()]
    source = generated(cache, folder)
    for row in rows:
        with Image.open(source / row["id"]) as image, torch.inference_mode():
            probabilities = model(transform(image.convert("RGB"))[None]).softmax(1)[0]
        assert names[int(probabilities.argmax())] == row["prediction"]
        assert float(probabilities.max()) == pytest.approx(row["probability"], abs=1e-4)


@pytest.mark.parametrize("task", ["questions", "images"])
def test_evaluating_the_run_and_its_plain_model_folder_gives_the_trained_metrics(
    task: str, finished: dict[str, tuple[Path, str]], run: Run, tmp_path: Path
) -> None:
    folder, stdout = finished[task]
    record = json.loads((folder / "run.json").read_text())
    done = run("-m", "trainers", "evaluate", f"run={folder}", "trainer.threads=1", "--output", "out")
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout)
    declared = {
        name: value for name, value in lines(stdout)[-1].values.items() if name in record["config"]["task"]["metrics"]
    }
    assert line.values == declared
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == (folder / "predictions.jsonl").read_text()
    compared = run("-m", "runs", "compare", str(folder), "out", "--json")
    assert compared.returncode == 0, compared.stderr
    assert all(each["difference"]["value"] == 0 for each in json.loads(compared.stdout)["results"])
    assert run("train.py", "hydra.run.dir=out").returncode == 2  # an evaluation is nothing to go on with
    before = (folder / "run.json").read_bytes()
    refused = run("-m", "trainers", "evaluate", f"run={folder}", "--output", str(folder))
    assert (refused.returncode, "whose record would be lost" in refused.stderr) == (2, True), refused.stderr
    assert (folder / "run.json").read_bytes() == before


def test_predict_answers_from_standard_input(finished: dict[str, tuple[Path, str]], run: Run, tmp_path: Path) -> None:
    rows = [json.loads(row) for row in (finished["questions"][0] / "predictions.jsonl").read_text().splitlines()]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(
        "".join(
            json.dumps({"id": str(i), "question": "Which one?", "context": row["answers"][0] + " is it."}) + "\n"
            for i, row in enumerate(rows)
        )
    )
    done = run("-m", "trainers", "predict", f"run={finished['questions'][0]}", "asked.jsonl")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [str(i) for i in range(len(rows))]
    for answer, row in zip(answers, rows, strict=True):
        context = row["answers"][0] + " is it."
        assert context[answer["start"] : answer["end"]] == answer["prediction"]
    asked.write_text('{"question": "Which one?"}\n')
    broken = run("-m", "trainers", "predict", f"run={finished['questions'][0]}", "asked.jsonl")
    assert broken.returncode == 2
    assert "asked.jsonl: line 1: the column 'context' is missing" in broken.stderr


def test_predict_labels_a_folder_of_images(finished: dict[str, tuple[Path, str]], run: Run, cache: Path) -> None:
    folder, _ = finished["images"]
    rows = {
        Path(row["id"]).name: row for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    }
    source = generated(cache, folder) / "val"
    done = run("-m", "trainers", "predict", f"run={folder}", str(source))
    assert done.returncode == 0, done.stderr
    labelled = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(row["id"]).name: row["prediction"] for row in labelled} == {
        k: row["prediction"] for k, row in rows.items()
    }


def test_a_new_run_starts_from_old_weights(finished: dict[str, tuple[Path, str]], run: Run, tmp_path: Path) -> None:
    folder, stdout = finished["questions"]
    done = run(*QUESTIONS, f"init_from={folder}", "optim.lr=1e-12", "trainer.max_epochs=1", "hydra.run.dir=new")
    assert done.returncode == 0, done.stderr
    # Not F1: of answers that are nearly as likely, the last digit chooses.
    assert lines(done.stdout)[-1].values["val_loss"] == pytest.approx(lines(stdout)[-1].values["val_loss"], rel=1e-4)
    assert json.loads((tmp_path / "new" / "run.json").read_text())["parent"]["init_from"] == str(folder)
    other = run(*QUESTIONS, f"init_from={folder}", "model.architecture.hidden_size=16")
    assert other.returncode == 2
    assert "the weights are of another architecture" in other.stderr


# Losses of two small runs, per epoch, on one thread in float32: "proof of value" for every change to the training path.
# A change that moves them says so, and why, in its commit. The failure shows what they are now.
GOLDEN: dict[str, list[float]] = json.loads((ROOT / "tests" / "golden_losses.json").read_text())


@pytest.mark.parametrize("task", ["questions", "images"])
def test_losses_are_what_they_were(task: str, finished: dict[str, tuple[Path, str]]) -> None:
    losses: list[Any] = [line.values["train_loss"] for line in lines(finished[task][1]) if "train_loss" in line.values]
    assert losses == pytest.approx(GOLDEN[task], rel=1e-3), f"now {losses}"


@pytest.mark.parametrize(
    ("model", "data"), [("majority", "squad_sample"), ("lexical", "squad_sample"), ("majority", "shapes")]
)
def test_baselines_go_through_the_same_command(model: str, data: str, run: Run, tmp_path: Path) -> None:
    done = run(
        "train.py", f"model={model}", f"data={data}", "data.sample.train=120", "data.sample.val=48", "hydra.run.dir=b"
    )
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[-1].values == shown(json.loads((tmp_path / "b" / "run.json").read_text())["metrics"])
    assert (tmp_path / "b" / "model" / "baseline.json").exists()
    assert len((tmp_path / "b" / "predictions.jsonl").read_text().splitlines()) == 48


@pytest.mark.parametrize(
    ("model", "data", "metric", "bound"),
    [
        ("majority", "squad_sample", "val_f1", 25),
        ("lexical", "squad_sample", "val_f1", 25),
        ("majority", "shapes", "val_accuracy", 2 * 100 / 12),
    ],
)
def test_generated_data_gives_baselines_nothing(
    model: str, data: str, metric: str, bound: float, run: Run, tmp_path: Path
) -> None:
    size = ["data.sample.train=1500", "data.sample.val=1000"] if data == "squad_sample" else ["data.sample.train=480"]
    done = run("train.py", f"model={model}", f"data={data}", *size, "hydra.run.dir=b")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "b" / "run.json").read_text())["metrics"][metric] < bound


def test_help_and_completion_import_nothing_heavy(run: Run) -> None:
    for arguments in (
        ["train.py", "--help"],
        ["train.py", "--cfg", "job"],
        ["train.py", "--shell-completion", "install=bash"],
        ["-m", "datamodules", "--help"],
        ["-m", "trainers", "--help"],
        ["-m", "runs", "--help"],
    ):
        done = run(
            "-X",
            "importtime",
            *([str(ROOT / arguments[0])] if arguments[0] == "train.py" else arguments[:1]),
            *arguments[1:],
        )
        assert done.returncode == 0, done.stderr
        imported = {
            line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        }
        assert not {"torch", "lightning", "transformers", "timm", "pyarrow"} & imported, arguments
