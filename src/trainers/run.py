"""A run's life: open, resume, report or reprint, finish. All ranks decide together and end alike; rank zero writes."""

import contextlib
import json
import logging
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from config import files, process, source_code, tasks
from config.check import check_config
from config.errors import ContractError, DivergenceError, InputError, SignalInterrupt
from config.rules import RENAMED_KEYS
from runs import folder as folders
from runs import metric_lines
from runs import record as records
from runs.masking import mask_secrets
from runs.push import push_metric_lines

logger = logging.getLogger(__name__)

_GOOD = ("passed", "warned")  # statuses of a verdict that let a run pass
_NOT_JUDGEMENT = ("action", "webhook", "summary")  # keys of conf/quality and conf/explain that change no verdict


@dataclass
class Run:
    """The run that train.py is doing.

    Attributes:
        config: the whole composed configuration.
        folder: where everything goes.
        finished: whether the folder holds this run's result already.
        record: run.json being written: on rank zero of a run that trains.
        recorded: run.json's content where it is not being written: of a finished run.
        loggers: the experiment tracker, if one is configured, once `open_loggers` was called.
        reported: whether `report` has said the result.
        store: that the ranks share (`distributed.start`).
        channel: to Katib's DB manager, closed by `finish`.
        lock: of the folder, released by `finish`.
    """

    config: DictConfig
    folder: Path
    finished: bool = False
    record: records.Record | None = None
    recorded: dict[str, Any] = field(default_factory=dict)
    loggers: list[Any] = field(default_factory=list)
    reported: bool = False
    store: Any = None
    channel: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def fields(self) -> dict[str, Any]:
        """run.json's content."""
        return self.record.fields if self.record is not None else self.recorded

    @property
    def metrics_file(self) -> Path:
        """Where metric lines go, besides stdout."""
        return Path(self.config.metrics_file or self.folder / folders.METRICS)


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        rank: that says so.
        status: for run.json.
        exit_code: of all ranks.
        reason: one line for people; None for a run that finished.
    """

    rank: int
    status: records.Status
    exit_code: int
    reason: str | None


# -- the beginning ----------------------------------------------------------------------------------------------------


def open_run(config: DictConfig) -> Run:
    """Opens the run's folder: a new run, one to resume, or a finished one.

    Raises:
        InputError: a configuration that could not train, or a folder that is not this run's to use. Nothing is touched.
    """
    own = Path(HydraConfig.get().runtime.output_dir)
    run = Run(config, own)
    try:
        check_config(config)
        if not (own / folders.RECORD).exists():
            from datamodules.sources.hub_requirements import check_hub_requirements

            check_hub_requirements(config.data, config.model)
        from datamodules.imports import quick

        quick()
        from trainers import cpu, distributed, hardware

        run.store = distributed.start()
        run.folder, run.finished, run.recorded = distributed.decide_on_rank_zero(lambda: _begin(run))
        if own.resolve() != run.folder.resolve():  # named by the clock; the shared one is rank zero's to keep
            _remove_if_empty(own)
        machine = {"threads": hardware.configure_cpu(config.trainer.threads), "cpu": cpu.tune_cpu()}
        if run.record is not None:
            run.record.update(**machine)
        _seed(config.seed)
    except BaseException:
        run.lock.close()
        run.channel.close()
        _remove_if_empty(own)
        raise
    return run


def _begin(run: Run) -> tuple[Path, bool, dict[str, Any]]:
    """What the folder is, for all ranks; begins the record of a run that trains.

    Returns:
        The folder, whether its run is finished, and the record if it is.
    """
    config: dict[str, Any] = OmegaConf.to_container(run.config, resolve=True)  # type: ignore[assignment]
    fields = _existing(run.folder, config)
    if fields.get("status") == "finished":
        return run.folder, True, fields
    run.channel.enter_context(push_metric_lines(run.config.push_metrics))
    run.lock.enter_context(folders.lock_folder(run.folder))
    _remove_unfinished_writes(run.folder)
    run.record = records.start_record(run.folder, config=config, seeds={"seed": run.config.seed})
    hydra = OmegaConf.to_container(HydraConfig.instance().cfg.hydra, resolve=False)  # type: ignore[union-attr]
    folders.write_hydra(
        run.folder,
        config=OmegaConf.to_yaml(run.config),
        hydra=OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        overrides=OmegaConf.to_yaml(HydraConfig.get().overrides.task),
    )
    choices = HydraConfig.get().runtime.choices
    if own := source_code.custom_code():
        run.record.update(own_code=own)
    run.record.update(choices={group: name for group, name in choices.items() if "/" not in group})
    return run.folder, False, {}


def _remove_unfinished_writes(folder: Path) -> None:
    """Removes what a process that was killed had begun to write beside files and folders (`config.files`)."""
    for begun in [*folder.glob(".*.tmp"), *(folder / folders.CHECKPOINTS).glob(".*.tmp")]:
        if begun.is_dir():
            shutil.rmtree(begun, ignore_errors=True)
        else:
            begun.unlink(missing_ok=True)


def _existing(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The record of the run that the folder holds, if it is this one.

    Raises:
        InputError: something else is there.
    """
    if folders.check_folder(folder) not in ("unfinished", "finished"):
        return {}
    fields = folders.read_record(folder)
    begun = any(
        (folder / folders.CHECKPOINTS / name).exists()
        for name in (folders.LAST_CHECKPOINT, folders.PREVIOUS_CHECKPOINT)
    )
    if fields["status"] != "finished" and not begun:
        return {}  # it failed before its first checkpoint: nothing is lost by starting again
    if found := folders.config_differences(fields["config"], config):
        raise InputError(folders.describe_differences(folder, found))
    longer = any(fields["config"]["trainer"][key] != config["trainer"][key] for key in ("max_steps", "max_epochs"))
    return {**fields, "status": "unfinished"} if longer else fields


