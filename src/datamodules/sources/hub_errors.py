"""The Hugging Face Hub, asked with little patience: a missing network is told in one line, within seconds.

Left alone, the Hub's client tries each file for 23 seconds when there is no network, and for minutes or for
ever when a server takes the call and says nothing. So the Hub is asked once, before anything else. If it is
silent, its client is put into offline mode: what is in its cache is used, and anything else fails at once.
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

from config.errors import InputError, ResourceError

INSTEAD_OF_DATA = (
    "data.path=<folder of your files>, or generated data (data=squad_sample, data=topics_sample, data=shapes)"
)
INSTEAD_OF_MODEL = "model.pretrained=<checkpoint folder>, or model.pretrained=null for random weights"
INSTEAD = f"{INSTEAD_OF_DATA}; {INSTEAD_OF_MODEL}"
# Seconds until a Hub that does not answer counts as out of reach.
PATIENCE = 4.0


@contextlib.contextmanager
def hub_access(what: str, instead: str = INSTEAD) -> Iterator[None]:
    """Around every use of the Hub: huggingface_hub, transformers' from_pretrained, timm's create_model.

    Args:
        what: what is fetched, for the message: "the data set rajpurkar/squad".
        instead: what to type instead when the Hub is out of reach, for the message.

    Raises:
        InputError: no network, or no such repository, revision or file; one line, within seconds.
        ResourceError: no space for the download.
    """
    work_offline_if_unreachable()
    try:
        yield
    except Exception as error:
        if any(getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for e in _chain(error)):
            raise ResourceError(
                f"no space left on the disk while downloading {what} to {_cache()}; "
                "HF_HOME=<folder> puts the Hub's cache elsewhere"
            ) from error
        message = explain_hub_error(error, what, instead)
        if message is None:
            raise
        raise InputError(message) from error


def explain_hub_error(error: BaseException, what: str, instead: str = INSTEAD) -> str | None:
    """One line for people about why the Hub did not give something; None when the error has another cause.

    Error classes are told by name along the chain of causes: transformers and timm wrap them, and the HTTP
    library beneath is another one in each version of the client.
    """
    chain = _chain(error)
    named = {c.__name__: e for e in reversed(chain) for c in type(e).__mro__}
    if "GatedRepoError" in named:
        return f"{what} is gated: ask for access on its page of the Hub, then log in with `hf auth login`"
    if "RepositoryNotFoundError" in named:
        return f"{what}: the Hub has nothing of that name, or it is private (log in with `hf auth login`)"
    if "RevisionNotFoundError" in named:
        return f"{what}: the Hub does not have this revision"
    if "RemoteEntryNotFoundError" in named:
        return f"{what}: the Hub lacks a file ({_line(named['RemoteEntryNotFoundError'])})"
    if "HFValidationError" in named:
        return f"{what}: this is neither a folder that exists nor a name on the Hub (owner/name)"
    if named.keys() & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "TransportError"}:
        return out_of_reach(what, instead, why_offline() or f"no connection ({_line(chain[-1])})")
    if "HfHubHTTPError" in named:
        return f"cannot get {what}: the Hub answered: {_line(named['HfHubHTTPError'])}"
    # transformers, about a folder or repository without weights or without a config.json
    if isinstance(error, OSError | ValueError) and re.search("does not appear to have|^Unrecognized model", str(error)):
        return f"{what}: {_line(error)}"
    return None


def out_of_reach(what: str, instead: str, why: str) -> str:
    """The message for something that is neither on this machine nor to be had."""
    return (
        f"cannot get {what}: {why}, and the Hub's cache ({_cache()}) does not have it. "
        f"Without a network: {instead}; or HF_HOME=<a filled cache>"
    )


def begin_asking() -> None:
    """Asks the Hub whether it answers, in the background."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        _ask(constants.ENDPOINT)


def work_offline_if_unreachable() -> bool:
    """Asks the Hub once per process whether it answers; if not, puts its client into offline mode.

    Returns:
        Whether the client is offline now (also because HF_HUB_OFFLINE=1 says so).
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and _silence(constants.ENDPOINT) is not None:
        constants.HF_HUB_OFFLINE = True
    return bool(constants.HF_HUB_OFFLINE)


def why_offline() -> str | None:
    """Why the client is in offline mode, in a few words; None when it is not."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return None
    why = _silence(constants.ENDPOINT) if _ask.cache_info().currsize else None
    return f"{constants.ENDPOINT} cannot be reached ({why})" if why else "HF_HUB_OFFLINE forbids to ask the Hub"


def _silence(endpoint: str) -> str | None:
    """Why the endpoint does not answer within PATIENCE seconds; None when it does, with whatever status."""
    answer = _ask(endpoint)
    answer.thread.join(max(answer.began + PATIENCE + 0.5 - time.monotonic(), 0))
    return answer.outcome[0] if answer.outcome else f"no answer in {PATIENCE:g} seconds"


class _Answer(NamedTuple):
    thread: threading.Thread
    began: float  # time.monotonic(), s
    outcome: list[str | None]  # empty until known: why there is no answer, None when there is one


@functools.cache
def _ask(endpoint: str) -> _Answer:
    """Asks in a thread, because looking up a name has no time limit of its own."""
    outcome: list[str | None] = []

    def ask() -> None:
        from huggingface_hub import get_session

        try:
            # The client's session knows about proxies and certificates.
            status = get_session().head(endpoint, timeout=PATIENCE, follow_redirects=False).status_code
            outcome.append("the proxy asks for a password" if status == 407 else None)
        except Exception as error:  # whatever goes wrong on the way to the Hub is the same to the user
            outcome.append(_line(_chain(error)[-1]) or type(error).__name__)

    # One line per request otherwise, wherever logging shows INFO.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    thread = threading.Thread(target=ask, name="is-the-hub-there", daemon=True)
    thread.start()
    return _Answer(thread, time.monotonic(), outcome)


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, what caused that, and so on."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def _line(error: BaseException) -> str:
    """The error's text in one line."""
    return " ".join(str(error).split()).rstrip(".")


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)
