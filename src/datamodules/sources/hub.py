"""Downloaded files of the Hugging Face Hub."""

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from config.errors import InputError
from datamodules.sources.hub_errors import DATA_ALTERNATIVES, hub_access

logger = logging.getLogger(__name__)

_checked: set[str] = set()  # files whose content this process compared with their digest


def download(
    repo: str,
    revision: str,
    files: str | Sequence[str],
    repo_type: Literal["dataset", "model"] = "dataset",
    alternatives: str = DATA_ALTERNATIVES,
) -> list[str]:
    """Return local paths of a Hub repository's files, downloaded unless the Hub's cache has them.

    Files of the cache are compared with their digest once in a process; a damaged one is downloaded again.

    Honours HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE. The fingerprint of such data is `repo@revision`.

    Args:
        repo: "owner/name".
        revision: a commit hash, a tag or a branch; cached files of it are not requested again.
        files: one path in the repository, or several.
        repo_type: "dataset" or "model".
        alternatives: proposed by the message when there is no network.

    Raises:
        InputError: no network, no such repository, revision or file, or no access; within seconds, in one line.
    """
    names = [files] if isinstance(files, str) else list(files)
    cached = {name: cached_path(repo, revision, name, repo_type) for name in names}
    damaged = {name for name, path in cached.items() if path and _is_damaged(path)}
    if all(cached.values()) and not damaged:
        return [str(path) for path in cached.values()]

    from huggingface_hub import constants, hf_hub_download

    subject = f"{'the data set' if repo_type == 'dataset' else 'the model'} {repo}"
    for name in sorted(damaged):
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                f"{cached[name]}, a downloaded file of {subject}, is damaged: its content does not have the digest by "
                "which the Hub named it; repeat the command without HF_HUB_OFFLINE, or delete it and copy it again"
            )
        logger.warning("%s, a downloaded file of %s, is damaged, and is downloaded again", cached[name], subject)
    if not constants.HF_HUB_OFFLINE:  # the client's own bars are not shown
        missing = [name for name in names if cached[name] is None or name in damaged]
        logger.info("downloading %s of %s from the Hub", ", ".join(missing), subject)
    with hub_access(subject, alternatives):
        return [
            hf_hub_download(repo, name, revision=revision, repo_type=repo_type, force_download=name in damaged)
            for name in names
        ]


def _is_damaged(path: str) -> bool:
    """Return whether a file of the Hub's cache has other content than was downloaded.

    The client names a downloaded file by the server's ETag, see
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache: the SHA-256 of a file in large-file storage, else Git's
    SHA-1 of a blob. Other names, as of mirrors, tell nothing about the content; only the former is surely a digest.
    """
    blob = os.path.realpath(path)
    if blob in _checked or Path(blob).parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", Path(blob).name):
        return False
    with Path(blob).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != Path(blob).name:
            return True
    _checked.add(blob)
    return False


def cached_path(repo: str, revision: str, name: str, repo_type: str) -> str | None:
    """Return the path of a file in the Hub's cache; None: not cached."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision, repo_type=repo_type)
    return path if isinstance(path, str) else None
