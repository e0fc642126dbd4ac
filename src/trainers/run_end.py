"""The end of a run: all ranks agree on one status and exit code, which run.json holds."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from config import process
from config.errors import ContractError, DivergenceError, InputError, SignalInterrupt
from config.system_errors import to_expected_error
from runs import folder as folders
from runs import metric_lines
from runs.record import Status
from trainers.run import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        rank: the rank that decided.
        status: for run.json.
        exit_code: of all ranks.
        reason: one line for people; None for a run that finished.
    """

    rank: int
    status: Status
    exit_code: int
    reason: str | None


def finish(run: Run, error: BaseException | None = None) -> None:
    """End a run on all ranks: the single exit of train.py.

    The first rank that fails decides; without a failure, rank zero. Its exit code is that of all ranks and of run.json.

    Args:
        run: an open run.
        error: the exception that ended it, if any.

    Raises:
        BaseException: `error`, on the rank that decided.
        SystemExit: with the same exit code, on other ranks.
    """
    from trainers import distributed

    divergence = None
    error = None if error is None else to_expected_error(error)
    if isinstance(error, DivergenceError) and run.config.trainer.on_divergence == "report_worst":
        logger.warning("%s", error)
        divergence = str(error)
        error = _attempt(None, lambda: _report_worst(run, str(divergence)))
    error = _attempt(error, run.metric_push.close)
    if error is None and run.record is not None:
        error = _attempt(error, lambda: run.record.end("finished", reason=divergence))  # type: ignore[union-attr]
    ending = _agree(run, error)
    distributed.stop()
    _write_ending(run, ending, error)
    run.folder_lock.close()
    distributed.leave_together(run.store, ending.rank)
    if process.rank() == 0 and (run.reported or run.finished):
        print(f"isotrain: the run is in {run.folder}", file=sys.stderr)
    if ending.exit_code == 0 and error is None:
        return
    if error is not None and ending.rank == process.rank():
        raise error
    raise SystemExit(ending.exit_code)


def _attempt(error: BaseException | None, action: Callable[[], Any]) -> BaseException | None:
    """Call `action`. Return `error` if there is one, else what the action raised."""
    try:
        action()
    except Exception as action_error:
        return error or to_expected_error(action_error)
    return error


def _report_worst(run: Run, reason: str) -> None:
    """Report the worst values of all metrics, for searches that stall on a failed trial."""
    if run.record is None:
        return
    worst = {name: float(metric.worst) for name, metric in run.config.task.metrics.items()}
    metric_lines.write(worst, 0, 0, jsonl_path=run.metrics_file)
    run.record.update(best={"epoch": 0, "step": 0}, diverged=reason, metrics=worst)


def _agree(run: Run, error: BaseException | None) -> Ending:
    """Agree with all ranks on how the run ended."""
    from trainers import distributed

    ending = _ending(error)
    waiting = error is None and process.rank() != 0  # for rank zero, which still exports and explains
    try:
        return Ending(**json.loads(distributed.agree(run.store, None if waiting else json.dumps(asdict(ending)))))
    except RuntimeError as store_error:  # rank zero served the store and has left; run.json has its reason
        with contextlib.suppress(InputError):
            fields = folders.read_record(run.folder)
            if fields["status"] != "running":
                return Ending(0, fields["status"], int(fields["exit_code"]), fields["reason"])
        if error is not None:
            return ending
        return Ending(process.rank(), "failed", 1, f"rank zero has exited: {store_error}")


def _ending(error: BaseException | None) -> Ending:
    rank = process.rank()
    if error is None:
        return Ending(rank, "finished", 0, None)
    interrupted = isinstance(error, SignalInterrupt | KeyboardInterrupt)
    code = int(getattr(error, "exit_code", 130 if interrupted else 1))
    diverged = isinstance(error, DivergenceError)
    status: Status = "interrupted" if interrupted else "diverged" if diverged else "failed"
    return Ending(rank, status, code, str(error) or type(error).__name__)


def _write_ending(run: Run, ending: Ending, error: BaseException | None) -> None:
    """Write run.json, the report page and the tracker's copies, on rank zero of a run that trains."""
    if run.record is None:
        return
    if ending.status != "finished":
        with contextlib.suppress(OSError):  # a full disk must not hide the error
            if isinstance(error, ContractError):
                run.record.update(quality=run.gate_result("quality"))
            run.record.end(ending.status, exit_code=ending.exit_code, reason=ending.reason)
    from runs import report

    if run.reported or (run.folder / report.FILE).exists():
        run.write_page()
    if run.reported:
        from trainers.loggers import log_run

        for tracker in run.loggers:
            log_run(tracker, run.folder, run.fields)
