"""A finished run, started again: judged by the gates that are enforced, and its result printed."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf

from config import process
from config.errors import ContractError, InputError
from config.masking import mask_secrets
from config.retries import RESTARTED
from config.rules import RENAMED_KEYS
from runs import folder as folders
from runs import metric_lines, trainjob_status
from runs.push import TRIAL_VARIABLE, push_metric_lines
from trainers.run import Run

logger = logging.getLogger(__name__)

_PASSING = ("passed", "warned")  # statuses of a verdict that let a run pass
# Keys of conf/quality and conf/explain that change no verdict.
_NEUTRAL_KEYS = ("action", "webhook", "summary", "time_limit")


def judge(run: Run, gate: str, run_gate: Callable[[], Mapping[str, Any]]) -> None:
    """Run a gate on a finished run if its verdict is missing, and add the result to run.json and the report page.

    Args:
        run: a finished run.
        gate: quality or explain.
        run_gate: runs the gate, which writes its report into the run folder, and returns its field of run.json.

    Raises:
        ContractError: raised by the gate.
    """
    if not _needs_judgement(run, gate):
        return
    try:
        result = dict(run_gate())
    except ContractError:
        _write_result(run, gate, run.gate_result(gate))
        raise
    _write_result(run, gate, result)


def reprint(run: Run) -> dict[str, Any]:
    """Print the metric line of a finished run again.

    Returns:
        Fields of run.json for `explain.gate.enforce_verdict`, with the action of this command; empty on other ranks
        than zero.

    Raises:
        ContractError: under `quality=enforce`, the verdict of the run's data is not passing.
    """
    if process.rank():
        return {}
    quality = run.fields.get("quality") or {}
    if run.config.quality.action == "enforce" and quality.get("status") not in (None, *_PASSING):
        raise ContractError(
            f"the data contract of {run.folder}: {quality['status']}; see {run.folder / 'quality' / 'report.html'}; "
            "quality=warn prints the result nevertheless"
        )
    if not _repeat_history(run):
        best = run.fields.get("best") or {"epoch": 0, "step": 0}
        metric_lines.write(run.fields["metrics"], best["epoch"], best["step"])
    _complete_folder(run)
    logger.info("this run is already finished; its result is printed again")
    explain = run.fields.get("explain") or {}
    return {**run.fields, "explain": {**explain, "action": str(run.config.explain.action)}}


def _complete_folder(run: Run) -> None:
    """Do what a process that was killed after the training had ended did not: the report page, and removing its lock."""
    page = run.folder / folders.REPORT
    if page.exists() and not (run.folder / folders.OWNER).exists():
        return
    try:
        with folders.lock_folder(run.folder):  # whose end removes the lock
            if not page.exists():
                run.write_page()
    except (InputError, OSError) as error:  # another process is at it, or the folder is read-only
        logger.warning("%s was not completed: %s", run.folder, error)


def _repeat_history(run: Run) -> bool:
    """Report all metric lines of the run again, if this is a trial of a search or a TrainJob with a status server.

    A pod that is lost after its training has ended leaves the search without metrics; those of the new pod are the same.

    Returns:
        Whether there are any.
    """
    path = run.folder / folders.METRICS
    if not {TRIAL_VARIABLE, trainjob_status.URL} & os.environ.keys() or not path.is_file():
        return False
    try:
        lines = metric_lines.read(path)
    except (OSError, ValueError) as error:
        logger.warning("%s; only the final metrics are printed again", error)
        return False
    monitor = run.config.monitor
    maximize = run.config.task.metrics[monitor].mode == "max"
    with push_metric_lines(run.config.push_metrics), trainjob_status.post_status(monitor, maximize):
        copy = folders.metrics_copy(run.folder, run.config.metrics_file)
        metric_lines.repeat(lines, copy, show=RESTARTED not in os.environ)
        trainjob_status.report_completion()
    return bool(lines)


def _needs_judgement(run: Run, gate: str) -> bool:
    """Whether a gate is enforced and has no verdict under the current settings. False on other ranks than zero."""
    if process.rank() or run.config[gate].action != "enforce":
        return False
    if gate == "explain" and "diverged" in run.fields:
        return False  # there is no model, and a search continues
    recorded = (run.fields.get("config") or {}).get(gate) or {}
    recorded = {
        RENAMED_KEYS.get(f"{gate}.{key}", key).removeprefix(f"{gate}."): value for key, value in recorded.items()
    }
    current = _settings(run, gate)
    same = all(recorded[key] == current[key] for key in recorded.keys() & current.keys() if key not in _NEUTRAL_KEYS)
    return not (same and (run.fields.get(gate) or {}).get("status"))


def _settings(run: Run, gate: str) -> dict[str, Any]:
    settings: dict[str, Any] = mask_secrets(folders.to_plain(OmegaConf.to_container(run.config[gate], resolve=True)))
    return settings


def _write_result(run: Run, gate: str, result: dict[str, Any]) -> None:
    """Write a gate's result, with the settings it was computed under."""
    with folders.lock_folder(run.folder):
        run.update(**{gate: result, "config": {**run.fields["config"], gate: _settings(run, gate)}})
    run.write_page()
