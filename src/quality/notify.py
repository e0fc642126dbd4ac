"""Telling people that a gate failed: Slack-compatible JSON, and a step summary. Never in the way of the run."""

import json
import logging
import threading
import urllib.error
import urllib.request
from pathlib import Path

logger = logging.getLogger(__name__)

SECONDS = 5.0  # to wait for the address


def send_notification(said: str, folder: Path, address: str | None, summary: str | None) -> None:
    """Sends what a gate said to an address, and adds its report to a summary file; what goes wrong is only said.

    Args:
        said: one line.
        folder: of the report.
        address: takes `{"text": ...}`, as Slack's incoming webhooks do.
        summary: a file that Markdown is appended to, as $GITHUB_STEP_SUMMARY names one.
    """
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write((folder / "report.md").read_text(encoding="utf-8") + "\n")
        except OSError as error:
            logger.warning("the summary %s was not written: %s", summary, error.strerror or error)
    if address and not address.startswith(("http://", "https://")):
        logger.warning("quality.webhook: not sent: it is no address that begins with http:// or https://")
    elif address:
        # In a thread: a name that does not resolve can hang longer than any timeout of a socket.
        sending = threading.Thread(target=_send, args=(address, f"isotrain: {said}\nReport: {folder}"), daemon=True)
        sending.start()
        sending.join(2 * SECONDS)
        if sending.is_alive():
            logger.warning("quality.webhook: no answer within %g s", 2 * SECONDS)


def _send(address: str, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    try:
        # The address itself is a secret: it is in no message.
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        logger.warning("quality.webhook: the address answered %d", error.code)
    except Exception as error:  # of whatever kind: an address that is none must not end a run, nor be shown
        logger.warning("quality.webhook: not sent: %s", type(error).__name__)
