"""The gate: a report first, then judgement."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import ContractBroken, Refused

logger = logging.getLogger(__name__)

FOLDER = "quality"


def gate(config: DictConfig, data: Any, folder: Path) -> dict[str, Any]:
    """Verifies a run's data before a model sees it.

    Args:
        config: the whole configuration.
        data: the data module, nothing of it prepared yet.
        folder: of the run; the report goes into its `quality/`, whatever it says.

    Returns:
        For run.json: the verdict's status and where it is from.

    Raises:
        ContractBroken: under `quality=enforce`, unless the verdict is good.
        Refused: a contract that cannot be one, or Soda is not installed.
    """
    action = str(config.quality.action)
    if action == "off":
        return {"action": action}
    from quality import contract, notify, verdict

    chosen = contract.read(str(config.quality.contract), data.root)
    found, written = verdict.of(data, str(config.task.name), chosen)
    target = folder / FOLDER
    if process.rank() == 0:
        publish(written, target)
    said = verdict.text(found)
    fields = {"action": action, "status": found.status, "contract": found.contract, "digest": found.digest}
    if found.good:
        if found.status == "warned":
            logger.warning("%s; see %s", said, target / "report.html")
        return fields
    if process.rank() == 0:
        notify.tell(said, target, config.quality.webhook, config.quality.summary)
    if action == "enforce":
        raise ContractBroken(f"{said}; see {target / 'report.html'}; quality=warn trains all the same")
    logger.warning("%s; see %s", said, target / "report.html")
    return fields


def publish(written: Path, target: Path) -> None:
    """Copies a report from the cache to where people look for it, over an older one; whatever else is there stays.

    Raises:
        Refused: it cannot be written there.
    """
    try:
        for file in written.iterdir():
            if file.name != "key.json" and file.is_file():
                files.copy(file, target / file.name)
    except OSError as error:
        raise Refused(f"the report cannot be written to {target}: {error.strerror or error}") from error
