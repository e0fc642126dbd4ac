"""Downloaded files of the Hugging Face Hub."""

from collections.abc import Sequence
from typing import Literal

from datamodules.sources.hub_errors import DATA_ALTERNATIVES, hub_access


def download(
    repo: str,
    revision: str,
    files: str | Sequence[str],
    repo_type: Literal["dataset", "model"] = "dataset",
    alternatives: str = DATA_ALTERNATIVES,
) -> list[str]:
    """Return local paths of a Hub repository's files, downloaded unless the Hub's cache has them.

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
    paths = [cached_path(repo, revision, name, repo_type) for name in names]
    if all(paths):
        return [str(path) for path in paths]

    from huggingface_hub import hf_hub_download

    with hub_access(f"{'the data set' if repo_type == 'dataset' else 'the model'} {repo}", alternatives):
        return [hf_hub_download(repo, name, revision=revision, repo_type=repo_type) for name in names]


def cached_path(repo: str, revision: str, name: str, repo_type: str) -> str | None:
    """Return the path of a file in the Hub's cache; None: not cached."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision, repo_type=repo_type)
    return path if isinstance(path, str) else None
