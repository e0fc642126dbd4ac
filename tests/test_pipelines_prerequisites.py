"""What later steps need is looked at by the first one, or before anything is sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from tests.katib_api_double import Api

from config.errors import InputError
from config.files import read_json
from pipelines import arguments, compilation, prerequisites, record, retries, steps

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "katib" / "questions-json.yaml"
WORDS = ["model=bert_tiny", "data=squad_sample"]
LATER = {"baseline": "", "tune": "", "tune_backend": "katib", "registered": "m", "server": "", "image": "me/i@sha256:0"}
SPEC = compilation.read_documents(str(ROOT / "pipelines" / "train.yaml"))[0]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    for name in ("MLFLOW_TRACKING_URI", retries.RETRIES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    api = Api()
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    yield api
    api.close()


def run_data(root: Path, later: dict[str, str], overrides: list[str] | None = None) -> dict[str, Any]:
    """The record of the data step, which ends before any data is read."""
    dataset, summary = (
        kind(name=name, uri=str(root / name)) for kind, name in ((dsl.Dataset, "d"), (dsl.Markdown, "s"))
    )
    with pytest.raises(SystemExit) as ended:
        steps.data([*WORDS, *(overrides or [])], str(root), dataset, summary, {**LATER, **later})
    result = read_json(record.run_folder(str(root)) / "steps" / "data.json")
    assert ended.value.code == result["code"] != 0
    assert not [command for command in result["commands"] if "fingerprint" in command["command"]]
    return result


@pytest.mark.parametrize(
    ("later", "overrides", "message"),
    [
        ({"baseline": "/runs/none"}, [], "baseline=/runs/none: there is no run in this folder"),
        ({"tune": "katib/none.yaml"}, [], "tune=katib/none.yaml: there is no such file in the image or on the volume"),
        ({"tune": "/runs/none.yaml"}, [], "tune=/runs/none.yaml: there is no such file in the image or on the volume"),
        ({}, ["init_from=/runs/none"], "init_from=/runs/none: there is no such file or folder on the volume"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_file_of_a_later_step_is_missing(
    later: dict[str, str], overrides: list[str], message: str, tmp_path: Path
) -> None:
    result = run_data(tmp_path, later, overrides)
    assert (result["code"], result["commands"]) == (2, [])
    assert result["message"].startswith(message)


@pytest.mark.parametrize("place", ["server", "variable", "logger"])
def test_an_mlflow_that_does_not_answer_ends_the_run_before_it_begins(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(step: dict[str, Any], name: str, server: str, root: str) -> None:
        asked.append((name, server))
        raise steps.ExecutionError(f"MLflow at {server} does not answer", 7)

    monkeypatch.setattr(steps, "_fetch_champion", read)
    address = "http://mlflow.test:5000"
    if place == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    result = run_data(
        tmp_path,
        {"server": address if place == "server" else ""},
        ["logger=mlflow", f"logger.tracking_uri={address}"] if place == "logger" else [],
    )
    assert (result["code"], asked) == (7, [("m", address)])
    subject = "logger" if place == "logger" else "the registry of models"
    assert result["message"] == f"{subject}, which a later step needs: MLflow at {address} does not answer"


def test_the_file_beside_the_runs_needs_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "run_command", None)
    prerequisites.check_prerequisites({}, WORDS, str(tmp_path), LATER, lambda address: pytest.fail(address))


def test_the_server_is_really_asked(tmp_path: Path) -> None:
    result = run_data(tmp_path, {"server": "http://127.0.0.1:9"})
    assert result["code"] == 7
    assert "MLflow at http://127.0.0.1:9 does not answer" in result["message"]


def test_katib_checks_the_experiment_before_the_run_begins(api: Api, tmp_path: Path) -> None:
    step: dict[str, Any] = {"commands": []}
    later = {**LATER, "tune": str(FILE)}
    prerequisites.check_prerequisites(step, ["model=bert", "data=squad"], str(tmp_path), later, print)
    assert f"POST {'/apis/kubeflow.org/v1beta1/namespaces/team/experiments'}" in api.asked
    assert api.objects == {}
    api.namespaces["team"] = {}
    result = run_data(tmp_path, {"tune": str(FILE)}, ["model=bert", "data=squad"])
    assert (result["code"], api.objects) == (2, {})
    assert (
        f"tune={FILE}, which a later step needs: Katib does not collect metrics in the namespace team"
        in result["message"]
    )


def test_an_experiment_on_the_volume_of_the_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not on the machine that submits: the first step checks it."""
    values = arguments.bind_parameters(SPEC, WORDS, ["tune=/runs/mine/search.yaml"])
    assert values["tune"] == "/runs/mine/search.yaml"
    assert "/runs/mine/search.yaml is on the volume of the steps: the data step checks it" in capsys.readouterr().err
    values = arguments.bind_parameters(SPEC, WORDS, ["tune=/data/search.yaml", "root=/data"])
    assert values["tune"] == "/data/search.yaml"
    for local, words in ((True, ["tune=/runs/mine/search.yaml"]), (False, ["tune=/elsewhere/search.yaml"])):
        with pytest.raises(InputError, match="there is no such file"):
            arguments.bind_parameters(SPEC, WORDS, words, local=local)


@pytest.mark.parametrize(
    ("words", "local", "message"),
    [
        (["trial_cpu=2"], False, "has no effect without -p tune=FILE"),
        (["tune=/runs/x.yaml", "trial_cpu=two"], False, "trial_cpu=two: must be a number of CPUs"),
        (["tune=/runs/x.yaml", "trial_memory=4GB"], False, "trial_memory=4GB: must be an amount of memory"),
        (["tune=/runs/x.yaml", "trial_gpus=-1"], False, "trial_gpus=-1: must be a whole number"),
        (["tune=/runs/x.yaml", "trial_gpus=1", "tune_backend=local"], False, "has no effect with tune_backend=local"),
        (["tune=katib/questions-json.yaml", "trial_cpu=2"], True, "has no effect with tune_backend=local"),
    ],
)
def test_resources_of_trials_that_have_no_effect_are_refused(words: list[str], local: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        arguments.bind_parameters(SPEC, WORDS, words, local=local)


def test_resources_of_trials_reach_katib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ["tune=/runs/x.yaml", "trial_cpu=500m", "trial_memory=4Gi", "trial_gpus=0"]
    assert arguments.bind_parameters(SPEC, WORDS, values)["trial_memory"] == "4Gi"
    commands: list[list[str]] = []

    def run(step: dict[str, Any], *words: str | Path, **_: Any) -> str:
        commands.append([str(word) for word in words])
        best = {"trial": "t", "objective": "val_f1", "value": 1.0, "command": "python train.py optim.lr=1"}
        return json.dumps(best)

    monkeypatch.setattr(steps, "run_command", run)
    resources = {"cpu": "500m", "memory": "4Gi", "gpus": "0"}
    report, summary = dsl.HTML(uri=str(tmp_path / "r")), dsl.Markdown(uri=str(tmp_path / "s"))
    best = steps.tune(str(FILE), "katib", 0, WORDS, "f", "me/i", str(tmp_path), report, summary, resources)
    assert best == ["optim.lr=1"]
    assert " --cpu 500m --memory 4Gi --gpus 0 " in " ".join(commands[0])
