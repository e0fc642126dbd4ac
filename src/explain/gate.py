"""The gate after training: the model is explained and the report written, then the run ends or fails."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import process
from config.errors import ExplanationError, InputError

logger = logging.getLogger(__name__)

FOLDER = "explain"
# What the module of a task's explanations must have (docs/explain.md).
_MEMBERS = (
    *("FORMAT", "EXAMPLES", "CHUNK", "MEASURES", "STABILITY", "settings", "examples", "preprocessing"),
    *("random_network", "explain", "table", "lines", "slices", "report_sections"),
)


def check_options(config: DictConfig) -> None:
    """Check what the explanation of a run needs, before training.

    Raises:
        InputError: the task has no explainer, an incomplete one or no section in conf/explain, a measure is unknown, or the
            file of thresholds is invalid.
    """
    if config.explain.action != "off":
        from config import tasks
        from explain.options import read_options

        task = str(config.task.name)
        explainer = tasks.load_member(task, "explainer", "explain")()
        if missing := [name for name in _MEMBERS if not hasattr(explainer, name)]:
            name = getattr(explainer, "__name__", explainer)
            raise InputError(f"the explainer {name} of the task {task} lacks {', '.join(missing)}: see docs/explain.md")
        measures = read_options(config.explain, task).measures
        if unknown := sorted(measures.keys() - set(explainer.MEASURES)):
            raise InputError(
                f"explain.{task}.measures.{unknown[0]}: no such measure; valid: {', '.join(explainer.MEASURES)}"
            )


def explain_run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Explain the exported model of a run, and write the report to its `explain/`.

    Args:
        config: the whole configuration.
        folder: the run folder, with its model/.

    Returns:
        The entry `explain` of run.json: action, status, message, means of the measures, and where the explanations stopped.
    """
    action = str(config.explain.action)
    if action == "off" or process.rank():
        return {"action": action}
    from explain import model, run

    verdict = run.explain_model(*model.load_run(folder, config), folder / FOLDER)
    means = {measure.name: measure.mean.value for measure in verdict.measures if measure.mean.examples}
    summary = run.summarise_verdict(verdict)
    return {"action": action, "status": verdict.status, "said": summary, "measures": means, "stop": verdict.stop}


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
