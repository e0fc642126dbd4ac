"""Files of the Hugging Face Hub on this machine."""

from collections.abc import Sequence
from typing import Literal

from datamodules.sources.hub_errors import INSTEAD_OF_DATA, hub_access


def download(
    repo: str,
    revision: str,
    files: str | Sequence[str],
    repo_type: Literal["dataset", "model"] = "dataset",
    instead: str = INSTEAD_OF_DATA,
) -> list[str]:
    """Local paths of a Hub repository's files, downloaded unless the Hub's cache has them.

    Honours HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE. The fingerprint of such data is `repo@revision`.

    Args:
        repo: "owner/name".
        revision: a commit hash, a tag or a branch; what the cache has of it is not asked for again.
        files: one path in the repository, or several.
        repo_type: "dataset" or "model".
        instead: what the message proposes when there is no network.

    Raises:
        InputError: no network, no such repository, revision or file, no access. Within seconds, in one line.
    """
    names = [files] if isinstance(files, str) else list(files)
    here = [cached_path(repo, revision, name, repo_type) for name in names]
    if all(here):
        return [str(path) for path in here]

    from huggingface_hub import hf_hub_download

    with hub_access(f"{'the data set' if repo_type == 'dataset' else 'the model'} {repo}", instead):
        return [hf_hub_download(repo, name, revision=revision, repo_type=repo_type) for name in names]


def cached_path(repo: str, revision: str, name: str, repo_type: str) -> str | None:
    """The path of a file in the Hub's cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision, repo_type=repo_type)
    return found if isinstance(found, str) else None
