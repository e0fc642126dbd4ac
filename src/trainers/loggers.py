"""Experiment trackers: curves and configuration while a run trains, its files and lineage at its end.

Curves reach a tracker through Lightning's logger. The rest is in this module, one function for each tracker. Call
`open_logger` before training and `log_run` after the run has finished, both on rank zero only.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import itertools
import json
import logging
import os
import re
import signal
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from config import files
from config.errors import InputError
from config.masking import mask, mask_command, mask_secrets
from runs import folder as folders
from runs import mlflow_store, predictions, provenance
from runs.fields import flatten
from trainers import mlflow_run

log = logging.getLogger(__name__)

_STATE = ".logger.json"  # in the run folder: the tracker of the run, and its id there
# Package of each logger class, also the name of the extra that installs it.
_PACKAGES = {
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
    "ClearMLLogger": "clearml",
}
# Arguments of a run's name and id, of logger classes that can continue a run.
_IDENTITY_ARGUMENTS = {
    "MLFlowLogger": ("run_name", "run_id"),
    "WandbLogger": ("name", "id"),
    "ClearMLLogger": ("name", "task_id"),
}
_SERVER_LIMITS = (500, 250)  # characters of a parameter, of older MLflow servers
_SAMPLE_ROWS = 50  # predictions in TensorBoard


class ClearMLLogger(Logger):
    """Lightning logger that writes metrics and hyper-parameters to a ClearML task.

    ClearML's own hooks into frameworks, arguments and standard output are off.

    Args:
        project: ClearML project.
        name: name of the task.
        offline: whether to write to a local session, which `Task.import_offline_session` sends later.
        output_uri: destination of artifacts; None for ClearML's file server.
        tags: tags of the task.
        task_id: the task that a resumed run continues.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        offline: bool = False,
        output_uri: str | None = None,
        tags: Sequence[str] | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__()
        self._project, self._name, self._offline = project, name, offline
        self._output_uri, self._tags, self._task_id = output_uri, list(tags or ()), task_id
        self._task: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The clearml.Task, created on first use."""
        if self._task is None:
            from clearml import Task

            # A process forked from one with torch's threads can hang, and with it the end of the run.
            Task._report_subprocess_enabled = False
            if self._offline:
                Task.set_offline(True)
            if Task.is_offline():
                _disable_update_check()
            if provenance.LOCK_FILE.is_file():  # exact, and faster than ClearML's search through the sources
                Task.force_requirements_env_freeze(requirements_file=str(provenance.LOCK_FILE))
            with _preserve_signal_handlers():
                self._task = Task.init(
                    project_name=self._project,
                    task_name=self._name or "run",
                    tags=self._tags,
                    reuse_last_task_id=False,
                    continue_last_task=self._task_id if self._task_id and not Task.is_offline() else False,
                    output_uri=self._output_uri,
                    auto_connect_arg_parser=False,
                    auto_connect_frameworks=False,
                    auto_connect_streams=False,
                    auto_resource_monitoring=False,
                )
            self._task_id = self._task.id
        return self._task

    @property
    def name(self) -> str | None:
        """Name of the task."""
        return self._name

    @property
    def version(self) -> str | None:
        """Id of the task; None before it is created."""
        return self._task_id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars: `val_loss` is the series `val` of the plot `loss`, beside `train`."""
        reporter = self.experiment.get_logger()
        for name, value in metrics.items():
            series, _, title = name.partition("_")
            if series not in ("train", "val") or not title:
                series, title = name, name
            reporter.report_scalar(title=title, series=series, value=float(value), iteration=step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Log hyper-parameters by dotted name, and all of them as a configuration object."""
        tree = vars(params) if isinstance(params, Namespace) else dict(params)
        self.experiment.update_parameters({f"config/{name}": str(value) for name, value in flatten(tree).items()})
        self.experiment.connect_configuration(tree, name="config")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush. The task stays open for `log_run`; it is closed there, or when the process exits."""
        if self._task is not None:
            self._task.flush()


def open_logger(config: DictConfig, folder: Path, record: Mapping[str, Any]) -> Logger | None:
    """Open the configured logger, and log configuration and lineage. A resumed run continues its own.

    Args:
        config: the composed configuration; `config.logger` may be null or empty.
        folder: the run folder.
        record: content of run.json so far.

    Returns:
        A logger for Lightning's Trainer, or None.

    Raises:
        InputError: the tracker's package is not installed, or its server cannot be used.
    """
    if not config.get("logger") or not config.logger.get("_target_"):
        return None
    kind = str(config.logger["_target_"]).rpartition(".")[2]
    package = _PACKAGES.get(kind)
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"logger: {package} is not installed; pip install -e '.[{package}]' in isotrain's checkout, or logger=csv"
        )
    from trainers.build import build

    record = _mask_record(record)
    with _input_errors(kind), _lock_store(config.logger), _masked_command_line():
        logger: Logger = build(config, "logger", **_arguments(kind, config.logger, folder, record))
        if isinstance(logger, CSVLogger):
            files.check_output_folder(logger.log_dir, ("metrics.csv", "hparams.yaml"), _is_csv_log, "the log of a run")
        _log_start(logger, record)
    if kind in _IDENTITY_ARGUMENTS:
        files.write_json(folder / _STATE, {"logger": kind, "id": str(logger.version)})
    return logger


