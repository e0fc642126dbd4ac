"""Notifications of failures: Slack-compatible JSON over HTTP, and a summary file. They never end a run."""

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

logger = logging.getLogger(__name__)

SECONDS = 5.0  # timeout of the request
WEBHOOK_VARIABLE = "ISOTRAIN_WEBHOOK"  # address where quality.webhook is null, from a secret of the cluster


def send_notification(message: str, folder: Path, address: str | None, summary: str | None) -> None:
    """Post a message to an address and append a report to a summary file. Errors are logged as warnings.

    An address that does not answer delays the run by `2 * SECONDS` at most.

    Args:
        message: one line.
        folder: folder of the report.
        address: accepts `{"text": ...}`, as incoming webhooks of Slack do; None for that of ISOTRAIN_WEBHOOK, if it is
            set.
        summary: file that Markdown is appended to, such as that of $GITHUB_STEP_SUMMARY; None for none.
    """
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write((folder / "report.md").read_text(encoding="utf-8") + "\n")
        except OSError as error:
            logger.warning("quality.summary: %s was not written: %s", summary, error.strerror or error)
    address = address or os.environ.get(WEBHOOK_VARIABLE)
    if address and not address.startswith(("http://", "https://")):
        logger.warning("quality.webhook: not sent: the address must begin with http:// or https://")
    elif address:
        # In a thread: resolving a name can take longer than the timeout of the socket.
        thread = threading.Thread(target=_post, args=(address, f"isotrain: {message}\nReport: {folder}"), daemon=True)
        thread.start()
        thread.join(2 * SECONDS)
        if thread.is_alive():
            logger.warning("quality.webhook: no answer within %g s", 2 * SECONDS)


def _post(address: str, text: str) -> None:
    """Post a text. The address is a secret: no message contains it."""
    try:
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            response.read(1024)
    except urllib.error.HTTPError as error:
        logger.warning("quality.webhook: the address answered %d", error.code)
    except Exception as error:  # invalid addresses raise many types
        logger.warning("quality.webhook: not sent: %s", type(error).__name__)
