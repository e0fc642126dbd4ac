"""The gate before training: the data contract is verified, the report is written, then the run continues or ends."""

import logging
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import ContractError, InputError

logger = logging.getLogger(__name__)

FOLDER = "quality"


def check_contract(config: DictConfig, data: Any, folder: Path) -> dict[str, Any]:
    """Verify the data of a run before training.

    Args:
        config: the whole configuration.
        data: the data module, not prepared yet.
        folder: the run folder; the report is written to its `quality/`, whatever the verdict.

    Returns:
        The entry `quality` of run.json: action, status, and name and digest of the contract.

    Raises:
        ContractError: under `quality=enforce`, if the verdict is not accepted.
        InputError: the contract is invalid, or Soda is not installed.
    """
    settings = config.quality
    action = str(settings.action)
    if action == "off":
        return {"action": action}
    from quality.notify import send_notification
    from quality.verdict import summarise_verdict
    from quality.verification import verify_data

    verdict, report = verify_data(data, str(config.task.name), str(settings.contract), action)
    target = folder / FOLDER
    page = target / "report.html"
    if process.rank() == 0:
        copy_report(report, target)
    message = summarise_verdict(verdict)
    if not verdict.accepted:
        if process.rank() == 0:
            send_notification(message, target, settings.webhook, settings.summary)
        if action == "enforce":
            raise ContractError(f"{message}; see {page}; to train nevertheless, set quality=warn")
    if verdict.status != "passed":
        logger.warning("%s; see %s", message, page)
    return {
        "action": action,
        "status": verdict.status,
        "contract": verdict.contract,
        "digest": verdict.digest,
    }


def report_folder(folder: str | None, name: str) -> Path:
    """Return the folder that the command line names, or create outputs/<day>/<time>/<name>."""
    if folder:
        return Path(folder)
    while True:
        path = Path(f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S}/{name}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another command was started in the same second
            time.sleep(0.1)
        else:
            return path


def copy_report(report: Path, target: Path) -> None:
    """Copy a report from the cache to its folder. Files of an older report are replaced, other files stay.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        for file in report.iterdir():
            if file.name != "key.json" and file.is_file():
                files.copy_file(file, target / file.name)
    except OSError as error:
        raise InputError(f"the report cannot be written to {target}: {error.strerror or error}") from error
