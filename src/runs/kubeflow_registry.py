"""A registered version in a Kubeflow Model Registry, too: its name, where its files are, and its lineage."""

import getpass
import logging
import warnings
from collections.abc import Mapping

from config.errors import InputError, UnreachableError

FORMAT = "safetensors"


def register_version(address: str, name: str, version: str, uri: str, tags: Mapping[str, str], card: str) -> bool:
    """Tells a Kubeflow Model Registry of a version; one that it knows stays as it is.

    Args:
        address: http://host:8080, or https:// with a token where Kubeflow mounts it (KF_PIPELINES_SA_TOKEN_PATH).
        name: of the registered model.
        version: of it.
        uri: of its files.
        tags: become custom properties.
        card: becomes the version's description.

    Returns:
        Whether the version is new there.

    Raises:
        InputError: the package is not installed, or the registry refused.
        UnreachableError: it does not answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import aiohttp
            from model_registry import ModelRegistry
            from model_registry.exceptions import StoreError
            from mr_openapi.exceptions import ApiException
    except ModuleNotFoundError:
        raise InputError("--kubeflow needs its client: pip install 'isotrain[kubeflow]'") from None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():  # "user access token is missing", where none is needed
            warnings.simplefilter("ignore")
            registry = ModelRegistry(address, author=_author(), log_level=logging.ERROR)
        if registry.get_registered_model(name) is not None and registry.get_model_version(name, version) is not None:
            return False
        registry.register_model(
            name,
            uri,
            version=version,
            model_format_name=FORMAT,
            model_format_version="1",
            version_description=card,
            metadata=dict(tags),
        )
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise UnreachableError(f"the Kubeflow Model Registry at {address} does not answer: {error}") from None
    except (ApiException, StoreError) as error:
        raise InputError(
            f"the Kubeflow Model Registry at {address} refused it: {str(error).strip().splitlines()[0]}"
        ) from None
    return True


def _author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "isotrain"
