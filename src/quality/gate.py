"""The gate before training: the data contract is verified, the report is written, then the run continues or ends."""

import logging
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from config import files, process
from config.errors import ContractError, InputError
from datamodules.storage import cache, manifest

logger = logging.getLogger(__name__)

FOLDER = "quality"
REPORT_FILES = ("verdict.json", "rows.jsonl", "report.md", "report.html", "profile.json", "sample.parquet")


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

    verdict, report = verify_data(
        data, str(config.task.name), str(settings.contract), action, float(settings.time_limit)
    )
    target = folder / FOLDER
    check_report_folder(target)
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


def check_report_folder(folder: Path) -> None:
    """Check that writing the report of a contract into a folder replaces no file of another program.

    Raises:
        InputError: the folder has such files, and no verdict of isotrain.
    """
    files.check_output_folder(folder, REPORT_FILES, _is_report, "a contract's report")


def _is_report(folder: Path) -> bool:
    return {"contract", "digest", "checks"} <= files.read_json(folder / "verdict.json").keys()


def report_folder(folder: str | None, name: str) -> Path:
    """Return the folder that the command line names, or create outputs/<day>/<time>/<name>.

    Raises:
        InputError: the name is empty.
    """
    if folder is not None and not folder.strip():
        raise InputError("--folder is empty, perhaps from a variable that is not set: name a folder")
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
        # The verdict first, by which `check_report_folder` knows the folder of a process that was killed.
        for file in sorted(report.iterdir(), key=lambda file: file.name != REPORT_FILES[0]):
            if file.name not in (cache.KEY, manifest.FILE) and file.is_file():
                files.copy_file(file, target / file.name)
    except OSError as error:
        raise InputError(f"the report cannot be written to {target}: {error.strerror or error}") from error
