"""OptimizationJobs on a cluster, where no controller is: TrainJobs are those that its open design describes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests import optimization_job_cases as table
from tests.conftest import Run
from tests.katib_api_double import Api
from tests.optimization_job_cases import Value
from tests.test_katib_cluster import Commands

from katib import (
    optimization_job,
)


@pytest.fixture
def api() -> Iterator[Api]:
    double = Api()
    double.put("trainingruntimes", "team", {"metadata": {"name": "isotrain"}})
    yield double
    double.close()


@pytest.fixture
def commands(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(api, tmp_path, monkeypatch, capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(optimization_job.format_yaml(table.base()))
    return path


def put_train_job(api: Api, name: str, owner: str, status: Value, **parameters: str) -> None:
    rows = [{"name": f"{optimization_job.VARIABLE}{key}", "value": value} for key, value in parameters.items()]
    owners = [{"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "OptimizationJob", "name": owner}]
    value = {
        "metadata": {"name": name, "ownerReferences": owners},
        "spec": {"trainer": {"env": rows}},
        "status": status,
    }
    api.put("trainjobs", "team", value)


def ended(condition: str, f1: str | None = None) -> Value:
    time = "2026-01-01T01:00:00Z"
    metrics = [] if f1 is None else [{"name": "val_f1", "value": f1}, {"name": "val_loss", "value": "0.5"}]
    row = {"type": condition, "status": "True", "lastTransitionTime": time, "message": "its end", "reason": "End"}
    return {"conditions": [row], "trainerStatus": {"metrics": metrics}}


def fill(api: Api, condition: str = "") -> None:
    """What a controller would leave: four trials, and perhaps the end."""
    put_train_job(api, "search-a", "search", ended("Complete", "80.5"), lr="0.0001", batch_size="8")
    put_train_job(api, "search-b", "search", ended("Complete", "90.25"), lr="0.0002", batch_size="16")
    put_train_job(api, "search-c", "search", ended("Failed"), lr="0.0003", batch_size="16")
    put_train_job(api, "search-d", "search", ended("Complete"), lr="0.0004", batch_size="16")
    put_train_job(api, "other-a", "other", ended("Complete", "99"), lr="0.0004", batch_size="16")
    if condition:
        value = api.objects["optimizationjobs", "team", "search"]
        parameters = [{"name": "lr", "value": "0.0002"}, {"name": "batch_size", "value": "16"}]
        row = {"type": condition, "status": "True", "reason": "MaxTrialsReached", "message": "all trials ran"}
        value["status"] = {"conditions": [row], "result": {"trainJobName": "search-b", "parameters": parameters}}
        api.put("optimizationjobs", "team", value)


def test_submit_stores_the_file_and_says_that_nothing_runs_it(api: Api, commands: Commands, file: Path) -> None:
    code, _, err = commands("submit", file)
    assert code == 0, err
    assert api.objects["optimizationjobs", "team", "search"]["spec"] == table.base()["spec"]
    assert "created the OptimizationJob search in team" in err
    assert "no release of Kubeflow Trainer has a controller" in err
    code, _, err = commands("submit", file)
    assert (code, "the same OptimizationJob search exists already" in err) == (0, True)
    code, _, err = commands("submit", file, "--max-trials", "3")
    assert (code, "which differs in spec.numTrials" in err) == (2, True)
    code, _, err = commands("watch", "search", "--timeout", "0.1")
    assert (code, "no controller has taken it up" in err) == (7, True)
    code, _, err = commands("submit", file, "--name", "dry", "--dry-run")
    assert (code, "team accepts the OptimizationJob dry; nothing created" in err) == (0, True)
    assert ("optimizationjobs", "team", "dry") not in api.objects


def test_submit_changes_the_command_image_and_counts(api: Api, commands: Commands, file: Path) -> None:
    words = ("seed=3", "data.batch_size=32", "--name", "mine", "--max-trials", "1", "--image", "other:2", "--cpu", "3")
    code, _, err = commands("submit", file, *words)
    assert code == 0, err
    value = api.objects["optimizationjobs", "team", "mine"]
    trainer = value["spec"]["trainJobTemplate"]["spec"]["trainer"]
    assert trainer["command"] == [
        *table.COMMAND[:5],
        "data.batch_size=32",
        table.COMMAND[6],
        "seed=3",
        "data.batch_size=32",
    ]
    assert (trainer["image"], trainer["env"]) == ("other:2", [table.TRIAL_NAME])
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "3"}
    assert [row["name"] for row in value["spec"]["parameters"]] == ["lr"]
    assert (value["spec"]["numTrials"], value["spec"]["parallelTrials"]) == (1, 1)
    assert value["spec"]["searchAlgorithm"] == {"random": {"seed": 1}}


def test_a_missing_runtime_and_errors_are_refused(api: Api, commands: Commands, file: Path) -> None:
    del api.objects["trainingruntimes", "team", "isotrain"]
    code, _, err = commands("submit", file)
    assert (code, "has no TrainingRuntime isotrain; kubectl apply" in err) == (2, True)
    file.write_text(file.read_text().replace("numTrials: 4", "numTrials: 1"))
    code, _, err = commands("submit", file)
    assert (code, "K503" in err) == (2, True)
    assert not [key for key in api.objects if key[0] == "optimizationjobs"]


def test_trials_are_the_train_jobs(api: Api, commands: Commands, file: Path, tmp_path: Path) -> None:
    commands("submit", file)
    fill(api)
    code, out, err = commands("trials", "search", "--json", "--report", tmp_path / "r.html")
    assert code == 0, err
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(("search-a", "search-b"), "Succeeded"),
        **{"search-c": "Failed", "search-d": "MetricsUnavailable"},
    }
    assert rows["search-b"]["value"] == 90.25
    assert rows["search-b"]["assignments"] == {"optim.lr": "0.0002", "data.batch_size": "16"}
    assert "search-c failed: its end" in err
    assert "is Trainer's feature gate TrainJobStatus on?" in err
    assert "search-b" in (tmp_path / "r.html").read_text()


def test_best_and_watch_at_the_end(api: Api, commands: Commands, file: Path) -> None:
    commands("submit", file)
    code, _, err = commands("best", "search")
    assert (code, "search has no best trial yet" in err) == (2, True)
    fill(api, "Complete")
    code, out, err = commands("best", "search")
    assert (code, out) == (0, "optim.lr=0.0002 data.batch_size=16\n")
    assert "search-b: val_f1 90.25" in err
    code, out, _ = commands("best", "search", "--json")
    assert json.loads(out)["command"].endswith("optim.lr=0.0002 data.batch_size=16")
    code, out, err = commands("watch", "search")
    assert (code, "90.25" in out, "Succeeded: all trials ran" in err) == (0, True, True)
    code, _, err = commands("submit", file)
    assert (code, "controller" in err) == (0, False)
    fill(api, "Failed")
    assert commands("watch", "search")[0] == 6


def test_why_a_train_job_does_not_run(api: Api, commands: Commands, file: Path) -> None:
    commands("submit", file)
    put_train_job(api, "search-a", "search", {"jobsStatus": [{"name": "node", "active": 1}]}, lr="0.1", batch_size="8")
    pod = api.pod("search", "search-a-node-0-0", {"phase": "Pending"}, "search-a")
    pod["metadata"]["labels"] = {"jobset.sigs.k8s.io/jobset-name": "search-a"}
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pod["status"]["containerStatuses"] = [{"name": "training", "image": "isotrain:0.1.0", "state": waiting}]
    api.pod("foreign", "foreign-0", {"phase": "Pending"})
    code, out, err = commands("trials", "search")
    assert code == 0
    assert "search-a" in out
    assert "search-a does not run: the image isotrain:0.1.0 cannot be pulled" in err


def test_delete_waits_for_train_jobs_and_pods(api: Api, commands: Commands, file: Path) -> None:
    commands("submit", file)
    fill(api)
    api.lingers = 2
    code, _, err = commands("delete", "search", "--unfinished")
    assert (code, "deleted the OptimizationJob search from team" in err) == (0, True)
    assert [key for key in api.objects if key[0] == "trainjobs"] == [("trainjobs", "team", "other-a")]
    code, _, err = commands("delete", "search")
    assert (code, "the namespace team has no Experiment search" in err) == (2, True)


def test_without_katib_an_optimization_job_is_found(api: Api, commands: Commands, file: Path) -> None:
    api.has_katib = False
    commands("submit", file)
    fill(api, "Complete")
    assert commands("best", "search")[0] == 0
    code, _, err = commands("best", "nothing")
    assert (code, "Katib is not installed" in err) == (2, True)


def test_a_cluster_without_the_crd(api: Api, commands: Commands, file: Path) -> None:
    api.has_optimization_jobs = False
    code, _, err = commands("submit", file)
    assert (code, "the cluster has no OptimizationJobs: their CRD is on Kubeflow Trainer's master" in err) == (2, True)
    code, _, err = commands("best", "search")
    assert (code, "the namespace team has no Experiment search" in err) == (2, True)


def test_new_writes_an_optimization_job(run: Run, tmp_path: Path) -> None:
    words = ("model=resnet18", "data=shapes", "optim.lr=loguniform(1e-4,1e-2)", "--max-trials", "3")
    done = run("-m", "katib", "new", *words, "--to", "OptimizationJob", "-o", "a.yaml")
    assert done.returncode == 0, done.stderr
    assert "note K511" in done.stderr
    text = (tmp_path / "a.yaml").read_text()
    value = yaml.safe_load(text)
    assert value["kind"] == "OptimizationJob"
    assert value["spec"]["trainJobTemplate"]["spec"]["trainer"]["numNodes"] == 1
    done = run("-m", "katib", "new", "--again", "a.yaml")
    assert (done.returncode, (tmp_path / "a.yaml").read_text()) == (0, text)
    done = run("-m", "katib", "new", *words, "--to", "OptimizationJob", "--algorithm", "cmaes")
    assert (done.returncode, "cmaes has no counterpart" in done.stderr) == (2, True)
