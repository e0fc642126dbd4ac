"""The end of a run: all ranks agree on one status and exit code, which run.json holds."""

import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from config import interrupts, process
from config.error_handling import explain_input_error
from config.errors import ContractError, DivergenceError, InputError, ProcessLostError, SignalInterrupt
from config.system_errors import to_expected_error
from config.terminal import fold
from runs import folder as folders
from runs import trainjob_status
from runs.record import Status
from trainers import console
from trainers.peers import Ending, ProcessEnding, is_lost_connection
from trainers.run import Run

logger = logging.getLogger(__name__)

_TELL_S = 10.0  # for which a process that ends before it has joined the others tries to reach them


def end_when_stuck(run: Run) -> None:
    """From now on end a run whose main thread does not react to a signal, or to the end of another rank."""
    interrupts.current().on_stuck = lambda error: _end_stuck(run, error)


def finish(run: Run, error: BaseException | None = None) -> None:
    """End a run on all ranks: the single exit of train.py.

    The first rank that fails decides; without a failure, rank zero. Its exit code is that of all ranks and of run.json.

    Args:
        run: a run, open unless `error` prevented that.
        error: the exception that ended it, if any.

    Raises:
        BaseException: `error`, on the rank that decided.
        SystemExit: with the same exit code, on other ranks.
    """
    signals = interrupts.current()
    error, ending = _decide(run, error)
    if process.world_size() > 1:
        from trainers import distributed

        distributed.stop()
    try:
        _record_ending(run, ending, error)
        signals.restore()
        _publish(run)
    finally:
        run.folder_lock.close()
        _leave_together(run, ending)
    if process.rank() == 0 and run.reported and error is None:
        print(console.format_end(run.fields, run.folder), file=sys.stderr)
    if process.rank() == 0 and (run.reported or run.finished):
        print(fold(f"isotrain: the run is in {run.folder}", sys.stderr), file=sys.stderr)
    if ending.exit_code == 0 and error is None:
        return
    is_own = error is not None and not isinstance(error, ProcessEnding)
    if is_own and (ending.rank == process.rank() or (not run.opened and ending.exit_code == _ending(error).exit_code)):
        raise error  # type: ignore[misc]
    # The ranks of one machine share a terminal, where one message is enough.
    if ending.rank == process.rank() or ending.host != socket.gethostname() or not run.opened:
        origin = "" if ending.rank == process.rank() else f"rank {ending.rank} on {ending.host}: "
        print(f"isotrain: {origin}{ending.reason}", file=sys.stderr)
    raise SystemExit(ending.exit_code)


def tell_others(error: BaseException) -> None:
    """Tell the other ranks of an error before this one has joined them, so that they do not wait for it.

    Args:
        error: the exception that ends this process.
    """
    from trainers import distributed, rendezvous

    if rendezvous.store() is not None or (isinstance(error, SystemExit) and not error.code):
        return
    interrupts.current().ended = True
    if isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__  # whose message `report_errors` has printed
    with contextlib.suppress(Exception):
        store = rendezvous.join(_TELL_S)
        distributed.leave_together(
            store, distributed.agree(store, _ending(explain_input_error(to_expected_error(error)))).rank
        )


def _decide(run: Run, error: BaseException | None) -> tuple[BaseException | None, Ending]:
    """Complete the run, and agree with all ranks on how it ended. A signal until then is an error of this rank.

    Returns:
        The error of this rank, and the ending. Nothing interrupts the main thread any more.
    """
    while True:
        try:
            error = _complete(run, error)
            ending = _agree(run, error)
            interrupts.current().ended = True
            if run.peers is not None:
                run.peers.stop()
        except (SignalInterrupt, KeyboardInterrupt, ProcessEnding) as interrupt:
            error = error or interrupt
        else:
            return error, ending


def _complete(run: Run, error: BaseException | None) -> BaseException | None:
    """Report the worst values of a run that diverged, if configured, or record that it has finished.

    Returns:
        The error that remains, as one with an exit code.
    """
    if run.peers is not None and is_lost_connection(error):
        error = run.peers.explain(error)
    error = None if error is None else to_expected_error(error)
    divergence = None
    if isinstance(error, DivergenceError) and run.config.trainer.on_divergence == "report_worst":
        logger.warning("%s", error)
        divergence = str(error)
        error = _attempt(None, lambda: _report_worst(run, str(divergence)))
    if error is None:
        trainjob_status.report_completion()
    error = _attempt(error, run.metric_connections.close)
    if error is None and run.record is not None:
        error = _attempt(error, lambda: run.record.end("finished", reason=divergence))  # type: ignore[union-attr]
    return error


def _end_stuck(run: Run, error: BaseException) -> None:
    """End a run whose main thread does not react. Called in another thread; the process exits afterwards."""
    ending = _agree(run, error)
    error.exit_code = ending.exit_code  # type: ignore[attr-defined]
    if run.record is not None:
        run.record.end(ending.status, exit_code=ending.exit_code, reason=ending.reason)
    _leave_together(run, ending)


def _leave_together(run: Run, ending: Ending) -> None:
    if process.world_size() > 1:
        from trainers import distributed, rendezvous

        distributed.leave_together(rendezvous.store(), ending.rank)


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
    run.write_metrics(worst, 0, 0)
    run.record.update(best={"epoch": 0, "step": 0}, diverged=reason, metrics=worst)


def _agree(run: Run, error: BaseException | None) -> Ending:
    """Agree with all ranks on how the run ended."""
    ending = _ending(error)
    if process.world_size() == 1:
        return ending
    from trainers import distributed, rendezvous

    store = rendezvous.store()
    if store is None:
        return ending
    waiting = error is None and process.rank() != 0  # for rank zero, which still exports and explains
    try:
        return distributed.agree(store, None if waiting else ending)
    except RuntimeError as store_error:  # rank zero served the store and has left; run.json has its reason
        with contextlib.suppress(InputError):
            fields = folders.read_record(run.folder)
            if run.opened and fields["status"] != "running":
                return Ending(0, fields["status"], int(fields["exit_code"]), fields["reason"])
        if error is not None:
            return ending
        lost = run.peers.explain(store_error) if run.peers is not None else ProcessLostError(str(store_error))
        return _ending(lost)


def _ending(error: BaseException | None) -> Ending:
    rank, host = process.rank(), socket.gethostname()
    if error is None:
        return Ending(rank, "finished", 0, None, host)
    if isinstance(error, ProcessEnding):
        return error.ending
    interrupted = isinstance(error, SignalInterrupt | KeyboardInterrupt)
    code = int(getattr(error, "exit_code", 130 if interrupted else 1))
    diverged = isinstance(error, DivergenceError)
    status: Status = "interrupted" if interrupted else "diverged" if diverged else "failed"
    return Ending(rank, status, code, str(error) or type(error).__name__, host)


def _record_ending(run: Run, ending: Ending, error: BaseException | None) -> None:
    """Write run.json on rank zero of a run that trains."""
    if run.record is None or ending.status == "finished":
        return
    with contextlib.suppress(OSError):  # a full disk must not hide the error
        if isinstance(error, ContractError):
            run.record.update(quality=run.gate_result("quality"))
        run.record.end(ending.status, exit_code=ending.exit_code, reason=ending.reason)


def _publish(run: Run) -> None:
    """Write the report page and the tracker's copies, on rank zero of a run that trains."""
    if run.record is None:
        return
    from runs import report

    if run.reported or (run.folder / report.FILE).exists():
        run.write_page()
    if run.reported:
        from trainers.loggers import log_run

        for tracker in run.loggers:
            log_run(tracker, run.folder, run.fields)
