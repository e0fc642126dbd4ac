"""The gate: a report first, then judgement."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import process
from config.errors import ExplanationFailed

logger = logging.getLogger(__name__)

FOLDER = "explain"


def gate(config: DictConfig, folder: Path) -> dict[str, Any]:
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

    asked: Any = OmegaConf.to_container(config.explain, resolve=True)
    verdict = run.run(model.of_run(folder, config), asked, folder / FOLDER)
    means = {each.name: each.mean.value for each in verdict.measures if each.mean.examples}
    return {"action": action, "status": verdict.status, "said": run.text(verdict), "measures": means}


def judge(fields: Mapping[str, Any], folder: Path) -> None:
    """Ends a run whose explanations are not good enough, or says so.

    Args:
        fields: run.json's, with what `gate` found as `explain`.
        folder: of the run.

    Raises:
        ExplanationFailed: under `explain=enforce`, unless the verdict is good.
    """
    found = fields.get("explain") or {}
    status = found.get("status")
    if status in (None, "passed"):
        return
    said = f"{found['said']}; see {folder / FOLDER / 'report.html'}"
    if status != "warned" and found["action"] == "enforce":
        raise ExplanationFailed(f"{said}; explain=warn keeps the model all the same")
    logger.warning("%s", said)
