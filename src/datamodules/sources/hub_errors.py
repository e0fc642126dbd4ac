"""Errors of the Hugging Face Hub in one line, within seconds.

Without a network, the Hub's client tries each file for 23 seconds, and for minutes or without end when a server accepts
the connection and does not answer. Therefore the Hub is probed once, before anything else. If it does not answer, its
client is set to offline mode: cached files are used, and any other request fails at once.
"""

import contextlib
import errno
import functools
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from config.errors import InputError, ResourceError, exception_chain

DATA_ALTERNATIVES = (
    "data.path=<folder of your files>, or generated data (data=squad_sample, data=topics_sample, data=shapes)"
)
MODEL_ALTERNATIVES = "model.pretrained=<checkpoint folder>, or model.pretrained=null for random weights"
ALTERNATIVES = f"{DATA_ALTERNATIVES}; {MODEL_ALTERNATIVES}"
# Seconds until a Hub that does not answer counts as unreachable.
PATIENCE = 4.0


@contextlib.contextmanager
def hub_access(subject: str, alternatives: str = ALTERNATIVES) -> Iterator[None]:
    """Context of every use of the Hub: huggingface_hub, transformers' from_pretrained, timm's create_model.

    Args:
        subject: of the download, for the message: "the data set rajpurkar/squad".
        alternatives: proposed by the message when the Hub cannot be reached.

    Raises:
        InputError: no network, or no such repository, revision or file; one line, within seconds.
        ResourceError: no space for the download.
    """
    work_offline_if_unreachable()
    try:
        yield
    except Exception as error:
        if any(getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for cause in exception_chain(error)):
            raise ResourceError(
                f"no space left on the disk while downloading {subject} to {_cache_folder()}; free some, or set "
                "HF_HOME=<folder> to move the Hub's cache"
            ) from error
        message = explain_hub_error(error, subject, alternatives)
        if message is None:
            raise
        raise InputError(message) from error


def explain_hub_error(error: BaseException, subject: str, alternatives: str = ALTERNATIVES) -> str | None:
    """Explain in one line why the Hub did not deliver something; None: the error has another cause.

    Error classes are recognised by name along the chain of causes: transformers and timm wrap them, and the client's
    HTTP library depends on its version.

    Args:
        error: the exception.
        subject: of the download, for the message.
        alternatives: proposed by the message when the Hub cannot be reached.
    """
    causes = exception_chain(error)
    by_class = {cls.__name__: cause for cause in reversed(causes) for cls in type(cause).__mro__}
    if "GatedRepoError" in by_class:
        return f"{subject} is gated: request access on its page of the Hub, then log in with `hf auth login`"
    if "RepositoryNotFoundError" in by_class:
        return f"{subject}: the Hub has no repository of that name, or it is private (log in with `hf auth login`)"
    if "RevisionNotFoundError" in by_class:
        return f"{subject}: the Hub does not have this revision"
    if "RemoteEntryNotFoundError" in by_class:
        return f"{subject}: the Hub lacks a file ({_line(by_class['RemoteEntryNotFoundError'])})"
    if "HFValidationError" in by_class:
        return f"{subject}: neither an existing folder nor a name on the Hub (owner/name)"
    if by_class.keys() & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "TransportError"}:
        reason = offline_reason() or f"no connection ({_line(causes[-1])})"
        return unreachable_message(subject, alternatives, reason)
    if "HfHubHTTPError" in by_class:
        return f"cannot get {subject}: the Hub answered: {_line(by_class['HfHubHTTPError'])}"
    # transformers, about a folder or repository without weights or without a config.json
    if isinstance(error, OSError | ValueError) and re.search("does not appear to have|^Unrecognized model", str(error)):
        return f"{subject}: {_line(error)}"
    return None


def unreachable_message(subject: str, alternatives: str, reason: str) -> str:
    """Format the message for something that is neither in the cache nor can be downloaded."""
    return (
        f"cannot get {subject}: {reason}, and the Hub's cache ({_cache_folder()}) does not have it. "
        f"Without a network: {alternatives}; or HF_HOME=<a filled cache>"
    )


def start_probe() -> None:
    """Start to probe the Hub in the background."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        _probe(constants.ENDPOINT)


def work_offline_if_unreachable() -> bool:
    """Probe the Hub once per process; if it does not answer, set its client to offline mode.

    Returns:
        Whether the client is offline (also when HF_HUB_OFFLINE=1 is set).
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and _probe_error(constants.ENDPOINT) is not None:
        constants.HF_HUB_OFFLINE = True
    return bool(constants.HF_HUB_OFFLINE)


def offline_reason() -> str | None:
    """Return why the client is in offline mode, in a few words; None: it is not."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return None
    reason = _probe_error(constants.ENDPOINT) if _probe.cache_info().currsize else None
    return f"{constants.ENDPOINT} cannot be reached ({reason})" if reason else "HF_HUB_OFFLINE is set"


def _probe_error(endpoint: str) -> str | None:
    """Why the endpoint does not answer within PATIENCE seconds; None: it answers, with any status."""
    probe = _probe(endpoint)
    probe.thread.join(max(probe.start + PATIENCE + 0.5 - time.monotonic(), 0))
    return probe.outcome[0] if probe.outcome else f"no answer in {PATIENCE:g} seconds"


class _Probe(NamedTuple):
    thread: threading.Thread
    start: float  # time.monotonic(), s
    outcome: list[str | None]  # empty until known: the error, None for an answer


@functools.cache
def _probe(endpoint: str) -> _Probe:
    """Send a request in a thread, because name resolution has no timeout of its own."""
    outcome: list[str | None] = []

    def request() -> None:
        from huggingface_hub import get_session

        try:
            # The client's session knows proxies and certificates.
            status = get_session().head(endpoint, timeout=PATIENCE, follow_redirects=False).status_code
            outcome.append("the proxy requires a password" if status == 407 else None)
        except Exception as error:  # any failure means that the Hub cannot be reached
            outcome.append(_line(exception_chain(error)[-1]) or type(error).__name__)

    # Otherwise one line per request, wherever logging shows INFO.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    thread = threading.Thread(target=request, name="hub-probe", daemon=True)
    thread.start()
    return _Probe(thread, time.monotonic(), outcome)


def _line(error: BaseException) -> str:
    """The error's text in one line."""
    return " ".join(str(error).split()).rstrip(".")


def _cache_folder() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)
