"""The gate: a report first, then judgement."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import process
from config.errors import ExplanationError

logger = logging.getLogger(__name__)

FOLDER = "explain"


def explain_run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Explains a run's exported model, and writes the report into the run's `explain/`.

    Args:
        config: the whole configuration.
        folder: of the run, its model/ exported.

    Returns:
        For run.json, and for `judge`: what the gate decides by.
    """
    action = str(config.explain.action)
    if action == "off" or process.rank():
        return {"action": action}
    from explain import model, run

    verdict = run.explain_model(*model.load_run(folder, config), folder / FOLDER)
    means = {measure.name: measure.mean.value for measure in verdict.measures if measure.mean.examples}
    return {"action": action, "status": verdict.status, "said": run.summarise_verdict(verdict), "measures": means}


def enforce_verdict(fields: Mapping[str, Any], folder: Path) -> None:
    """Ends a run whose explanations are not good enough, or warns of them.

    Args:
        fields: run.json's, with the result of `gate` as `explain`.
        folder: of the run.

    Raises:
        ExplanationError: under `explain=enforce`, unless the verdict is good.
    """
    result = fields.get("explain") or {}
    status = result.get("status")
    if status in (None, "passed"):
        return
    message = f"{result['said']}; see {folder / FOLDER / 'report.html'}"
    if status != "warned" and result["action"] == "enforce":
        raise ExplanationError(f"{message}; explain=warn keeps the model all the same")
    logger.warning("%s", message)
