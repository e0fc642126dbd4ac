"""Kueue's queue and the priority class of trials: `katib new` and `submit` with --queue and --priority-class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT, Run
from tests.katib_api_double import Api
from tests.test_katib_cluster import Commands

QUEUE = {"kueue.x-k8s.io/queue-name": "team"}
WORDS = ("model=resnet18", "data=shapes", "optim.lr=loguniform(1e-4,1e-2)", "--max-trials", "3")


@pytest.fixture
def api() -> Iterator[Api]:
    double = Api()
    double.put("trainingruntimes", "team", {"metadata": {"name": "isotrain"}})
    yield double
    double.close()


@pytest.fixture
def commands(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(api, tmp_path, monkeypatch, capsys)


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specs of a Job or PyTorchJob."""
    spec = job["spec"]
    rows = [spec] if "template" in spec else spec["pytorchReplicaSpecs"].values()
    return [row["template"]["spec"] for row in rows]


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob"])
def test_new_puts_trials_into_a_queue(kind: str, commands: Commands) -> None:
    code, out, err = commands("new", *WORDS, "--kind", kind, "--queue", "team", "--priority-class", "high")
    assert (code, "error" in err) == (0, False), err
    job = yaml.safe_load(out)["spec"]["trialTemplate"]["trialSpec"]
    assert job["metadata"]["labels"] == QUEUE
    assert {pod["priorityClassName"] for pod in pods(job)} == {"high"}


def test_a_train_job_has_a_queue_and_the_priority_class_of_its_runtime(commands: Commands) -> None:
    code, out, _ = commands("new", *WORDS, "--kind", "TrainJob", "--queue", "team")
    assert (code, yaml.safe_load(out)["spec"]["trialTemplate"]["trialSpec"]["metadata"]["labels"]) == (0, QUEUE)
    for words in (("--kind", "TrainJob"), ("--to", "OptimizationJob")):
        code, out, err = commands("new", *WORDS, *words, "--priority-class", "high")
        assert (code, out, "set priorityClassName in its TrainingRuntime" in err) == (2, "", True)
    code, out, _ = commands("new", *WORDS, "--to", "OptimizationJob", "--queue", "team")
    assert yaml.safe_load(out)["spec"]["trainJobTemplate"]["metadata"] == {"labels": QUEUE}


def test_without_a_queue_nothing_is_written(commands: Commands) -> None:
    _, out, _ = commands("new", *WORDS)
    assert "metadata" not in yaml.safe_load(out)["spec"]["trialTemplate"]["trialSpec"]
    assert "kueue" not in out
    assert "priorityClassName" not in out


@pytest.mark.parametrize("words", [("--queue", "Team"), ("--queue", "a" * 64), ("--priority-class", "a b")])
def test_names_that_kubernetes_refuses(words: tuple[str, str], api: Api, commands: Commands) -> None:
    code, _, err = commands("submit", ROOT / "katib" / "images-random.yaml", *words)
    assert (code, f"{words[0]} {words[1]}: must be a name" in err) == (2, True)
    assert commands("new", *WORDS, *words)[0] == 2
    assert not [key for key in api.objects if key[0] == "experiments"]


@pytest.mark.parametrize("name", ["images-random", "questions-pytorchjob"])
def test_submit_puts_trials_into_a_queue(name: str, api: Api, commands: Commands) -> None:
    words = ("--queue", "team", "--priority-class", "high")
    code, _, err = commands("submit", ROOT / "katib" / f"{name}.yaml", *words)
    assert code == 0, err
    job = api.objects["experiments", "team", name]["spec"]["trialTemplate"]["trialSpec"]
    assert job["metadata"]["labels"] == QUEUE
    assert {pod["priorityClassName"] for pod in pods(job)} == {"high"}
    code, _, err = commands("submit", ROOT / "katib" / f"{name}.yaml", "--queue", "other")
    assert (code, "differs in spec.trialTemplate.trialSpec.metadata.labels" in err) == (2, True)


def test_submit_puts_an_optimization_job_into_a_queue(api: Api, commands: Commands, run: Run, tmp_path: Path) -> None:
    source = ROOT / "katib" / "images-random.yaml"
    assert run("-m", "katib", "convert", str(source), "--to", "OptimizationJob", "-o", "job.yaml").returncode == 0
    code, _, err = commands("submit", tmp_path / "job.yaml", "--queue", "team")
    assert code == 0, err
    template = api.objects["optimizationjobs", "team", "images-random"]["spec"]["trainJobTemplate"]
    assert template["metadata"] == {"labels": QUEUE}
    code, _, err = commands("submit", tmp_path / "job.yaml", "--priority-class", "high")
    assert (code, "a TrainJob cannot set it" in err) == (2, True)