def _mask_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return run.json without secrets, also in its messages: in memory it has them, masking is at the door of its file."""
    masked: dict[str, Any] = json.loads(mask(json.dumps(record)))
    return masked


@contextlib.contextmanager
def _masked_command_line() -> Iterator[None]:
    """Mask secrets in sys.argv, which Weights & Biases and ClearML record."""
    arguments = sys.argv
    sys.argv = mask_command(arguments)
    try:
        yield
    finally:
        sys.argv = arguments


def _is_csv_log(folder: Path) -> bool:
    """Return whether a CSV logger of isotrain wrote into a folder: Lightning's removes an existing metrics.csv."""
    return files.has_line(folder / "hparams.yaml", "monitor: ", 1000)


def log_run(logger: Logger, folder: Path, record: Mapping[str, Any]) -> None:
    """Send the files and results of a finished run to its tracker. A failure is a warning.

    Args:
        logger: returned by `open_logger`.
        folder: the run folder.
        record: content of run.json.
    """
    record = _mask_record(record)
    try:
        if isinstance(logger, TensorBoardLogger):
            _log_to_tensorboard(logger, folder, record)
        elif isinstance(logger, MLFlowLogger):
            _log_to_mlflow(logger, folder, record)
        elif isinstance(logger, WandbLogger):
            _log_to_wandb(logger, folder, record)
        elif isinstance(logger, ClearMLLogger):
            _log_to_clearml(logger, folder, record)
        elif not isinstance(logger, CSVLogger):  # a CSV logger's files are in the run folder
            log.warning("%s receives metrics and configuration only", type(logger).__name__)
    except Exception as error:
        log.warning("%s did not receive all results: %s; they are in %s", type(logger).__name__, error, folder)


def lineage_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the lineage of a run as flat tags."""
    git, data, pipeline = (record.get(key) or {} for key in ("git", "data", "pipeline"))
    parent = record.get("parent")
    values = {
        "config_hash": record.get("config_hash"),
        "lock_hash": record.get("lock_hash"),
        "git_revision": git.get("revision"),
        "git_dirty": git.get("dirty"),
        "parent": json.dumps(parent) if isinstance(parent, dict) else parent,
        "trial": record.get("trial"),
        **{f"pipeline_{name}": value for name, value in pipeline.items()},
        **{f"data_{split}": value for split, value in (data.get("fingerprints") or {}).items()},
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def run_name(folder: Path) -> str:
    """Return a run's name: its folder, with those above it as long as the names are only dates and numbers."""
    parts = folder.absolute().parts[1:]
    first = len(parts) - 1
    while first > 0 and re.fullmatch(r"[\d_-]+", parts[first]) and re.fullmatch(r"[\d_-]+", parts[first - 1]):
        first -= 1
    return "/".join(parts[first:])


def _log_start(logger: Logger, record: Mapping[str, Any]) -> None:
    """Log configuration and lineage, so that a run that fails has them too."""
    config = record.get("config") or {}
    if isinstance(logger, MLFlowLogger):
        run = logger.experiment.get_run(logger.run_id)
        # MLflow refuses to change parameters: a resumed run that trains longer has those of its start.
        if not run.data.params:
            _log_mlflow_parameters(logger, config)
        for name, value in _mlflow_tags(record).items():
            logger.experiment.set_tag(logger.run_id, name, value)
    elif isinstance(logger, WandbLogger):
        logger.log_hyperparams({**config, "lineage": lineage_tags(record)})
    else:
        logger.log_hyperparams(config)
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("config", textwrap.indent(yaml.safe_dump(config, sort_keys=False), "    "), 0)
        logger.experiment.add_text("lineage", _markdown([lineage_tags(record)]), 0)
    elif isinstance(logger, ClearMLLogger):
        logger.experiment.update_parameters({f"lineage/{key}": value for key, value in lineage_tags(record).items()})


