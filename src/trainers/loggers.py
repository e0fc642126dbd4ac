"""What experiment trackers are given: curves, configuration, and at the end predictions, model and lineage.

Curves reach a tracker through Lightning's logger. The rest is here, one small function for each tracker.
Use: `open_logger` before training, `log_run` after the run is finished; both on rank zero only.
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
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig

from config import files
from config.errors import InputError
from config.flatten import flatten
from runs import folder as folders
from runs import predictions, provenance

log = logging.getLogger(__name__)

# Which tracker a resumed run goes on with, and under which id.
REMEMBERED = ".logger.json"
# Package and extra by the logger's class name.
_NEEDS = {
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "WandbLogger": ("wandb", "wandb"),
    "ClearMLLogger": ("clearml", "clearml"),
}
_SHOWN_PREDICTIONS = 50


class ClearMLLogger(Logger):
    """Lightning's metrics and hyper-parameters into a ClearML task.

    ClearML's own hooks into frameworks, arguments and standard output stay off: the run logs what it means to
    log.

    Args:
        project: ClearML project.
        name: the task's name.
        offline: keep everything in a local session that `Task.import_offline_session` sends later.
        output_uri: where artifacts are uploaded; ClearML's file server if None.
        tags: of the task.
        task_id: the task that a resumed run goes on with.
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
        """The clearml.Task; begun when first asked for."""
        if self._task is None:
            from clearml import Task

            # A process forked from one that has torch's threads can hang, and the run's end with it.
            Task._report_subprocess_enabled = False
            if self._offline:
                Task.set_offline(True)
            if Task.is_offline():
                _ask_for_no_updates()
            if provenance.LOCK_FILE.is_file():  # exact, and quicker than ClearML's own search through the sources
                Task.force_requirements_env_freeze(requirements_file=str(provenance.LOCK_FILE))
            with _signal_handlers_kept():
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
        """The task's name."""
        return self._name

    @property
    def version(self) -> str | None:
        """The task's id; None before it has begun."""
        return self._task_id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars: `val_loss` is the series `val` of the plot `loss`, beside `train`."""
        reporter = self.experiment.get_logger()
        for name, value in metrics.items():
            series, _, title = name.partition("_")
            if series not in ("train", "val") or not title:
                series, title = name, name
            reporter.report_scalar(title=title, series=series, value=float(value), iteration=step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Hyper-parameters, by section and dotted name, and the whole as a configuration object."""
        tree = vars(params) if isinstance(params, Namespace) else dict(params)
        self.experiment.update_parameters({f"config/{name}": str(value) for name, value in flatten(tree).items()})
        self.experiment.connect_configuration(tree, name="config")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Sends what is waiting. The task stays open for `log_run`; leaving the process closes it too."""
        if self._task is not None:
            self._task.flush()


def open_logger(config: DictConfig, folder: Path, record: Mapping[str, Any]) -> Logger | None:
    """The logger of a run, its configuration and lineage in it already. A resumed run goes on with its own.

    Args:
        config: the composed configuration; `config.logger` may be null or empty.
        folder: the run's folder.
        record: run.json's content so far.

    Returns:
        A logger for Lightning's Trainer, or None.

    Raises:
        InputError: the tracker's package is not installed, or its server cannot be used.
    """
    if not config.get("logger") or not config.logger.get("_target_"):
        return None
    kind = str(config.logger["_target_"]).rpartition(".")[2]
    package, extra = _NEEDS.get(kind, (None, None))
    if package and importlib.util.find_spec(package) is None:
        raise InputError(f"logger: {package} is not installed; pip install 'isotrain[{extra}]', or logger=csv")
    from trainers.build import build

    with _about(kind), _one_at_a_time(config.logger):
        logger: Logger = build(config, "logger", **_arguments(kind, config.logger, folder))
        _begin(logger, record)
    _remember(logger, kind, folder)
    return logger


def log_run(logger: Logger, folder: Path, record: Mapping[str, Any]) -> None:
    """Gives a tracker what a finished run leaves. A tracker that fails now costs a warning, not the run.

    Args:
        logger: the one that `open_logger` gave.
        folder: the run's folder.
        record: run.json's content.
    """
    try:
        if isinstance(logger, TensorBoardLogger):
            _tensorboard(logger, folder, record)
        elif isinstance(logger, MLFlowLogger):
            _mlflow(logger, folder, record)
        elif isinstance(logger, WandbLogger):
            _wandb(logger, folder, record)
        elif isinstance(logger, ClearMLLogger):
            _clearml(logger, folder, record)
        elif not isinstance(logger, CSVLogger):  # a CSV logger's files lie in the run's folder, beside the rest
            log.warning("%s is given metrics and configuration only", type(logger).__name__)
    except Exception as error:
        log.warning("%s was not given everything: %s; it is all in %s", type(logger).__name__, error, folder)


def lineage_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Where a run comes from, as flat tags."""
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
        **{f"data_{split}": mark for split, mark in (data.get("fingerprints") or {}).items()},
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def run_name(folder: Path) -> str:
    """What to call a run: its folder, with those above it while the names are but dates and numbers."""
    parts = folder.absolute().parts[1:]
    first = len(parts) - 1
    while first > 0 and re.fullmatch(r"[\d_-]+", parts[first]) and re.fullmatch(r"[\d_-]+", parts[first - 1]):
        first -= 1
    return "/".join(parts[first:])


