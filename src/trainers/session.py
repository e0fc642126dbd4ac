"""Around one training run: its folder, its record, its processes, and how it ends."""

import contextlib
import logging
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from config import process
from config.check import check
from config.errors import Diverged, Interrupted, Refused
from runs import folder as folders
from runs import metric_lines
from runs import record as records
from runs.push import pushed
from trainers import mistakes, saved

logger = logging.getLogger(__name__)


class Run:
    """The run that train.py is doing. Only rank zero writes.

    Attributes:
        folder: where everything goes.
        finished: whether the folder holds this run's result already.
        fields: run.json's content.
    """

    def __init__(self, folder: Path, metrics_file: Path, record: records.Record | None, fields: dict[str, Any]) -> None:
        self.folder, self.metrics_file = folder, metrics_file
        self._record = record
        self._fields = fields
        self.finished = fields.get("status") == "finished"

    @property
    def fields(self) -> dict[str, Any]:
        return self._record.fields if self._record is not None else self._fields

    def record(self, **fields: Any) -> None:
        """Adds to run.json what is not None."""
        if self._record is not None:
            self._record.update(**{name: value for name, value in fields.items() if value is not None})

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a part of the run."""
        with self._record.phase(name) if self._record is not None else contextlib.nullcontext():
            yield

    def loggers(self, config: DictConfig) -> list[Any]:
        """The experiment tracker, if one is configured; none on other ranks."""
        from trainers.loggers import open_logger

        opened = None if self._record is None else open_logger(config, self.folder, self._record.fields)
        return [] if opened is None else [opened]

    def export(self, model: Any) -> None:
        """Writes model/, all of it or nothing, and the pictures of its mistakes."""
        if self._record is None:
            return
        target, temporary = self.folder / folders.MODEL, self.folder / f"{folders.MODEL}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        model.export(str(temporary))
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
        try:
            mistakes.keep(model, self.folder)
        except Exception as error:  # the model is there, with or without pictures for its report
            logger.warning("no pictures of mistakes were kept for the report: %s", error)

    def finish(self, best: Mapping[str, Any]) -> None:
        """Says the result: the last metric line, and the final metrics in run.json."""
        if self._record is None:
            return
        metric_lines.write(best["metrics"], best["epoch"], best["step"], jsonl_path=self.metrics_file)
        self.record(best={"epoch": best["epoch"], "step": best["step"]}, details=best["details"])
        if (self.folder / folders.MODEL / "config.json").exists():
            saved.write(self.folder / folders.MODEL, self.fields)
        self._record.end("finished", metrics=best["metrics"])
        from runs import report

        try:
            report.write(self.folder)
        except Exception as error:  # the run is finished, with or without its page
            logger.warning("no %s was written: %s; python -m runs report %s says why", report.FILE, error, self.folder)

    def report(self) -> None:
        """Says where the run is, and its result when it had been finished before."""
        if process.rank():
            return
        if self.finished:
            best = self.fields.get("best") or {"epoch": 0, "step": 0}
            metric_lines.write(self.fields["metrics"], best["epoch"], best["step"])
            logger.info("this run was finished before; its result is printed again")
        print(f"isotrain: the run is in {self.folder}", file=sys.stderr)


@contextlib.contextmanager
def session(config: DictConfig) -> Iterator[Run]:
    """Opens the run's folder: a new run, one to go on with, or a finished one.

    Whatever ends the run is written to its record, and raised again.

    Raises:
        Refused: a configuration that could not train, or a folder that is not this run's to use. Nothing is touched.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check(config)
        if not (folder / folders.RECORD).exists():
            from datamodules.sources.hub_needs import refuse_early

            refuse_early(config.data, config.model)
        from datamodules.imports import quick

        quick()
        from trainers import cpu, distributed, hardware

        distributed.start()
        folder = Path(distributed.broadcast(str(folder)))
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        fields = _existing(folder, plain)
    except BaseException:
        _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
        raise
    metrics_file = Path(config.metrics_file or folder / folders.METRICS)
    if fields.get("status") == "finished":
        yield Run(folder, metrics_file, None, fields)
        distributed.stop()
        return
    if process.rank():
        own = Path(HydraConfig.get().runtime.output_dir)
        if own.resolve() != folder.resolve():  # named by the clock; the shared one is rank zero's to keep
            _remove_if_empty(own)
        hardware.use_threads(config.trainer.threads)
        cpu.tune()
        _seed(config.seed)
        yield Run(folder, metrics_file, None, fields)
        distributed.stop()
        return
    with pushed(config.push_metrics), folders.lock(folder):
        record = records.start(folder, config=plain, seeds={"seed": config.seed})
        folders.write_hydra(
            folder,
            config=OmegaConf.to_yaml(config),
            hydra=OmegaConf.to_yaml(
                OmegaConf.create({"hydra": OmegaConf.to_container(HydraConfig.instance().cfg.hydra, resolve=False)})
            ),  # type: ignore[union-attr]
            overrides=OmegaConf.to_yaml(HydraConfig.get().overrides.task),
        )
        record.update(
            choices={group: name for group, name in HydraConfig.get().runtime.choices.items() if "/" not in group}
        )
        record.update(threads=hardware.use_threads(config.trainer.threads), cpu=cpu.tune())
        _seed(config.seed)
        run = Run(folder, metrics_file, record, {})
        try:
            yield run
        except Diverged as error:
            if config.trainer.on_divergence != "report_worst":
                record.end("failed", exit_code=error.exit_code, reason=str(error))
                raise
            logger.warning("%s", error)
            worst = {name: float(metric.worst) for name, metric in config.task.metrics.items()}
            metric_lines.write(worst, 0, 0, jsonl_path=metrics_file)
            record.update(best={"epoch": 0, "step": 0}, diverged=str(error))
            record.end("finished", metrics=worst, reason=str(error))
        except BaseException as error:
            _end(record, error)
            raise
        finally:
            distributed.stop()


def _existing(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The record of the run that the folder holds, if it is this one.

    Raises:
        Refused: something else is there.
    """
    if folders.check(folder) not in ("unfinished", "finished"):
        return {}
    fields = folders.read_record(folder)
    begun = any((folder / folders.CHECKPOINTS / name).exists() for name in (folders.LAST, folders.BEFORE_LAST))
    if fields["status"] != "finished" and not begun:
        return {}  # it failed before its first checkpoint: nothing is lost by starting again
    if found := folders.differences(fields["config"], config):
        raise Refused(folders.refusal(folder, found))
    longer = any(fields["config"]["trainer"][key] != config["trainer"][key] for key in ("max_steps", "max_epochs"))
    return {**fields, "status": "unfinished"} if longer else fields


def _end(record: records.Record, error: BaseException) -> None:
    """Writes how a run ended that did not finish. A disk that is full must not hide why."""
    interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
    while error.__cause__ is not None and not hasattr(error, "exit_code"):
        error = error.__cause__
    code = getattr(error, "exit_code", 130 if interrupted else 1)
    with contextlib.suppress(OSError):
        record.end(
            "interrupted" if interrupted else "failed", exit_code=int(code), reason=str(error) or type(error).__name__
        )
    from runs import report

    if (record.folder / report.FILE).exists():  # written when it had finished, before its explanations were judged
        with contextlib.suppress(Exception):
            report.write(record.folder)


def _remove_if_empty(folder: Path) -> None:
    """Takes back the folder that Hydra made for a run that will not be."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