def _log_mlflow_parameters(logger: MLFlowLogger, config: Mapping[str, Any]) -> None:
    """Log the configuration as parameters. Lightning's logger would cut each value to 250 characters.

    Values that MLflow or its server refuses for their length are cut, with a warning.
    """
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    values = {name: str(value) for name, value in flatten(config).items() if not isinstance(value, Mapping)}
    parameters = {name.replace(".", "/"): value for name, value in values.items()}
    cut = []
    for name, value in parameters.items():
        if len(value) <= _SERVER_LIMITS[-1]:
            continue
        for limit in (MAX_PARAM_VAL_LENGTH, *_SERVER_LIMITS):
            try:
                logger.experiment.log_param(logger.run_id, name, value[:limit])
            except MlflowException:
                if limit == _SERVER_LIMITS[-1]:
                    raise
            else:
                break
        if len(value) > limit:
            cut.append(f"{name} (the first {limit:,} of {len(value):,} characters)")
    if cut:
        log.warning("MLflow has only a part of %s; run.json, an artifact of the run, has whole values", ", ".join(cut))
    short = [Param(name, value) for name, value in parameters.items() if len(value) <= _SERVER_LIMITS[-1]]
    for start in range(0, len(short), 100):  # of a request, at most
        logger.experiment.log_batch(logger.run_id, params=short[start : start + 100])


