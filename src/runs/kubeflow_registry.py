"""Registration of a model version in a Kubeflow Model Registry: name, URI of the files, and lineage."""

import getpass
import logging
import warnings
from collections.abc import Mapping

from config.errors import InputError, UnreachableError

FORMAT = "safetensors"


def register_version(address: str, name: str, version: str, uri: str, tags: Mapping[str, str], card: str) -> None:
    """Register a version in a Kubeflow Model Registry, unless it is registered already.

    Args:
        address: http://host:8080, or https:// with the token that Kubeflow mounts (KF_PIPELINES_SA_TOKEN_PATH).
        name: Name of the registered model.
        version: Its version.
        uri: URI of its files.
        tags: Custom properties of the version.
        card: Description of the version.

    Raises:
        InputError: The client is not installed, or the registry rejects the request.
        UnreachableError: The registry does not answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import aiohttp
            from model_registry import ModelRegistry
            from model_registry.exceptions import StoreError
            from mr_openapi.exceptions import ApiException
    except ModuleNotFoundError:
        raise InputError(
            "--kubeflow needs the registry's client: pip install -e '.[kubeflow]' in isotrain's checkout"
        ) from None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():  # "user access token is missing", even if none is needed
            warnings.simplefilter("ignore")
            registry = ModelRegistry(address, author=_author(), log_level=logging.ERROR)
        if registry.get_registered_model(name) is not None and registry.get_model_version(name, version) is not None:
            return
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
            f"the Kubeflow Model Registry at {address} rejects the request: {str(error).strip().splitlines()[0]}"
        ) from None


def _author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user of a container may have no name
        return "isotrain"
