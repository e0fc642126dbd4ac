"""Each tracker in its offline mode: a short training through Lightning, read back by its own reader."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from config.errors import InputError
from runs import folder as folders
from runs import listing, metric_lines, predictions, record
from trainers import loggers

CONF = Path(__file__).resolve().parents[1] / "conf"
CHOICES = ("csv", "tensorboard", "mlflow", "wandb", "clearml")
TRACKERS = ("tensorboard", "mlflow", "wandb", "clearml")
FINGERPRINTS = {"train": "a" * 64, "val": "b" * 64}


class Slope(pl.LightningModule):
    """One weight that learns to be two."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = ((self.weight - 2) * batch).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val_loss", ((self.weight - 2) * batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Whoever wants to leave this machine is led to a socket of ours, which remembers it."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            with connection:
                asked.append(connection.recv(200).decode("latin-1"))

    threading.Thread(target=listen, daemon=True).start()
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "CLEARML_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_RUN_ID",
        "KATIB_TRIAL_NAME",
        "WANDB_MODE",
        "WANDB_API_KEY",
        "WANDB_PROJECT",
        "CLEARML_OFFLINE_MODE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield asked
    listener.close()
    assert not asked, f"somebody wanted to go online: {asked}"


def configuration(choice: str, folder: Path, *overrides: str) -> Any:
    """conf/logger/<choice>.yaml as train.py composes it, for a run in the folder."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"logger/{choice}", overrides=list(overrides), return_hydra_config=True)
    config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


def begin(folder: Path) -> record.Record:
    run = record.start_record(
        folder,
        config={"model": {"name": "slope", "hf_token": "hush"}, "optim": {"lr": 0.1}, "epochs": 2},
        seeds={"seed": 3},
    )
    run.update(data={"fingerprints": FINGERPRINTS, "path": "made up"}, parent="runs/before")
    return run


def train(logger: Any, folder: Path) -> None:
    data = DataLoader(torch.ones(4, 1), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=2, logger=logger, log_every_n_steps=2, accelerator="cpu", default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Slope(), data, data)


def leave(folder: Path, run: record.Record) -> dict[str, Any]:
    """What a finished run has in its folder."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    predictions.write(
        folder / folders.PREDICTIONS, [{"id": "1", "prediction": "x|y\nz"}, {"id": "2", "prediction": "ü"}]
    )
    metric_lines.write({"val_loss": 0.5}, 1, 8, io.StringIO(), folder / folders.METRICS)
    run.update(best={"epoch": 1, "step": 8}, metrics={"val_loss": 0.5})
    run.end("finished")
    return run.fields


def whole_run(choice: str, folder: Path, *overrides: str) -> tuple[Any, dict[str, Any]]:
    run = begin(folder)
    logger = loggers.open_logger(configuration(choice, folder, *overrides), folder, run.fields)
    train(logger, folder)
    fields = leave(folder, run)
    loggers.log_run(logger, folder, fields)
    return logger, fields


@pytest.fixture
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """log_run warns where a tracker did not receive all results."""
    yield
    assert not [line for line in caplog.messages if "did not receive all results" in line]


def test_csv_keeps_every_row_of_a_resumed_run(tmp_path: Path, no_warnings: None) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        run = begin(folder)
        logger = loggers.open_logger(configuration("csv", folder), folder, run.fields)
        train(logger, folder)
        loggers.log_run(logger, folder, leave(folder, run))
    for version in ("version_0", "version_1"):
        with (folder / "csv" / version / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len([row for row in rows if row["val_loss"]]) == 2
        assert len([row for row in rows if row["train_loss"]]) == 4
        assert "hush" not in (folder / "csv" / version / "hparams.yaml").read_text()
        assert "slope" in (folder / "csv" / version / "hparams.yaml").read_text()


def test_tensorboard(tmp_path: Path, no_warnings: None) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    whole_run("tensorboard", folder)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 3, 5, 7]
    assert len(events.Scalars("val_loss")) == 2
    assert [(event.step, event.value) for event in events.Scalars("best_val_loss")] == [(8, 0.5)]
    texts = {
        name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "lineage", "predictions", "files")
    }
    assert "name: slope" in texts["config"]
    assert "hush" not in texts["config"]
    assert "a" * 64 in texts["lineage"]
    assert "| 1 | x\\|y z |" in texts["predictions"]
    assert str(folder / "model") in texts["files"]
    # The HPARAMS tab reads these three.
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(
        events.summary_metadata
    )


