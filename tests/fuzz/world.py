"""Valid inputs of every command, made by the commands themselves: what `targets` copies and `mutations` damages."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tests.fuzz import children

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[[Path, Sequence[str]], None]  # runs a command of isotrain in a folder; raises if it fails

_ENCODER = "{model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:32}"
ENCODER = ("~model.architecture", f"+model.architecture={_ENCODER}", "model.vocab_size=300")
COMMON = ("trainer.accelerator=cpu", "trainer.threads=1", "logger=none", "trainer.max_steps=2", "data.batch_size=8")
LENGTHS = ("data.max_length=64", "data.stride=16", "data.max_query_length=16")
QUESTIONS = ("model=bert_tiny", *ENCODER, *LENGTHS, "data=squad", "data.path=questions", *COMMON)
TEXTS = ("model=bert_tiny_classifier", *ENCODER, "data=text_folder", "data.path=texts", *COMMON)
IMAGES = (
    *("model=resnet18", "model.name=test_resnet", "model.pretrained=false", "data=image_folder", "data.path=images"),
    *("data.image_size=16", "data.augment.crop_padding=0", *COMMON),
)
NO_GATES = ("quality=off", "explain=off")
SERVER = "sqlite:///registry/mlflow.db"


def build(folder: Path, command: Command) -> None:
    """Fill an empty folder.

    Args:
        folder: The folder. Its cache is in `cache`.
        command: Runs a command line of isotrain there.
    """
    folder.mkdir(parents=True)
    _write_questions(folder / "questions")
    _write_texts(folder / "texts")
    children.call(_write_tables, folder / "text_tables")  # Arrow starts threads
    _write_images(folder / "images")
    _write_inputs(folder)
    for name in ("squad", "text_folder", "image_folder"):
        shutil.copy(ROOT / "contracts" / f"{name}.yaml", folder / f"contract-{name}.yaml")
    for name, overrides in (("qa", QUESTIONS), ("text", TEXTS), ("image", IMAGES)):
        gates = ("quality=warn", "explain=warn", "explain.examples=8", "explain.min_correct=1")
        grid = ("explain.image_classification.grid=2",) if name == "image" else ()
        command(folder, ["train.py", *overrides, *gates, *grid, f"hydra.run.dir=runs/{name}"])
    for seed in (1, 2):
        shutil.copytree(folder / "runs" / "qa", folder / "runs" / f"qa-{seed}")
    _write_unfinished(folder / "runs" / "qa", folder / "runs" / "unfinished")
    command(
        folder,
        [
            "-m",
            "runs",
            "register",
            "runs/qa",
            "--name",
            "qa",
            "--server",
            SERVER,
            "--champion",
            "--despite-gates",
            "--justification",
            "the fuzzer needs a champion",
        ],
    )
    _write_experiment(folder / "search.yaml")
    command(folder, ["-m", "katib", "run", "search.yaml", "--folder", "search"])
    command(folder, ["-m", "katib", "new", "optim.lr=loguniform(1e-5,1e-4)", "-o", "experiment.yaml"])
    command(folder, ["-m", "pipelines", "compile", "-o", "pipeline.yaml"])
    _write_pipeline_run(folder / "outputs" / "pipelines" / "p")


def _write_questions(folder: Path) -> None:
    from datamodules.samples import squad_sample

    squad_sample.write(folder, seed=0, train=24, val=16)


def _write_texts(folder: Path) -> None:
    folder.mkdir()
    for split, count in (("train", 24), ("val", 12)):
        rows = [
            {"text": f"number {i} is {('even', 'odd')[i % 2]} here", "label": ("even", "odd")[i % 2]}
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_tables(folder: Path) -> None:
    import pandas

    folder.mkdir()
    for split in ("train", "val"):
        rows = [json.loads(line) for line in (folder.parent / "texts" / f"{split}.jsonl").read_text().splitlines()]
        frame = pandas.DataFrame(rows)
        frame.to_parquet(folder / f"{split}.parquet")
        (folder / "csv").mkdir(exist_ok=True)
        frame.to_csv(folder / "csv" / f"{split}.csv", index=False)


def _write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, suffix in (("dots", "png"), ("stripes", "jpg")):
            (folder / split / label).mkdir(parents=True)
            for i in range(6):
                pixels = generator.integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.{suffix}")


def _write_inputs(folder: Path) -> None:
    """Write what `predict` reads."""
    questions = [{"id": f"q{i}", "question": "Who?", "context": f"Ada wrote it in {i}."} for i in range(3)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    (folder / "texts.csv").write_text("id,text\na,seven is odd\nb,eight is even\n", encoding="utf-8")


def _write_unfinished(finished: Path, folder: Path) -> None:
    """Make an unfinished run, which goes on from its checkpoint, of a finished one."""
    shutil.copytree(finished, folder)
    for name in ("model", "quality", "explain"):
        shutil.rmtree(folder / name)
    for name in ("report.html", "predictions.jsonl"):
        (folder / name).unlink()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["status"] = "running"
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def _write_experiment(path: Path) -> None:
    """Write an Experiment whose trials are one `echo`."""
    container = {
        "name": "main",
        "image": "none",
        "command": ["sh", "-c", "echo 2026-01-01T00:00:00.0Z loss=${trialParameters.x}"],
    }
    trial = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    spec = {
        "objective": {
            "type": "minimize",
            "objectiveMetricName": "loss",
            "metricStrategies": [{"name": "loss", "value": "min"}],
        },
        "algorithm": {"algorithmName": "random"},
        "parallelTrialCount": 1,
        "maxTrialCount": 2,
        "maxFailedTrialCount": 1,
        "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "1"}}],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": "x", "reference": "x"}],
            "trialSpec": trial,
        },
    }
    document = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "toy"},
        "spec": spec,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=10_000), encoding="utf-8")


def _write_pipeline_run(folder: Path) -> None:
    """Write the records of a pipeline run, of which `pipelines status` prints the steps."""
    (folder / "steps").mkdir(parents=True)
    parameters = {"overrides": ["model=bert_tiny"], "root": "outputs", "image": "none", "quality": "warn"}
    (folder / "parameters.json").write_text(json.dumps(parameters), encoding="utf-8")
    (folder / "pipeline.json").write_text(json.dumps({"state": "failed", "name": "p"}), encoding="utf-8")
    for number, name in enumerate(("prepare", "quality", "train")):
        step = {"step": name, "state": "done", "started": 1.0 + number, "ended": 2.0 + number, "exit": 0, "said": ""}
        (folder / "steps" / f"{name}.json").write_text(json.dumps(step), encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the commands: nothing of this machine but its programs, caches in a folder."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": str(ROOT / "src"),
        "ISOTRAIN_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "cache" / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
