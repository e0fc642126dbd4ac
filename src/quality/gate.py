"""The gate: a report first, then judgement."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import ContractError, InputError
from quality.settings import read_settings

logger = logging.getLogger(__name__)

FOLDER = "quality"


def check_contract(config: DictConfig, data: Any, folder: Path) -> dict[str, Any]:
    """Verifies a run's data before a model sees it.

    Args:
        config: the whole configuration.
        data: the data module, nothing of it prepared yet.
        folder: of the run; the report goes into its `quality/`, whatever it says.

    Returns:
        For run.json: the verdict's status and where it is from.

    Raises:
        ContractError: under `quality=enforce`, unless the verdict is good.
        InputError: a contract that cannot be one, or Soda is not installed.
    """
    settings = read_settings(config)
    if settings.action == "off":
        return {"action": settings.action}
    from quality import notify, verdict
    from quality.verification import verify_data

    result, report = verify_data(data, settings)
    target = folder / FOLDER
    if process.rank() == 0:
        copy_report(report, target)
    message = verdict.summarise_verdict(result)
    fields = {"action": settings.action, "status": result.status, "contract": result.contract, "digest": result.digest}
    if result.good:
        if result.status == "warned":
            logger.warning("%s; see %s", message, target / "report.html")
        return fields
    if process.rank() == 0:
        notify.send_notification(message, target, settings.webhook, settings.summary)
    if settings.action == "enforce":
        raise ContractError(f"{message}; see {target / 'report.html'}; quality=warn trains all the same")
    logger.warning("%s; see %s", message, target / "report.html")
    return fields


def copy_report(written: Path, target: Path) -> None:
    """Copies a report from the cache to where people look for it, over an older one; whatever else is there stays.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        for file in written.iterdir():
            if file.name != "key.json" and file.is_file():
                files.copy_file(file, target / file.name)
    except OSError as error:
        raise InputError(f"the report cannot be written to {target}: {error.strerror or error}") from error
