"""The gate after training: the model is explained and the report written, then the run ends or fails."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import process
from config.errors import ExplanationError

logger = logging.getLogger(__name__)

FOLDER = "explain"


def check_options(config: DictConfig) -> None:
    """Check what the explanation of a run needs, before training.

    Raises:
        InputError: the task has no explainer or no section in conf/explain, or the file of thresholds is invalid.
    """
    if config.explain.action != "off":
        from config import tasks
        from explain.options import read_options

        tasks.load_member(str(config.task.name), "explainer", "explain")
        read_options(config.explain, str(config.task.name))


def explain_run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Explain the exported model of a run, and write the report to its `explain/`.

    Args:
        config: the whole configuration.
        folder: the run folder, with its model/.

    Returns:
        The entry `explain` of run.json: action, status, message and means of the measures.
    """
    action = str(config.explain.action)
    if action == "off" or process.rank():
        return {"action": action}
    from explain import model, run

    verdict = run.explain_model(*model.load_run(folder, config), folder / FOLDER)
    means = {measure.name: measure.mean.value for measure in verdict.measures if measure.mean.examples}
    return {"action": action, "status": verdict.status, "said": run.summarise_verdict(verdict), "measures": means}


def enforce_verdict(fields: Mapping[str, Any], folder: Path) -> None:
    """End a run with a verdict that is not accepted, or log a warning.

    Args:
        fields: of run.json, with the result of `explain_run` as `explain`.
        folder: the run folder.

    Raises:
        ExplanationError: under `explain=enforce`, if the verdict is failed or inconclusive.
    """
    result = fields.get("explain") or {}
    status = result.get("status")
    if status in (None, "passed"):
        return
    message = f"{result['said']}; see {folder / FOLDER / 'report.html'}"
    if status != "warned" and result["action"] == "enforce":
        raise ExplanationError(f"{message}; to accept the model nevertheless, set explain=warn")
    logger.warning("%s", message)
