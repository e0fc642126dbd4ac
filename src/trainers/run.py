"""A run of train.py: its folder, its record and its output. All ranks open it; rank zero writes."""

import contextlib
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from config import files, interrupts, process, source_code, tasks
from config.check import check_config, check_trust
from config.command import describe_empty_override
from config.errors import InputError
from config.masking import mask_secrets
from config.parsing import read_json
from config.retries import retries
from config.temporary_files import remove_temporary_files
from runs import digests, metric_lines
from runs import folder as folders
from runs import record as records
from runs.push import push_metric_lines
from runs.trainjob_status import post_status

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A run of train.py.

    Attributes:
        config: the composed configuration.
        folder: the run folder.
        record: run.json being written, on rank zero of a run that trains; otherwise None.
        finished_fields: content of run.json of a run that was finished before; empty for a run that trains.
        loggers: experiment trackers, after `open_loggers`.
        opened: whether `open_run` has succeeded.
        reported: whether `report` wrote the result.
        model_digests: SHA-256 of the files that `export` wrote, by relative name.
        peers: the other ranks; None for a single process, and before they have joined.
        metric_connections: connections to Katib's DB manager and Kubeflow Trainer; `run_end.finish` closes them.
        folder_lock: lock of the run folder; `run_end.finish` releases it.
    """

    config: DictConfig
    folder: Path
    record: records.Record | None = None
    finished_fields: dict[str, Any] = field(default_factory=dict)
    loggers: list[Any] = field(default_factory=list)
    opened: bool = False
    reported: bool = False
    model_digests: dict[str, str] = field(default_factory=dict)
    peers: Any = None
    metric_connections: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    folder_lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def finished(self) -> bool:
        """Whether the folder already holds the result of this run."""
        return bool(self.finished_fields)

    @property
    def fields(self) -> dict[str, Any]:
        """Content of run.json."""
        return self.record.fields if self.record is not None else self.finished_fields

    def write_metrics(self, values: Mapping[str, float], epoch: int, step: int) -> metric_lines.MetricLine:
        """Report metrics beside those of validations; see `metric_lines.write`."""
        copy = folders.metrics_copy(self.folder, self.config.metrics_file)
        return metric_lines.write(values, epoch, step, jsonl_path=self.folder / folders.METRICS, copy=copy)

    def phase(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Time a phase of the run."""
        return self.record.phase(name) if self.record is not None else contextlib.nullcontext()

    def update(self, **fields: Any) -> None:
        """Set fields of run.json, on rank zero. Fields that are None are ignored."""
        values = {name: value for name, value in fields.items() if value is not None}
        if self.record is not None:
            self.record.update(**values)
        elif process.rank() == 0:
            self.finished_fields |= {name: folders.to_plain(value) for name, value in values.items()}
            files.write_json(self.folder / folders.RECORD, self.finished_fields)

    def open_loggers(self) -> list[Any]:
        """Open the configured experiment tracker, on rank zero.

        Returns:
            Lightning loggers; empty without a tracker and on other ranks.
        """
        from trainers.loggers import open_logger

        if self.record is not None:
            tracker = open_logger(self.config, self.folder, self.record.fields)
            self.loggers = [] if tracker is None else [tracker]
        return self.loggers

    def export(self, model: Any) -> None:
        """Write the model folder atomically, and pictures of the model's mistakes.

        Raises:
            InputError: the model's `export` wrote no config.json.
        """
        if self.record is None:
            return
        with files.atomic_folder(self.folder / folders.MODEL) as folder:
            model.export(str(folder))
            self.model_digests = digests.folder_digests(folder)
            if not any((folder / name).exists() for name in ("config.json", "baseline.json")):
                raise InputError(
                    f"export of {type(model).__name__} wrote no config.json, which opening the saved model requires"
                )
        keep_mistakes = getattr(tasks.load_module(str(self.config.task.name)), "keep_mistakes", None)
        if keep_mistakes is None:
            return
        try:
            keep_mistakes(model, self.folder)
        except Exception as error:  # the report works without them
            logger.warning("texts or pictures of mistakes could not be saved for the report: %s", error)

    def report(self, best: Mapping[str, Any]) -> None:
        """Print the final metric line, and write the result to run.json and to the exported model.

        Args:
            best: the best validation, as returned by `fit.fit`.
        """
        if self.record is None:
            return
        from trainers import saved_model

        line = self.write_metrics(best["metrics"], best["epoch"], best["step"])
        self.record.update(
            best={key: best[key] for key in ("epoch", "step", "lost") if key in best},
            details=best["details"],
            metrics=line.values,
        )
        written = {f"{folders.CHECKPOINTS}/{folders.BEST_CHECKPOINT}": best["digest"]} if "digest" in best else {}
        model = self.folder / folders.MODEL
        if (model / "config.json").exists():  # a baseline has none
            saved_model.write_settings(model, self.record.fields, self.model_digests)
            written[f"{folders.MODEL}/{digests.SETTINGS}"] = digests.file_digest(model / digests.SETTINGS)
        self.record.update(**{digests.KEY: written})
        self.reported = True

    def gate_result(self, gate: str) -> dict[str, Any]:
        """Action and verdict status of a gate, from the report in the run folder."""
        result = {"action": str(self.config[gate].action)}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            verdict = read_json(self.folder / gate / "verdict.json")
            result["status"] = str(verdict["status"])
        return result

    def write_page(self) -> None:
        """Write the run's report page. A failure is a warning."""
        from runs import report

        try:
            report.write(self.folder)
        except Exception as error:
            logger.warning(
                "%s could not be written: %s; python -m runs report %s shows why", report.FILE, error, self.folder
            )


