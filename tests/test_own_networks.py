"""A plain torch.nn.Module of the user's own, in a package with its own conf/: every command takes it as a shipped model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT, forked, needs_torch

Command = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("quality=off", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.precision=32-true")
DATA = {
    "smallnet": ("data=shapes", "data.sample.train=64", "data.sample.val=24"),
    "step": ("data=shapes", "data.sample.train=64", "data.sample.val=24"),
    "bag": ("data=topics_sample", "data.sample.train=128", "data.sample.val=24"),
    "reader": ("data=squad_sample", "data.sample.train=64", "data.sample.val=16"),
}


@pytest.fixture
def environment(tmp_path: Path, cache: Path) -> dict[str, str]:
    """What a user exports: where the package and its configuration are."""
    shutil.copytree(ROOT / "tests" / "own_networks", tmp_path / "own")
    return {
        **os.environ,
        "ISOTRAIN_CONF": str(tmp_path / "own" / "conf"),
        "PYTHONPATH": f"{tmp_path / 'own'}:{ROOT / 'src'}",
        "ISOTRAIN_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path, warm: Path) -> Command:
    """Runs a command line as that user."""

    def call(*args: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
        head = [str(ROOT / "train.py")] if args[0] == "train.py" else [args[0]]
        if needs_torch(args):
            done = forked(warm, [*head, *args[1:]], tmp_path, environment, 600)
        else:
            done = subprocess.run(
                [sys.executable, *head, *args[1:]], cwd=tmp_path, env=environment,
                capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        return done

    return call


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(command: Command, model: str, folder: str, *words: str) -> None:
    command("train.py", f"model={model}", *DATA[model], *SMALL, *words, f"hydra.run.dir={folder}")


def test_a_network_is_trained_evaluated_and_predicts(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    train(command, "smallnet", "a", "trainer.max_steps=4", "model.width=6")
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert str(tmp_path / "own" / "mine") in record["own_code"]["folders"]
    stored = json.loads((tmp_path / "a" / "model" / "isotrain.json").read_text())
    assert stored["choice"] == "smallnet"
    assert stored["model_settings"]["width"] == 6
    assert "mine.images" not in json.dumps(stored)

    shutil.copytree(tmp_path / "a" / "model", tmp_path / "exported")
    for name in ("a", "exported"):
        given = (*DATA["smallnet"], "trainer.precision=32-true")  # a model folder names no data
        words = ("trainer.threads=1", "trainer.accelerator=cpu", "--output", f"{name}-again")
        command("-m", "trainers", "evaluate", f"run={name}", *(given if name != "a" else ()), *words)
        assert rows(tmp_path / f"{name}-again" / "predictions.jsonl") == rows(tmp_path / "a" / "predictions.jsonl")
    images = pictures(Path(environment["ISOTRAIN_CACHE"]), record)
    done = command("-m", "trainers", "predict", "run=exported", images)
    predicted = {Path(row["id"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    validated = {Path(row["id"]).name: row for row in rows(tmp_path / "a" / "predictions.jsonl")}
    assert predicted.keys() == validated.keys()
    for key, row in validated.items():
        assert predicted[key]["top5"] == row["top5"]
        assert predicted[key]["probability"] == pytest.approx(row["probability"], abs=1e-5)

    # Another width than the folder's settings say.
    stored["model_settings"]["width"] = 7
    (tmp_path / "exported" / "isotrain.json").write_text(json.dumps(stored))
    assert "of another architecture" in command("-m", "trainers", "predict", "run=exported", images, expected=2).stderr

    # A class is never taken from the folder; without the choice, the message says which one and how to name its folder.
    own = environment.pop("ISOTRAIN_CONF")
    done = command("-m", "trainers", "predict", "run=a", images, expected=2)
    assert "is a network of model=smallnet, and no configuration folder has model/smallnet.yaml" in done.stderr
    assert "ISOTRAIN_CONF=" in done.stderr
    command("-m", "trainers", "evaluate", "run=a", "trainer.accelerator=cpu", f"hydra.searchpath=[file://{own}]")
    done = command("-m", "trainers", "predict", "run=a", images, f"hydra.searchpath=[{own}]")
    assert len(done.stdout.splitlines()) == record["config"]["data"]["sample"]["val"]
    record["choices"]["model"] = "resnet18"
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))
    done = command("-m", "trainers", "predict", "run=a", images, expected=2)
    assert "model=resnet18 is trainers.image_classification.ImageClassification" in done.stderr


def pictures(cache: Path, record: Mapping[str, Any]) -> str:
    """The folder with the validation images of a run on data=shapes."""
    count = record["config"]["data"]["sample"]["val"]
    folders = [path for path in cache.glob("shapes/*/val/images") if len(list(path.iterdir())) == count]
    return str(folders[0])


MISTAKES = {
    "another number of classes": (
        "smallnet", ("model._target_=mine.mistakes.OtherClasses", "~model.width"),
        "mine.mistakes.OtherClasses returns [2, 13] for inputs [2, 3, 64, 64], but must return logits [2, 12]",
    ),
    "no tokens": (
        "bag", ("model._target_=mine.mistakes.OtherInputs", "~model.width"),
        "forward of mine.mistakes.OtherInputs has no argument input_ids",
    ),
    "another protocol": (
        "smallnet", ("model._target_=mine.mistakes.OtherProtocol",),
        "a LightningModule must be derived from trainers.task.Task",
    ),
    "no network": (
        "smallnet", ("model._target_=mine.mistakes.no_network", "~model.width"),
        "model._target_=mine.mistakes.no_network returns dict, but must return a torch.nn.Module",
    ),
    "no mean": (
        "smallnet", ("+model.loss={_target_: mine.mistakes.losses, _partial_: true}",),
        "model.loss returns a tensor [32], but must return the mean over the batch",
    ),
    "a function that is not partial": (
        "smallnet", ("+model.loss={_target_: mine.images.focal, gamma: 2.0}",),
        "model.loss: mine.images.focal requires the argument logits; for a function of logits and targets, add _partial_: true",
    ),
    "an unknown argument": ("smallnet", ("+model.widht=4",), "did you mean width?"),
    "an unknown argument of the loss": (
        "bag", ("+model.loss.label_smothing=0.1",),
        "model.loss.label_smothing: torch.nn.CrossEntropyLoss has no such argument (did you mean label_smoothing?)",
    ),
    "a wrong type": ("smallnet", ("model.width=wide",), "model.width=wide: must be a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake: str, command: Command) -> None:
    model, words, message = MISTAKES[mistake]
    done = command(
        "train.py", f"model={model}", *DATA[model], *SMALL, *words, "trainer.max_steps=1", "hydra.run.dir=a", expected=2
    )
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_searches_check_its_signature(command: Command, tmp_path: Path) -> None:
    search = ("model.width=choice(4,8)", "--max-trials", "2", "--algorithm", "random")
    done = command("-m", "katib", "new", "model=smallnet", *DATA["smallnet"], *SMALL, *search)
    assert yaml.safe_load(done.stdout)["spec"]["objective"]["objectiveMetricName"] == "val_accuracy"
    (tmp_path / "search.yaml").write_text(done.stdout)
    command("-m", "katib", "check", "search.yaml")
    for right, wrong, message in (("model.width", "model.wide", "model.wide"), ('"8"', '"eight"', "whole number")):
        assert right in done.stdout
        (tmp_path / "broken.yaml").write_text(done.stdout.replace(right, wrong))
        assert message in command("-m", "katib", "check", "broken.yaml", expected=2).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("smallnet", ("+model.loss={_target_: mine.images.focal, _partial_: true, gamma: 2.0}",)),
        ("step", ()),
        ("bag", ()),
        ("reader", ("+model.n_best=5",)),
    ],
)
def test_each_kind_is_scored_again_explained_and_compared(
    model: str, words: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    train(command, model, "a", "trainer.max_steps=6", *words)
    train(command, model, "b", "trainer.max_steps=2", "seed=1")
    train(command, model, "c", "trainer.max_steps=1", "init_from=a/model", *words)
    command("-m", "trainers", "evaluate", "run=a", "trainer.threads=1", "trainer.accelerator=cpu", "--output", "again")
    validated = rows(tmp_path / "a" / "predictions.jsonl")
    assert rows(tmp_path / "again" / "predictions.jsonl") == validated
    if model in ("bag", "reader"):
        keys = {"bag": ("id", "text"), "reader": ("id", "question", "context")}[model]
        texts = tmp_path / "inputs.jsonl"
        sources = validated if model == "bag" else questions(command, tmp_path)
        texts.write_text("".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in sources))
        done = command("-m", "trainers", "predict", "run=a/model", "inputs.jsonl")
        predicted = {row["id"]: row for row in map(json.loads, done.stdout.splitlines())}
        assert predicted.keys() == {row["id"] for row in validated}
        for row in validated:
            assert predicted[row["id"]]["prediction"] == row["prediction"]
            assert predicted[row["id"]]["probability"] == pytest.approx(row["probability"], abs=1e-4)
    # Inconclusive: four examples are too few to judge.
    command("-m", "explain", "run=a", "explain.examples=4", "trainer.threads=1", "trainer.accelerator=cpu", expected=5)
    verdict = json.loads((tmp_path / "a" / "explain" / "verdict.json").read_text())
    assert {"learned"} <= {measure["name"] for measure in verdict["measures"]} or model == "reader"
    assert json.loads(command("-m", "runs", "compare", "a", "b", "--json").stdout)["examples"] == len(validated)
    assert "loads it" not in command("-m", "runs", "show", "a").stdout


def questions(command: Command, tmp_path: Path) -> list[dict[str, Any]]:
    """The validation questions of run a, with their paragraphs."""
    config = json.loads((tmp_path / "a" / "run.json").read_text())["config"]["data"]
    from datamodules.samples import squad_sample

    folder = tmp_path / "sample"
    folder.mkdir()
    squad_sample.write(folder, **config["sample"])
    (file,) = [path for path in folder.iterdir() if path.name.startswith("dev")]
    return [
        {"id": question["id"], "question": question["question"], "context": paragraph["context"]}
        for document in json.loads(file.read_text())["data"]
        for paragraph in document["paragraphs"]
        for question in paragraph["qas"]
    ]