def _begin(logger: Logger, record: Mapping[str, Any]) -> None:
    """Configuration and lineage, so that a run which fails has them too."""
    config = record.get("config") or {}
    if isinstance(logger, MLFlowLogger):
        run = logger.experiment.get_run(logger.run_id)
        # MLflow refuses to change a parameter: a resumed run that trains longer keeps those of its start.
        if not run.data.params:
            logger.log_hyperparams(config)
        for name, value in _mlflow_tags(record).items():
            logger.experiment.set_tag(logger.run_id, name, value)
    elif isinstance(logger, WandbLogger):
        logger.log_hyperparams({**config, "lineage": lineage_tags(record)})
    else:
        logger.log_hyperparams(config)
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("config", _code(yaml.safe_dump(config, sort_keys=False)), 0)
        logger.experiment.add_text("lineage", _markdown([lineage_tags(record)]), 0)
    elif isinstance(logger, ClearMLLogger):
        logger.experiment.update_parameters({f"lineage/{key}": value for key, value in lineage_tags(record).items()})


def _tensorboard(logger: TensorBoardLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """TensorBoard has no artifacts: the HPARAMS tab, a sample of predictions, and where the files are."""
    step = int((record.get("best") or {}).get("step") or 0)
    # Given metrics too, Lightning writes what the HPARAMS tab reads.
    logger.log_hyperparams(record.get("config") or {}, metrics=_best(record), step=step)
    if (folder / folders.PREDICTIONS).is_file():
        rows = list(itertools.islice(predictions.read(folder / folders.PREDICTIONS), _SHOWN_PREDICTIONS))
        logger.experiment.add_text("predictions", _markdown(rows), step)
    files = [{"file": path.name, "path": str(path.absolute())} for path in _files(folder)]
    logger.experiment.add_text("files", _markdown(files), step)
    logger.experiment.flush()


def _mlflow(logger: MLFlowLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Artifacts, final metrics beside the curves, data sets as inputs, tags."""
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
            # MLflow gives a digest 36 characters; the whole is in the source and in the tags.
            Dataset(
                name=split,
                digest=hashlib.sha256(str(mark).encode()).hexdigest()[:36],
                source_type="local",
                source=json.dumps({"fingerprint": mark}),
            ),
            [InputTag("mlflow.data.context", contexts.get(split, split))],
        )
        for split, mark in (data.get("fingerprints") or {}).items()
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
    # The name under which MLflow's own pages look for the revision.
    return {**tags, "mlflow.source.git.commit": tags["git_revision"]} if "git_revision" in tags else tags


def _wandb(logger: WandbLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Artifacts that carry the lineage, and the final metrics as the run's summary. Ends the run."""
    import wandb

    run, origin = logger.experiment, lineage_tags(record)
    run.config.update({"lineage": origin}, allow_val_change=True)
    run.summary.update(_best(record))
    for path in _files(folder):
        kind = "model" if path.name == folders.MODEL else path.stem.lstrip(".")
        artifact = wandb.Artifact(f"run-{run.id}-{kind}", type=kind, metadata={**origin, **_best(record)})
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish(exit_code=0)


def _clearml(logger: ClearMLLogger, folder: Path, record: Mapping[str, Any]) -> None:
    """Artifacts, final metrics as single values, lineage as parameters. Closes the task."""
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


def _arguments(kind: str, node: DictConfig, folder: Path) -> dict[str, Any]:
    """What the configuration leaves to us: the name, the id of before, where a local store keeps files."""
    before = _remembered(kind, folder)
    given: dict[str, Any] = {}
    if "save_dir" in node and node.save_dir is None:
        given["save_dir"] = str(folder)
    if kind == "MLFlowLogger":
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # It warns of the first run that it is the first.
        logging.getLogger(MLFlowLogger.__module__).setLevel(logging.ERROR)
        given["run_name"] = node.get("run_name") or run_name(folder)
        if before:
            given["run_id"] = before
        if store := _local_store(node):
            given["tracking_uri"] = f"sqlite:///{store}"  # absolute: wherever the process may go
            given["artifact_location"] = node.get("artifact_location") or (store.parent / "artifacts").as_uri()
        return given
    if kind == "WandbLogger":
        _wandb_ready(node)
        given["name"] = node.get("name") or run_name(folder)
        return {**given, "id": before} if before else given
    if kind == "ClearMLLogger":
        given["name"] = node.get("name") or run_name(folder)
        return {**given, "task_id": before} if before else given
    return given


def _wandb_ready(node: DictConfig) -> None:
    """Weights & Biases asks for a key on the terminal where it has none; a run never asks.

    Raises:
        InputError: it is to go online, and has no key.
    """
    import wandb

    offline = node.get("offline") or os.environ.get("WANDB_MODE", "online") in (
        "offline",
        "dryrun",
        "disabled",
    )
    # Older releases have no way to ask without prompting but this property.
    quiet = "prompt" in inspect.signature(wandb.login).parameters
    if not offline and not (wandb.login(prompt=False, verify=False) if quiet else wandb.api.api_key):
        raise InputError("logger: wandb has no key; run `wandb login`, set WANDB_API_KEY, or logger.offline=true")


def _remembered(kind: str, folder: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((folder / REMEMBERED).read_bytes())
        if isinstance(known, dict) and known.get("logger") == kind:
            return str(known["id"])
    return None


def _remember(logger: Logger, kind: str, folder: Path) -> None:
    if kind in ("MLFlowLogger", "WandbLogger", "ClearMLLogger"):
        files.write_json(folder / REMEMBERED, {"logger": kind, "id": str(logger.version)})


@contextlib.contextmanager
def _about(kind: str) -> Iterator[None]:
    """A tracker that cannot begin is a refusal: nothing is lost yet, and another can be chosen."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error.__cause__ or error  # what Hydra wraps
        first = str(cause).strip().splitlines()[:1] or [type(cause).__name__]
        raise InputError(f"logger: {kind} cannot begin: {first[0]}; see docs/loggers.md, or use logger=csv") from error


@contextlib.contextmanager
def _one_at_a_time(node: DictConfig) -> Iterator[None]:
    """Two runs that make one SQLite store at once break each other's tables."""
    store = _local_store(node)
    if store is None:
        yield
        return
    import filelock

    store.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{store}.lock", timeout=300):
        yield


def _local_store(node: DictConfig) -> Path | None:
    """The file of MLflow's SQLite store, if that is where it tracks."""
    uri = str(node.get("tracking_uri") or "")
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _ask_for_no_updates() -> None:
    """ClearML looks for its own newer release on the network, offline too, and has no setting against it."""
    with contextlib.suppress(ImportError, AttributeError):
        from clearml.utilities.check_updates import CheckPackageUpdates

        CheckPackageUpdates._package_version_checked = True


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """ClearML puts handlers of its own in the place of ours, which write a checkpoint."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    with contextlib.suppress(ValueError):  # not the main thread
        for number, handler in before.items():
            signal.signal(number, handler)


def _files(folder: Path) -> list[Path]:
    """What a tracker keeps of a run's folder: everything but checkpoints and its own logs."""
    names = (folders.MODEL, folders.PREDICTIONS, folders.RECORD, folders.METRICS, "report.html")
    return [folder / name for name in names if (folder / name).exists()]


def _best(record: Mapping[str, Any]) -> dict[str, float]:
    """Final metrics under names that no curve has: a tracker's latest value is not always the best one's."""
    return {f"best_{name}": float(value) for name, value in (record.get("metrics") or {}).items()}


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table, as TensorBoard's text tab draws it."""
    if not rows:
        return "none"
    header = list(dict.fromkeys(name for row in rows for name in row))

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ")[:200] for cell in cells) + " |"

    return "\n".join(
        [
            line(header),
            line(["---"] * len(header)),
            *(line([row.get(name, "") for name in header]) for row in rows),
        ]
    )


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