def resume(folder: Path, metrics_file: Path) -> Path | None:
    """Prepares a folder for training: from its last checkpoint, or from the start. All ranks get rank zero's choice.

    Args:
        folder: of the run.
        metrics_file: cut back to the checkpoint, or removed.

    Returns:
        The checkpoint to go on from; None starts.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    from trainers import checkpoints, distributed

    def choose() -> Path | None:
        found = checkpoints.read_latest(folder / folders.CHECKPOINTS)
        if found is None:
            metrics_file.unlink(missing_ok=True)
            return None
        path, checkpoint = found
        checkpoints.truncate_metrics(metrics_file, checkpoint)
        logger.info("going on from %s", path)
        return path

    return distributed.decide_on_rank_zero(choose)


# -- on the way -------------------------------------------------------------------------------------------------------


def update(run: Run, **fields: Any) -> None:
    """Adds to run.json what is not None; on rank zero."""
    known = {name: value for name, value in fields.items() if value is not None}
    if run.record is not None:
        run.record.update(**known)
    elif process.rank() == 0:
        run.recorded |= {name: folders.to_plain(value) for name, value in known.items()}
        files.write_json(run.folder / folders.RECORD, run.recorded)


def phase(run: Run, name: str) -> contextlib.AbstractContextManager[None]:
    """Times a part of the run."""
    return run.record.phase(name) if run.record is not None else contextlib.nullcontext()


def open_loggers(run: Run) -> list[Any]:
    """The experiment tracker, if one is configured; none on other ranks."""
    from trainers.loggers import open_logger

    if run.record is not None and (opened := open_logger(run.config, run.folder, run.record.fields)) is not None:
        run.loggers = [opened]
    return run.loggers


def export(run: Run, model: Any) -> None:
    """Writes model/, all of it or nothing, and the pictures of its mistakes."""
    if run.record is None:
        return
    with files.atomic_folder(run.folder / folders.MODEL) as folder:
        model.export(str(folder))
        if not any((folder / name).exists() for name in ("config.json", "baseline.json")):
            raise InputError(f"export of {type(model).__name__} wrote no config.json, by which a saved model is opened")
    keep_mistakes = getattr(tasks.load_module(str(run.config.task.name)), "keep_mistakes", None)
    if keep_mistakes is None:
        return
    try:
        keep_mistakes(model, run.folder)
    except Exception as error:  # the model is there, with or without pictures for its report
        logger.warning("no pictures of mistakes were kept for the report: %s", error)


def report(run: Run, best: Mapping[str, Any]) -> None:
    """Says the result: the last metric line, and the final metrics in run.json.

    Args:
        run: whose model is exported.
        best: of `fit.fit`.
    """
    if run.record is None:
        return
    from trainers import saved_model

    metric_lines.write(best["metrics"], best["epoch"], best["step"], jsonl_path=run.metrics_file)
    run.record.update(
        best={"epoch": best["epoch"], "step": best["step"]},
        details=best["details"],
        metrics=metric_lines.to_finite_metrics(best["metrics"]),
    )
    model = run.folder / folders.MODEL
    if (model / "config.json").exists():  # a baseline has none
        saved_model.write_settings(model, run.record.fields)
    run.reported = True


# -- a finished run ---------------------------------------------------------------------------------------------------


def unjudged(run: Run, gate: str) -> bool:
    """Whether a gate has to judge a finished run now: it is enforced, and there is no verdict under these settings.

    Args:
        run: finished. On ranks other than zero the answer is no.
        gate: quality or explain.
    """
    if process.rank() or run.config[gate].action != "enforce":
        return False
    if gate == "explain" and "diverged" in run.fields:
        return False  # it has no model, and a search goes on
    recorded = (run.fields.get("config") or {}).get(gate) or {}
    then = {RENAMED_KEYS.get(f"{gate}.{key}", key).removeprefix(f"{gate}."): value for key, value in recorded.items()}
    now = _settings(run, gate)
    same = all(then[key] == now[key] for key in then.keys() & now.keys() if key not in _NOT_JUDGEMENT)
    return not (same and (run.fields.get(gate) or {}).get("status"))


def judge(run: Run, gate: str, look: Callable[[], Mapping[str, Any]]) -> None:
    """Has a gate judge a finished run, if it must; writes what it found into run.json and the run's page.

    Args:
        run: finished.
        gate: quality or explain.
        look: calls the gate, which writes its report into the run's folder.

    Raises:
        ContractError: the gate's.
    """
    if not unjudged(run, gate):
        return
    try:
        found = dict(look())
    except ContractError:
        _write_verdict(run, gate, _verdict(run, gate))
        raise
    _write_verdict(run, gate, found)


def reprint(run: Run) -> dict[str, Any]:
    """Says a finished run's result again.

    Returns:
        run.json's fields for the explanations' `judge`, with this command's action; none on ranks other than zero.

    Raises:
        ContractError: under `quality=enforce`, of a run whose data was not good.
    """
    if process.rank():
        return {}
    quality = run.fields.get("quality") or {}
    if run.config.quality.action == "enforce" and quality.get("status") not in (None, *_GOOD):
        raise ContractError(
            f"the data contract of {run.folder}: {quality['status']}; see {run.folder / 'quality' / 'report.html'}; "
            "quality=warn prints the result all the same"
        )
    best = run.fields.get("best") or {"epoch": 0, "step": 0}
    metric_lines.write(run.fields["metrics"], best["epoch"], best["step"])
    logger.info("this run was finished before; its result is printed again")
    explain = run.fields.get("explain") or {}
    return {**run.fields, "explain": {**explain, "action": str(run.config.explain.action)}}


def _settings(run: Run, gate: str) -> dict[str, Any]:
    settings: dict[str, Any] = mask_secrets(folders.to_plain(OmegaConf.to_container(run.config[gate], resolve=True)))
    return settings


def _write_verdict(run: Run, gate: str, found: dict[str, Any]) -> None:
    """With the settings that it was reached under."""
    with folders.lock_folder(run.folder):
        update(run, **{gate: found, "config": {**run.fields["config"], gate: _settings(run, gate)}})
    _write_page(run.folder)


def _verdict(run: Run, gate: str) -> dict[str, Any]:
    """For run.json: the status in a gate's report."""
    found = {"action": str(run.config[gate].action)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        verdict = json.loads((run.folder / gate / "verdict.json").read_text(encoding="utf-8"))
        found["status"] = str(verdict["status"])
    return found


# -- the end ----------------------------------------------------------------------------------------------------------


def finish(run: Run, error: BaseException | None = None) -> None:
    """Ends a run: the one exit of all ranks, whatever happened.

    The first rank that fails decides how the run ended; without a failure rank zero does. Its exit code is that of all
    ranks, and is what run.json says.

    Args:
        run: that was opened.
        error: what ended it; None if it came to its end.

    Raises:
        BaseException: the error, on the rank that decided.
        SystemExit: with the same exit code, on other ranks.
    """
    from trainers import distributed

    if isinstance(error, DivergenceError) and run.config.trainer.on_divergence == "report_worst":
        logger.warning("%s", error)
        worst, error = str(error), None
        error = _attempt(error, lambda: _report_worst(run, worst))
    else:
        worst = None
    error = _attempt(error, run.channel.close)
    if error is None and run.record is not None:
        error = _attempt(error, lambda: run.record.end("finished", reason=worst))  # type: ignore[union-attr]
    ending = _agree(run, error)
    distributed.stop()
    if run.record is not None:
        _write_end(run, run.record, ending, error)
    run.lock.close()
    distributed.leave_together(run.store, ending.rank)
    if process.rank() == 0 and (run.reported or run.finished):
        print(f"isotrain: the run is in {run.folder}", file=sys.stderr)
    if ending.exit_code == 0 and error is None:
        return
    if error is not None and ending.rank == process.rank():
        raise error
    raise SystemExit(ending.exit_code)


def _attempt(error: BaseException | None, action: Callable[[], Any]) -> BaseException | None:
    """The error that there is, else the one that the action raises."""
    try:
        action()
    except Exception as raised:
        return error or raised
    return error


def _report_worst(run: Run, reason: str) -> None:
    """Says the worst values, for searches that stall on a failed trial."""
    if run.record is None:
        return
    worst = {name: float(metric.worst) for name, metric in run.config.task.metrics.items()}
    metric_lines.write(worst, 0, 0, jsonl_path=run.metrics_file)
    run.record.update(best={"epoch": 0, "step": 0}, diverged=reason, metrics=worst)


def _agree(run: Run, error: BaseException | None) -> Ending:
    """How the run ended, the same on all ranks."""
    from trainers import distributed

    own = _ending(error)
    waits = error is None and process.rank() != 0  # for rank zero, which still exports and explains
    try:
        return Ending(**json.loads(distributed.agree(run.store, None if waits else json.dumps(asdict(own)))))
    except RuntimeError as gone:  # rank zero served the store, and has left; it wrote why
        with contextlib.suppress(InputError):
            fields = folders.read_record(run.folder)
            if fields["status"] != "running":
                return Ending(0, fields["status"], int(fields["exit_code"]), fields["reason"])
        return own if error is not None else Ending(process.rank(), "failed", 1, f"rank zero is gone: {gone}")


def _ending(error: BaseException | None) -> Ending:
    rank = process.rank()
    if error is None:
        return Ending(rank, "finished", 0, None)
    interrupted = isinstance(error, SignalInterrupt | KeyboardInterrupt)
    while error.__cause__ is not None and not hasattr(error, "exit_code"):
        error = error.__cause__
    code = int(getattr(error, "exit_code", 130 if interrupted else 1))
    status: records.Status = (
        "interrupted" if interrupted else "diverged" if isinstance(error, DivergenceError) else "failed"
    )
    return Ending(rank, status, code, str(error) or type(error).__name__)


def _write_end(run: Run, record: records.Record, ending: Ending, error: BaseException | None) -> None:
    """Writes how a run ended, its page, and the tracker's copies. A disk that is full must not hide why it ended."""
    if ending.status != "finished":
        verdict = {"quality": _verdict(run, "quality")} if isinstance(error, ContractError) else {}
        with contextlib.suppress(OSError):
            record.update(**verdict)
            record.end(ending.status, exit_code=ending.exit_code, reason=ending.reason)
    from runs import report

    if run.reported or (run.folder / report.FILE).exists():
        _write_page(run.folder)
    if run.reported:
        from trainers.loggers import log_run

        for tracker in run.loggers:
            log_run(tracker, run.folder, run.fields)


def _write_page(folder: Path) -> None:
    from runs import report

    try:
        report.write(folder)
    except Exception as error:  # the run has ended, with or without its page
        logger.warning("no %s was written: %s; python -m runs report %s says why", report.FILE, error, folder)


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
