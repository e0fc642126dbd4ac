"""Models of MLflow's registry that are served: downloaded once, and followed to the version that an alias names."""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config import files
from config.errors import InputError, UnreachableError
from runs import registry
from serving.model import ServedModel

logger = logging.getLogger(__name__)

LoadModel = Callable[[str, str | None, str | None], ServedModel]
_ALIAS = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class RegisteredModel:
    """A model in the registry.

    Attributes:
        name: of the registered model.
        version: number, or an alias.
        server: MLflow's address; None for MLFLOW_TRACKING_URI, or the file of logger=mlflow.
        folder: of downloads.
    """

    name: str
    version: str
    server: str | None
    folder: Path

    @property
    def downloads(self) -> Path:
        """Folder of the downloaded versions: of an alias one of its own, because old ones are removed from it."""
        return self.folder / (self.name if self.version.isdecimal() else f"{self.name}@{self.version}")

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" if self.version.isdecimal() else f"{self.name}@{self.version}"


def parse(text: str, follow: str | None, server: str | None, folder: Path) -> RegisteredModel:
    """Return the registered model that `NAME`, `NAME@ALIAS` or `NAME/VERSION` names; without both, the champion.

    Args:
        text: the name.
        follow: alias to follow; None for none.
        server: MLflow's address, see `RegisteredModel`.
        folder: of downloads.

    Raises:
        InputError: the name is invalid, or names another alias than `follow`.
    """
    name, at, alias = text.partition("@")
    name, slash, number = (name, "", "") if at else text.partition("/")
    version = alias if at else number if slash else follow or registry.CHAMPION
    valid = bool(_ALIAS.fullmatch(version)) and (not slash or number.isdecimal()) and (not at or not alias.isdecimal())
    if not name.strip(".") or "/" in name or ":" in name or not valid:
        raise InputError(f"model={text}: must be NAME, NAME@ALIAS or NAME/VERSION, such as squad@champion or squad/3")
    if follow is not None and version != follow:
        raise InputError(f"model={text} and --follow {follow} name two versions: leave one of them out")
    return RegisteredModel(name, version, server, folder)


def load(
    source: RegisteredModel, name: str | None, load_model: LoadModel, current: str | None = None
) -> ServedModel | None:
    """Load a registered model, and download it before if that has not been done.

    Args:
        source: the model.
        name: its name in addresses; None for the registered one.
        load_model: as `serving.model.load_model`, with all options.
        current: version that is loaded; None for none.

    Returns:
        The model; None if `current` is the version that is named.

    Raises:
        InputError: there is no such version, or it cannot be loaded.
        UnreachableError: the registry does not answer.
    """
    entry = registry.find_version(source.name, source.version, source.server)
    if entry is None:
        raise InputError(f"the registry has no {source}")
    version = str(entry["version"])
    if version == current:
        return None
    folder = source.downloads / version
    keys = ("name", "version", "digest")
    if any(registry.read_download(folder).get(key) != entry[key] for key in keys):
        logger.info("downloading %s version %s", source.name, version)
        registry.find_version(source.name, version, source.server, folder)
    model = load_model(str(folder), name or source.name, version)
    if not source.version.isdecimal():
        files.write_json(_state(source), {"version": version})
        for path in source.downloads.iterdir():
            if path.name not in (version, current) and registry.read_download(path).get("name") == source.name:
                shutil.rmtree(path, ignore_errors=True)
    return model


def load_last(source: RegisteredModel, name: str | None, load_model: LoadModel) -> ServedModel:
    """Load the version that was served last on this machine, for a registry that does not answer.

    Raises:
        InputError: it cannot be loaded.
        UnreachableError: none was.
    """
    version = str(files.read_json(_state(source)).get("version"))
    folder = source.downloads / version
    if not version.isdecimal() or not folder.is_dir():
        raise UnreachableError(f"no version of {source} was downloaded to {source.downloads} before")
    return load_model(str(folder), name or source.name, version)


def _state(source: RegisteredModel) -> Path:
    return source.downloads / "served.json"