def _log_to_tensorboard(logger: TensorBoardLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Log to the HPARAMS tab, a sample of predictions, and the paths of the files: TensorBoard has no artifacts."""
    step = int((record.get("best") or {}).get("step") or 0)
    # Only with metrics does Lightning write what the HPARAMS tab reads.
    logger.log_hyperparams(record.get("config") or {}, metrics=_best(record), step=step)
    if (folder / folders.PREDICTIONS).is_file():
        rows = list(itertools.islice(predictions.read(folder / folders.PREDICTIONS), _SAMPLE_ROWS))
        logger.experiment.add_text("predictions", _markdown(rows), step)
    paths = [{"file": path.name, "path": str(path.absolute())} for path in _files(folder)]
    logger.experiment.add_text("files", _markdown(paths), step)
    logger.experiment.flush()


def _log_to_mlflow(logger: MLFlowLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Log artifacts, final metrics, data sets as inputs, and tags."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client, run = logger.experiment, logger.run_id
    for tag, text in _mlflow_tags(record).items():
        client.set_tag(run, tag, text)
    step = int((record.get("best") or {}).get("step") or 0)
    for name, value in _best(record).items():
        client.log_metric(run, name, value, step=step)
    data = record.get("data") or {}
    contexts = {"train": "training", "val": "validation"}
    inputs = [
        DatasetInput(
            # MLflow limits a digest to 36 characters; the fingerprint is in the source and in the tags.
            Dataset(
                name=split,
                digest=hashlib.sha256(str(fingerprint).encode()).hexdigest()[:36],
                source_type="local",
                source=json.dumps({"fingerprint": fingerprint}),
            ),
            [InputTag("mlflow.data.context", contexts.get(split, split))],
        )
        for split, fingerprint in (data.get("fingerprints") or {}).items()
    ]
    if inputs:
        client.log_inputs(run, datasets=inputs)
    for path in _files(folder):
        if path.is_dir():
            client.log_artifacts(run, str(path), path.name)
        else:
            client.log_artifact(run, str(path))
    client.set_terminated(run, "FINISHED")


def _mlflow_tags(record: Mapping[str, Any]) -> dict[str, str]:
    tags = lineage_tags(record)
    # The tag that MLflow's own pages show as the revision.
    return {**tags, "mlflow.source.git.commit": tags["git_revision"]} if "git_revision" in tags else tags


def _log_to_wandb(logger: WandbLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Log artifacts with the lineage, and the final metrics as the run's summary. End the run."""
    import wandb

    run, tags = logger.experiment, lineage_tags(record)
    run.config.update({"lineage": tags}, allow_val_change=True)
    run.summary.update(_best(record))
    for path in _files(folder):
        kind = "model" if path.name == folders.MODEL else path.stem.lstrip(".")
        artifact = wandb.Artifact(f"run-{run.id}-{kind}", type=kind, metadata={**tags, **_best(record)})
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish(exit_code=0)


def _log_to_clearml(logger: ClearMLLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Log artifacts, final metrics as single values, and lineage as parameters. Close the task."""
    from clearml import Task

    task = logger.experiment
    task.update_parameters({f"lineage/{name}": value for name, value in lineage_tags(record).items()})
    for name, value in _best(record).items():
        task.get_logger().report_single_value(name, value)
    for path in _files(folder):
        task.upload_artifact(path.name, artifact_object=path, wait_on_upload=True)
    task.mark_completed()
    task.close()
    if Task.is_offline():
        log.info("ClearML's offline session is %s.zip", task.get_offline_mode_folder())


def _arguments(kind: str, node: DictConfig, folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments that the configuration leaves open: the run's name and id, and paths of local stores."""
    kwargs: dict[str, Any] = {}
    for name in ("tags", "notes", "config"):  # texts for the tracker's pages
        if node.get(name):
            content: Any = OmegaConf.to_container(OmegaConf.create({name: node[name]}), resolve=True)
            kwargs[name] = mask_secrets(content)[name]
    if "save_dir" in node and node.save_dir is None:
        kwargs["save_dir"] = str(folder)
    if kind not in _IDENTITY_ARGUMENTS:
        return kwargs
    name_key, id_key = _IDENTITY_ARGUMENTS[kind]
    kwargs[name_key] = node.get(name_key) or run_name(folder)
    previous_id = _previous_id(kind, folder)
    if previous_id:
        kwargs[id_key] = previous_id
    if kind == "MLFlowLogger":
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # It warns that the first run is the first.
        logging.getLogger(MLFlowLogger.__module__).setLevel(logging.ERROR)
        if store := _local_store(node):
            kwargs["tracking_uri"] = f"sqlite:///{store}"  # absolute: the working directory may change
            kwargs["artifact_location"] = node.get("artifact_location") or mlflow_store.artifact_location(store)
        if not previous_id:
            address = kwargs.get("tracking_uri") or node.get("tracking_uri")
            kwargs |= mlflow_run.run_arguments(record, address, kwargs.get("tags"))
    elif kind == "WandbLogger":
        _check_wandb_key(node)
    return kwargs


def _check_wandb_key(node: DictConfig) -> None:
    """Check for a key: Weights & Biases would ask for one on the terminal.

    Raises:
        InputError: it is online, and has no key.
    """
    import wandb

    offline = node.get("offline") or os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun", "disabled")
    # Older releases cannot check without prompting but by this property.
    promptless = "prompt" in inspect.signature(wandb.login).parameters
    if not offline and not (wandb.login(prompt=False, verify=False) if promptless else wandb.api.api_key):
        raise InputError("logger: wandb has no key; run `wandb login`, set WANDB_API_KEY, or logger.offline=true")


def _previous_id(kind: str, folder: Path) -> str | None:
    """Return the tracker's id of a resumed run."""
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((folder / _STATE).read_bytes())
        if isinstance(state, dict) and state.get("logger") == kind:
            return str(state["id"])
    return None


@contextlib.contextmanager
def _input_errors(kind: str) -> Iterator[None]:
    """Turn errors of a tracker that cannot start into an InputError: nothing is lost yet, and another can be selected."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error.__cause__ or error  # Hydra wraps it
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise InputError(f"logger: {kind} cannot start: {lines[0]}; see docs/loggers.md, or use logger=csv") from error


@contextlib.contextmanager
def _lock_store(node: DictConfig) -> Iterator[None]:
    """Create MLflow's SQLite store if it is new, and lock it: two first runs would both create its experiment."""
    store = _local_store(node)
    if store is None:
        yield
        return
    mlflow_store.create_database(store)
    with mlflow_store.lock_database(store):
        yield


def _local_store(node: DictConfig) -> Path | None:
    """Return the file of MLflow's SQLite store, if it uses one."""
    return mlflow_store.database_path(str(node.get("tracking_uri") or ""))


def _disable_update_check() -> None:
    """Disable ClearML's search for its newer releases on the network: it has no setting, even offline."""
    with contextlib.suppress(ImportError, AttributeError):
        from clearml.utilities.check_updates import CheckPackageUpdates

        CheckPackageUpdates._package_version_checked = True


@contextlib.contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Restore our signal handlers, which write a checkpoint, after ClearML has replaced them."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) is not None]
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    with contextlib.suppress(ValueError):  # not the main thread
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _files(folder: Path) -> list[Path]:
    """Return the files of a run folder that trackers store: everything but checkpoints and the trackers' own logs."""
    names = (folders.MODEL, folders.PREDICTIONS, folders.RECORD, folders.METRICS, "report.html")
    return [folder / name for name in names if (folder / name).exists()]


def _best(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the final metrics under names of no curve, because the last value of a curve may not be the best."""
    return {f"best_{name}": float(value) for name, value in (record.get("metrics") or {}).items()}


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for TensorBoard's text tab."""
    if not rows:
        return "none"
    header = list(dict.fromkeys(name for row in rows for name in row))
    table = [header, ["---"] * len(header), *([row.get(name, "") for name in header] for row in rows)]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ")[:200] for cell in line] for line in table)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