def new_run(config: DictConfig) -> Run:
    """Return a run that is not open yet, in Hydra's folder."""
    return Run(config, Path(HydraConfig.get().runtime.output_dir))


def open_run(run: Run) -> None:
    """Open the run folder: of a new run, one to resume, or a finished one. `run_end.finish` ends a run that fails here, too.

    Raises:
        InputError: the configuration cannot train, or the folder holds something else. The folder is unchanged.
        ProcessEnding, ProcessLostError: another process of the run has ended, or did not come.
    """
    config, hydra_folder = run.config, run.folder
    try:
        _join_ranks(run)
        words = [*HydraConfig.get().overrides.task, *HydraConfig.get().overrides.hydra]
        if empty := [message for word in words if (message := describe_empty_override(word))]:
            raise InputError("; ".join(empty))
        check_config(config)
        check_trust(config, HydraConfig.get().overrides.task)
        if not (hydra_folder / folders.RECORD).exists():
            from datamodules.sources.hub_requirements import check_hub_requirements

            check_hub_requirements(config.data, config.model)
        from trainers import distributed, hardware

        run.folder, run.finished_fields = distributed.decide_on_rank_zero(lambda: _start_or_load(run))
        if hydra_folder.resolve() != run.folder.resolve():  # named by this rank's clock; rank zero's is used
            files.remove_new_folder(hydra_folder)
        machine = hardware.configure_cpu(config.trainer.threads)
        if run.record is not None:
            run.record.update(**machine)
        _seed(config.seed)
    except BaseException:
        run.folder_lock.close()
        run.metric_connections.close()
        files.remove_new_folder(hydra_folder)
        raise
    run.opened = True


def _join_ranks(run: Run) -> None:
    """Join the other processes of the run, if there are any, before anything can fail on one of them alone."""
    if process.world_size() == 1:
        return
    from trainers import distributed

    config: dict[str, Any] = OmegaConf.to_container(run.config, resolve=True)  # type: ignore[assignment]
    description = {"config": mask_secrets(folders.to_plain(config))}
    run.peers = distributed.start(run.config.trainer.accelerator, description, interrupts.current().post)


def _start_or_load(run: Run) -> tuple[Path, dict[str, Any]]:
    """Load the record of a finished run, or start the record of a run that trains.

    Returns:
        The folder, and the record's fields if the run is finished.
    """
    config: dict[str, Any] = OmegaConf.to_container(run.config, resolve=True)  # type: ignore[assignment]
    records.check_job(run.folder)
    fields = _previous_fields(run.folder, config)
    if fields.get("status") != "finished":
        check_places(run.config)
        folders.check_metrics_file(run.folder, run.config.metrics_file)
        run.metric_connections.enter_context(push_metric_lines(run.config.push_metrics))
        run.metric_connections.enter_context(
            post_status(str(run.config.monitor), config["task"]["metrics"][run.config.monitor]["mode"] == "max")
        )
        run.folder_lock.enter_context(folders.lock_folder(run.folder))
        fields = _previous_fields(run.folder, config)  # another process may have finished it meanwhile
        if retries() is not None and fields.get("status") != "finished":
            records.check_progress(run.folder)
    if fields.get("status") == "finished":
        run.folder_lock.close()
        run.metric_connections.close()
        return run.folder, fields
    for folder in (run.folder, run.folder / folders.CHECKPOINTS):
        remove_temporary_files(folder)
    run.record = records.start_record(run.folder, config=config, seeds={"seed": run.config.seed})
    hydra = OmegaConf.to_container(HydraConfig.instance().cfg.hydra, resolve=False)  # type: ignore[union-attr]
    folders.write_hydra(
        run.folder,
        config=OmegaConf.to_yaml(run.config),
        hydra=OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        overrides=OmegaConf.to_yaml(HydraConfig.get().overrides.task),
    )
    choices = {group: name for group, name in HydraConfig.get().runtime.choices.items() if "/" not in group}
    run.update(own_code=source_code.custom_code() or None, choices=choices)
    return run.folder, {}


def check_places(config: DictConfig) -> None:
    """Check all that a run writes outside of its folder, before any data is prepared.

    Raises:
        InputError: something cannot be written, or is another program's.
    """
    from trainers import initial_weights

    if config.metrics_file is not None:
        metric_lines.check_file(config.metrics_file)
    initial_weights.check_population(config.population_dir)
    if config.quality.action != "off" and config.quality.summary:
        files.check_writable(config.quality.summary, "the summary of the gate", append=True)
    store = str((config.get("logger") or {}).get("tracking_uri", ""))
    if store.startswith("sqlite:///"):
        files.check_writable(store.removeprefix("sqlite:///"), "MLflow's database", append=True)


def _previous_fields(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read the record of the run in the folder; empty if there is none, or none to resume.

    Raises:
        InputError: the folder holds another run, or something else.
    """
    if folders.check_folder(folder) not in ("unfinished", "finished"):
        return {}
    fields = folders.read_record(folder)
    checkpoints = [
        folder / folders.CHECKPOINTS / name for name in (folders.LAST_CHECKPOINT, folders.PREVIOUS_CHECKPOINT)
    ]
    if fields["status"] != "finished" and not any(path.exists() for path in checkpoints):
        return {}  # it failed before its first checkpoint: starting again loses nothing
    if differences := folders.config_differences(fields["config"], config):
        raise InputError(folders.describe_differences(folder, differences))
    longer = any(fields["config"]["trainer"][key] != config["trainer"][key] for key in ("max_steps", "max_epochs"))
    return {**fields, "status": "unfinished"} if longer else fields


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
