"""What `runs register` leaves is loaded, served and called with MLflow's own means, and answers as `trainers predict`."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas
import pytest
from PIL import Image
from tests.conftest import ROOT, Run
from tests.test_registry import client, registered

from config import files

mlflow = pytest.importorskip("mlflow")

TRAININGS = {
    "questions": ("model=bert_tiny", "data=squad_sample"),
    "texts": ("model=bert_tiny_classifier", "data=topics_sample"),
    "images": ("model=resnet18", "model.pretrained=false", "data=shapes", "data.image_size=32"),
}
TEXTS = [
    {"id": "a", "question": "Who wrote the report?", "context": "Maria wrote the report in Lyon in 1999."},
    {"id": "b", "question": "Where?", "context": "Maria wrote the report in Lyon in 1999."},
    {"id": "c", "question": "When was the report written, and by whom?", "context": "It was in 1999. " * 40},
]
Registered = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def registered_runs(tmp_path_factory: pytest.TempPathFactory, mlflow_store: Callable[[Path], str]) -> dict[str, Any]:
    return {"folder": tmp_path_factory.mktemp("pyfunc"), "store": mlflow_store, "made": {}}


@pytest.fixture
def registered_model(run: Run, registered_runs: dict[str, Any]) -> Registered:
    """Trains for a task, once, and registers the model as "mine"; returns the run folder and the store."""

    def make(task: str) -> tuple[Path, str]:
        if task not in registered_runs["made"]:
            folder = registered_runs["folder"] / task
            settings = (
                "data.sample.train=40",
                "data.sample.val=8",
                "trainer.max_steps=2",
                f"hydra.run.dir={folder}/run",
            )
            done = run("train.py", *TRAININGS[task], *settings)
            assert done.returncode == 0, done.stderr
            store = registered_runs["store"](folder / "m" / "mlflow.db")
            registered(run, folder / "run", "--server", store, "--name", "mine")
            registered_runs["made"][task] = folder / "run", store
        return registered_runs["made"][task]  # type: ignore[no-any-return]

    return make


def load(store: str, version: int = 1) -> Any:
    mlflow.set_tracking_uri(store)
    return mlflow.pyfunc.load_model(f"models:/mine/{version}")


def artifacts(store: str) -> Path:
    """The folder of the registered model in the store."""
    run = client(store).get_model_version("mine", "1").run_id
    return Path(url2pathname(urlparse(client(store).get_run(run).info.artifact_uri).path)) / "model"


def inputs(task: str, folder: Path) -> tuple[list[str], pandas.DataFrame]:
    """Inputs as files for `trainers predict`, and as a data frame."""
    if task == "images":
        paths = []
        for number, colour in enumerate(("red", "grey", "#123456")):
            paths.append(folder / f"{number}.png")
            Image.linear_gradient("L").convert("RGB").resize((40 + number, 64)).rotate(
                9 * number, fillcolor=colour
            ).save(paths[-1])
        return [*map(str, paths)], pandas.DataFrame([{"id": str(path), "image": path.read_bytes()} for path in paths])
    rows = TEXTS if task == "questions" else [{"id": row["id"], "text": row["context"]} for row in TEXTS]
    (folder / "inputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(folder / "inputs.jsonl")], pandas.DataFrame(rows)


@pytest.mark.parametrize("task", TRAININGS)
def test_a_registered_model_answers_as_predict(
    task: str, registered_model: Registered, run: Run, tmp_path: Path
) -> None:
    folder, store = registered_model(task)
    names, frame = inputs(task, tmp_path)
    done = run("-m", "trainers", "predict", f"run={folder}", *names, "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    model = load(store)
    assert model.predict(frame, params={"batch_size": 2}).to_dict("records") == rows
    numbered = model.predict(frame.drop(columns="id"), params={"batch_size": 2}).to_dict("records")
    assert numbered == [{**row, "id": str(number)} for number, row in enumerate(rows, 1)]
    signature = model.metadata.signature
    types = {column.name: column for column in signature.outputs.inputs}
    assert set(rows[0]) <= set(types)
    assert all(column.name in rows[0] for column in types.values() if column.required)
    example = model.predict(model.input_example)
    assert list(example["id"]) == ["1"]
    # Of each column, MLflow's own type of these values.
    inferred = mlflow.models.infer_signature(frame, pandas.DataFrame(rows))
    assert {column.name: column.type for column in inferred.inputs.inputs} == {
        column.name: column.type for column in signature.inputs.inputs
    }
    for column in inferred.outputs.inputs:
        assert column.type == types[column.name].type, column.name


def test_an_input_that_is_wrong_is_an_error_of_the_caller(registered_model: Registered) -> None:
    model = load(registered_model("questions")[1])
    frame = pandas.DataFrame(TEXTS)
    for changed, params, message in (
        (frame.assign(context=[None, "a", "b"]), {}, "row 1: context is missing"),
        (frame.drop(columns="context"), {}, "missing inputs"),
        (frame, {"batch_size": 0}, "batch_size=0: must be 1 or more"),
    ):
        with pytest.raises(mlflow.exceptions.MlflowException, match=message) as refused:
            model.predict(changed, params=params)
        assert refused.value.get_http_status_code() == 400
    model = load(registered_model("images")[1])
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"^b cannot be read as an image"):
        model.predict(pandas.DataFrame([{"id": "b", "image": b"no image"}]))


def test_a_question_without_an_answer_changes_no_others_position(registered_model: Registered) -> None:
    model = load(registered_model("questions")[1])
    rows = [{"id": "1", "start": None, "score": 0.5}, {"id": "2", "start": 3, "score": 1.0}]
    implementation = model._model_impl
    implementation.predictor = SimpleNamespace(columns={}, required=(), predict=lambda *_: rows)
    answers = model.predict(pandas.DataFrame(TEXTS[:2])).to_dict("records")
    assert json.dumps(answers) == json.dumps(rows)


def test_a_version_of_an_earlier_isotrain_gets_its_files(registered_model: Registered, run: Run) -> None:
    folder, store = registered_model("questions")
    model = artifacts(store)
    assert sorted(path.name for path in (folder / "model").iterdir() if not (model / path.name).exists()) == []
    (model / "MLmodel").unlink()
    with pytest.raises(mlflow.exceptions.MlflowException, match="MLmodel"):
        load(store)
    assert registered(run, folder, "--server", store, "--name", "mine")["version"] == "1"
    assert len(load(store).predict(pandas.DataFrame(TEXTS))) == 3


def test_a_task_without_a_predictor_is_registered_with_a_warning(run: Run, tmp_path: Path, mlflow_store: Any) -> None:
    conf, store = ROOT / "tests" / "own_task" / "conf", mlflow_store(tmp_path / "m" / "mlflow.db")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "own_task")])
    settings = (
        "task=counting",
        "model=counter",
        "data=dots",
        "quality=off",
        "trainer.max_steps=2",
        "hydra.run.dir=run",
    )
    done = run("train.py", *settings, cold=True, ISOTRAIN_CONF=str(conf), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    arguments = ("-m", "runs", "register", "run", "--name", "mine", "--server", store)
    done = run(*arguments, cold=True, ISOTRAIN_CONF=str(conf), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert (
        "mlflow.pyfunc cannot load this version: counting.task has no predictor, input_example, OUTPUTS (docs/tasks.md)"
        in done.stderr
    )


def test_files_of_the_working_directory_hide_nothing(registered_model: Registered, tmp_path: Path) -> None:
    _, store = registered_model("questions")
    (tmp_path / "config.py").write_text("raise SystemExit('mine')\n")
    script = (
        "import mlflow, pandas\n"
        f"mlflow.set_tracking_uri({store!r})\n"
        f"print(len(mlflow.pyfunc.load_model('models:/mine/1').predict(pandas.DataFrame({TEXTS!r}))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", str(ROOT / "src")])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def mlflow_command(store: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    program = str(Path(sys.executable).parent / "mlflow")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls uvicorn by name
    variables = {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PATH": path}
    environment = {**os.environ, **variables}
    return [program, "models", *arguments, "-m", "models:/mine/1", "--env-manager", "local"], environment


@pytest.mark.slow
def test_mlflows_commands_predict_and_serve(registered_model: Registered, tmp_path: Path) -> None:
    folder, store = registered_model("images")
    _, frame = inputs("images", tmp_path)
    content = [[row["id"], base64.b64encode(row["image"]).decode()] for row in frame.to_dict("records")]
    request = json.dumps({"dataframe_split": {"columns": ["id", "image"], "data": content}})
    (tmp_path / "request.json").write_text(request)
    rows = load(store).predict(frame).to_dict("records")
    command, environment = mlflow_command(store, "predict", "-i", "request.json", "-t", "json")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["predictions"] == rows
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.rmtree(folder)  # the server has the registry's copy
    command, environment = mlflow_command(store, "serve", "--port", str(port))
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while _post(port, "ping", None)[0] != 200:
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.5)
        status, answer = _post(port, "invocations", request)
        assert (status, answer["predictions"]) == (200, rows)
        status, answer = _post(port, "invocations", json.dumps({"dataframe_records": [{"image": "bm8gaW1hZ2U="}]}))
        assert status == 400, answer
        assert "1 cannot be read as an image" in answer["message"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_workspace_has_the_run_and_the_model(run: Run, tmp_path: Path) -> None:
    """As in a step of Kubeflow Pipelines, which makes a run in the namespace's workspace for it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "mlflow"),
        "server",
        "--enable-workspaces",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", "sqlite:///m.db", "--default-artifact-root", "artifacts"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while _get(f"{address}/health") != 200:
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.5)
        script = (
            "import mlflow, os; c = mlflow.MlflowClient(); c.create_workspace('team'); os.environ['MLFLOW_WORKSPACE'] = 'team'\n"
            "c = mlflow.MlflowClient(); print(c.create_run(c.create_experiment('pipeline')).info.run_id)\n"
        )
        environment = {**os.environ, "MLFLOW_TRACKING_URI": address}
        made = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert made.returncode == 0, made.stderr
        name = made.stdout.split()[-1]
        variables = {"MLFLOW_TRACKING_URI": address, "MLFLOW_WORKSPACE": "team", "MLFLOW_RUN_ID": name}
        settings = (
            "data.sample.train=40",
            "data.sample.val=8",
            "trainer.max_steps=2",
            "logger=mlflow",
            "hydra.run.dir=run",
        )
        done = run("train.py", *TRAININGS["questions"], *settings, **variables)
        assert done.returncode == 0, done.stderr
        done = run("-m", "runs", "register", "run", "--name", "mine", **variables)
        assert done.returncode == 0, done.stderr
        script = (
            "import json, mlflow, os, sys; c = mlflow.MlflowClient(); r = c.get_run(sys.argv[1])\n"
            "mine = [m.name for m in c.search_registered_models()], len(c.search_runs([r.info.experiment_id]))\n"
            "os.environ['MLFLOW_WORKSPACE'] = 'default'; c = mlflow.MlflowClient()\n"
            "others = [m.name for m in c.search_registered_models()]\n"
            "print(json.dumps([r.info.status, r.data.metrics['val_f1'], *mine, others]))\n"
        )
        environment |= variables
        seen = subprocess.run(
            [sys.executable, "-c", script, name], env=environment, capture_output=True, text=True, timeout=120
        )
        assert seen.returncode == 0, seen.stderr
        metric = files.read_json(tmp_path / "run" / "run.json")["metrics"]["val_f1"]
        assert json.loads(seen.stdout) == ["FINISHED", pytest.approx(metric), ["mine"], 1, []]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _get(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return int(answer.status)
    except OSError:
        return 0


def _post(port: int, path: str, body: str | None) -> tuple[int, Any]:
    """The status and content of an answer; 0 if there is none."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}",
        data=None if body is None else body.encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content.strip() else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return 0, None


def test_nothing_is_pickled(registered_model: Registered) -> None:
    folder, store = registered_model("questions")
    model = artifacts(store)
    suffixes = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".yaml", ".txt", ".md", ""}
    assert files.read_json(folder / "run.json")["packages"]["torch"] in (model / "requirements.txt").read_text()
