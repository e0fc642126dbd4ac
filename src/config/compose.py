"""Configurations composed by Hydra from a list of overrides, without running anything."""

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, flag_override

from config.errors import is_hydra_error
from config.tasks import CONF, conf_folders


def compose(overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """Compose conf/train.yaml with overrides, as `python train.py OVERRIDES` does.

    Args:
        overrides: Hydra overrides, e.g. `["model=bert", "optim.lr=3e-5"]`.
        with_hydra: Whether to keep Hydra's own node `hydra` in the result.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: The overrides do not compose;
            `config.messages.explain_error` makes a message of the exception.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with _overrides_in_errors(overrides), _fresh_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=with_hydra)


@contextlib.contextmanager
def hydra_loader() -> Iterator[Any]:
    """Return Hydra's loader, which lists groups and choices, those of Hydra and of its plug-ins included."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with _fresh_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@contextlib.contextmanager
def _fresh_hydra() -> Iterator[None]:
    """Allow Hydra to be initialised inside its own main function, and restore its state afterwards."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(state)


def compose_cached(overrides: Sequence[str]) -> DictConfig:
    """Compose as `compose` does; about ten times as fast for many command lines with the same group choices.

    Each set of group choices is composed once. Values are then set by a private function of Hydra, which all releases
    below 1.4 have.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with _overrides_in_errors(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = tuple(override.input_line for override in parsed if is_group_choice(override.input_line))
        values: list[Any] = [override for override in parsed if not is_group_choice(override.input_line)]
        config = copy.deepcopy(_compose_choices(choices, tuple(conf_folders())))
        with flag_override(config, "struct", True):
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config


@functools.cache
def _compose_choices(overrides: tuple[str, ...], _: tuple[Path, ...]) -> DictConfig:
    return compose(overrides)


@contextlib.contextmanager
def _overrides_in_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Attach the overrides to an exception of Hydra's, for `config.messages.explain_error`."""
    try:
        yield
    except Exception as error:
        if is_hydra_error(error):
            error.overrides = list(overrides)  # type: ignore[attr-defined]
        raise


def is_group_choice(override: str) -> bool:
    """Return whether an override chooses from a configuration group, as `model=bert` does."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return any((folder / key).is_dir() for folder in conf_folders()) if key else False


def group_choices(group: str) -> list[str]:
    """Return the choices of a configuration group, e.g. `model`; empty for a group that does not exist."""
    return sorted({path.stem for folder in conf_folders() for path in (folder / group).glob("*.yaml")})