def test_mlflow(tmp_path: Path, no_warnings: None) -> None:
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "slope-3"
    logger, fields = whole_run("mlflow", folder)
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("isotrain")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "slope-3"
    assert run.info.status == "FINISHED"
    assert run.data.params["model/name"] == "slope"
    assert run.data.params["model/hf_token"] == "***"
    assert run.data.tags["config_hash"] == fields["config_hash"]
    assert run.data.tags["data_train"] == FINGERPRINTS["train"]
    assert run.data.tags["parent"] == "runs/before"
    assert run.data.metrics["best_val_loss"] == 0.5
    assert len(client.get_metric_history(run.info.run_id, "val_loss")) == 2
    assert {path.path for path in client.list_artifacts(run.info.run_id)} >= {
        "model",
        "predictions.jsonl",
        "run.json",
    }
    local = client.download_artifacts(run.info.run_id, "predictions.jsonl")
    assert [row["id"] for row in predictions.read(local)] == ["1", "2"]
    assert [path.path for path in client.list_artifacts(run.info.run_id, "model")] == ["model/model.safetensors"]
    inputs = {item.dataset.name: item.dataset for item in run.inputs.dataset_inputs}
    assert {name: json.loads(data.source)["fingerprint"] for name, data in inputs.items()} == FINGERPRINTS
    assert len({data.digest for data in inputs.values()}) == 2
    # The record's copy in the store is no second run.
    found = listing.find_runs([tmp_path])
    assert [row["folder"] for row in found if row["status"] == "finished"] == [str(folder)]
    # Everything lies in one place that outlives the run, and nothing beside it.
    assert (tmp_path / "outputs" / "mlflow" / "artifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()
    # A resumed run goes on with its own, though it trains longer now.
    again = loggers.open_logger(
        configuration("mlflow", folder), folder, {**fields, "config": {**fields["config"], "epochs": 9}}
    )
    assert again is not None
    assert again.version == logger.version
    assert again.experiment.get_run(again.version).data.params["epochs"] == "2"


def test_mlflow_sends_no_telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    whole_run("mlflow", tmp_path / "slope-3")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_logs_into_the_run_of_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = MlflowClient(store)
    experiment = client.create_experiment("pipeline", artifact_location=str(tmp_path / "artifacts"))
    step = client.create_run(experiment, run_name="train step").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", step)
    logger, _ = whole_run("mlflow", tmp_path / "slope-3")
    assert logger.version == step
    (run,) = client.search_runs([experiment])
    assert (run.info.run_id, run.info.run_name) == (step, "train step")
    assert run.data.metrics["best_val_loss"] == 0.5
    assert len(client.get_metric_history(step, "val_loss")) == 2
    assert client.get_experiment_by_name("isotrain") is None

    monkeypatch.setenv("ISOTRAIN_MLFLOW_PARENT", step)  # a step of `pipelines run`
    monkeypatch.delenv("MLFLOW_RUN_ID")
    below, _ = whole_run("mlflow", tmp_path / "slope-5")
    assert below.version != step
    assert client.get_run(below.version).data.tags["mlflow.parentRunId"] == step
    monkeypatch.delenv("ISOTRAIN_MLFLOW_PARENT")
    monkeypatch.setenv("MLFLOW_RUN_ID", step)

    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial-1")  # trials of a search share its variables
    trial, _ = whole_run("mlflow", tmp_path / "slope-4")
    assert trial.version != step
    child = client.get_run(trial.version)
    assert child.info.experiment_id == experiment
    assert child.data.tags["mlflow.parentRunId"] == step
    assert child.data.metrics["best_val_loss"] == 0.5


def test_mlflow_refuses_a_run_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(InputError, match=r"logger: MLFlowLogger cannot start: .*0{32}"):
        loggers.open_logger(configuration("mlflow", tmp_path / "run"), tmp_path / "run", {})


class Parameters:
    """What the configuration's values are logged with: MLflow's client, whose server may have a limit."""

    run_id = "run"

    def __init__(self, limit: int) -> None:
        self.limit, self.values, self.experiment = limit, {}, self

    def log_param(self, run: str, name: str, value: str) -> None:
        from mlflow.exceptions import MlflowException

        if len(value) > self.limit:
            raise MlflowException("too long")
        self.values[name] = value

    def log_batch(self, run: str, params: Any) -> None:
        assert len(params) <= 100
        self.values |= {row.key: row.value for row in params}


@pytest.mark.parametrize(("limit", "kept"), [(6000, 6000), (500, 500), (250, 250)])
def test_mlflow_has_whole_parameters_or_says_which_are_cut(
    limit: int, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    values = {f"name{number}": number for number in range(150)}
    config = {"model": {"text": "x" * 251, "long": "y" * 7000, "short": "z" * 250, "empty": {}}, **values}
    server = Parameters(limit)
    loggers._log_mlflow_parameters(server, config)  # type: ignore[arg-type]
    lengths = {name: len(value) for name, value in server.values.items() if name.startswith("model")}
    assert lengths == {"model/text": min(251, kept), "model/long": kept, "model/short": 250}
    assert len(server.values) == 153
    assert f"model/long (the first {kept:,} of 7,000 characters)" in caplog.text
    assert ("model/text" in caplog.text) == (kept < 251)
    caplog.clear()
    loggers._log_mlflow_parameters(Parameters(limit), {"a": {"b": "x" * 250}})  # type: ignore[arg-type]
    assert caplog.text == ""


@pytest.mark.slow
def test_two_runs_can_make_one_mlflow_store_at_once(tmp_path: Path) -> None:
    """A search's first trials do; without a lock SQLAlchemy says that a table exists already."""
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[1:3]\n"
        "import test_loggers as t; from trainers import loggers\n"
        "folder = Path(sys.argv[3]); run = t.begin(folder)\n"
        "logger = loggers.open_logger(t.configuration('mlflow', folder), folder, run.fields)\n"
        "logger.log_metrics({'val_loss': 1.0}, step=1)\n"
    )
    paths = [str(CONF.parent / "src"), str(CONF.parent / "tests")]
    started = [
        subprocess.Popen([sys.executable, "-c", code, *paths, str(tmp_path / name)], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    for process in started:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
    assert len(client.search_runs([client.get_experiment_by_name("isotrain").experiment_id])) == 2


def offline_records(path: Path) -> Iterator[bytes]:
    """The records in a .wandb file: after seven bytes, blocks of 32 KiB as in LevelDB's log."""
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb(tmp_path: Path, no_warnings: None) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2

    folder = tmp_path / "run"
    logger, fields = whole_run("wandb", folder, "logger.offline=true")
    wandb.teardown()  # as at the end of a process: until then its writer may hold records back
    (stored,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    history: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    artifacts, exits = {}, []
    for data in offline_records(stored):
        item = wandb_internal_pb2.Record.FromString(data)
        kind = item.WhichOneof("record_type")
        if kind == "history":
            history.append({".".join(e.nested_key) or e.key: json.loads(e.value_json) for e in item.history.item})
        elif kind in ("run", "config"):
            update = item.run.config.update if kind == "run" else item.config.update
            config |= {".".join(e.nested_key) or e.key: json.loads(e.value_json) for e in update}
        elif kind == "summary":
            summary |= {".".join(e.nested_key) or e.key: json.loads(e.value_json) for e in item.summary.update}
        elif kind == "request" and item.request.WhichOneof("request_type") == "log_artifact":
            artifacts[item.request.log_artifact.artifact.type] = item.request.log_artifact.artifact
        elif kind == "artifact":
            artifacts[item.artifact.type] = item.artifact
        elif kind == "exit":
            exits.append(item.exit.exit_code)
    assert len([row for row in history if "val_loss" in row]) == 2
    assert config["model"] == {"name": "slope", "hf_token": "***"}
    assert config["lineage"]["config_hash"] == fields["config_hash"]
    assert summary["best_val_loss"] == 0.5
    assert {"model", "predictions", "run", "metrics"} <= set(artifacts)
    assert json.loads(artifacts["model"].metadata)["data_train"] == FINGERPRINTS["train"]
    assert [entry.path for entry in artifacts["predictions"].manifest.contents] == ["predictions.jsonl"]
    assert exits == [0]
    # A resumed run has the same id, so that `wandb sync` makes one of the two.
    again = loggers.open_logger(configuration("wandb", folder, "logger.offline=true"), folder, fields)
    assert again is not None
    assert again.version == logger.version
    again.experiment.finish()
    wandb.teardown()


def test_wandb_without_a_key_is_refused_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("on a terminal, wandb would ask for a key"))
    with pytest.raises(InputError, match="wandb login"):
        loggers.open_logger(configuration("wandb", tmp_path), tmp_path, {})


def test_clearml(tmp_path: Path) -> None:
    """In a process of its own: ClearML hooks into the interpreter for good."""
    code = (
        "import sys, logging, signal; from pathlib import Path; sys.path[:0] = sys.argv[1:3]\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "handler = lambda *_: None; signal.signal(signal.SIGTERM, handler)\n"
        "import test_loggers as t\n"
        "train = t.train\n"
        "def checked(*given):\n"
        "    assert signal.getsignal(signal.SIGTERM) is handler, 'ClearML took our signal handler'\n"
        "    train(*given)\n"
        "t.train = checked\n"
        "t.whole_run('clearml', Path(sys.argv[3]), 'logger.offline=true')\n"
    )
    paths = [str(CONF.parent / "src"), str(CONF.parent / "tests")]
    folder = tmp_path / "slope-3"
    done = subprocess.run(
        [sys.executable, "-c", code, *paths, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "did not receive all results" not in done.stderr, done.stderr
    (session,) = tmp_path.rglob("task.json")
    task = json.loads(session.read_text())
    assert task["name"] == "slope-3"
    values = {
        (section, name): item["value"] for section, items in task["hyperparams"].items() for name, item in items.items()
    }
    assert values["config", "model.name"] == "slope"
    assert values["config", "model.hf_token"] == "***"
    assert values["lineage", "data_train"] == FINGERPRINTS["train"]
    artifacts = {item["key"]: item for item in task["execution"]["artifacts"]}
    assert set(artifacts) == {"model", "predictions.jsonl", "run.json", "metrics.jsonl"}
    events = [json.loads(line) for line in (session.parent / "metrics.jsonl").read_text().splitlines()]
    flat = [event for batch in events for event in (batch if isinstance(batch, list) else [batch])]
    assert len([event for event in flat if (event.get("metric"), event.get("variant")) == ("loss", "val")]) == 2
    assert list(session.parent.rglob("predictions.jsonl"))


@pytest.mark.parametrize("choice", TRACKERS)
def test_a_missing_package_is_named_with_its_extra(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"\.\[{choice}\]"):
        loggers.open_logger(configuration(choice, tmp_path), tmp_path, {})


def test_none_is_no_logger(tmp_path: Path) -> None:
    assert loggers.open_logger(configuration("none", tmp_path), tmp_path, {}) is None


def test_a_tracker_that_fails_at_the_end_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    logger = loggers.open_logger(configuration("tensorboard", tmp_path), tmp_path, run.fields)
    fields = leave(tmp_path, run)
    (tmp_path / folders.PREDICTIONS).write_text("torn")
    loggers.log_run(logger, tmp_path, fields)
    assert "TensorBoardLogger did not receive all results" in caplog.text


def test_a_store_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "mlflow").mkdir(parents=True)
    (tmp_path / "outputs" / "mlflow" / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="MLFlowLogger cannot start"):
        loggers.open_logger(configuration("mlflow", tmp_path / "run"), tmp_path / "run", {})


def test_every_choice_names_its_launch_command() -> None:
    for path in (CONF / "logger").glob("*.yaml"):
        head = path.read_text().splitlines()[:2]
        assert any(line.startswith(f"# python train.py logger={path.stem}") for line in head), path


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/x/outputs/2026-01-02/10-11-12", "2026-01-02/10-11-12"),
        ("/x/multirun/2026-01-02/10-11-12/3", "2026-01-02/10-11-12/3"),
        ("/runs/bert-lr3", "bert-lr3"),
        ("/runs/7", "7"),
    ],
)
def test_a_run_is_called_by_its_folder(folder: str, name: str) -> None:
    assert loggers.run_name(Path(folder)) == name


def test_lineage_leaves_out_what_is_not_known() -> None:
    assert loggers.lineage_tags({"git": None, "data": None, "config_hash": "c"}) == {"config_hash": "c"}
