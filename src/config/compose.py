"""The configuration of a command line, composed by Hydra without running anything."""

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from config.tasks import CONF, conf_folders


def compose(overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """Composes conf/train.yaml with overrides, as `python train.py OVERRIDES` does.

    Args:
        overrides: Hydra overrides, e.g. `["model=bert", "optim.lr=3e-5"]`.
        with_hydra: keep Hydra's own node `hydra` in the result.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what does not compose;
            `config.messages.explain_error` says it in one line.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with _carried(overrides), _fresh_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=with_hydra)


@contextlib.contextmanager
def _fresh_hydra() -> Iterator[None]:
    """Lets Hydra be initialised again inside its own main, whose state comes back afterwards."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(state)


def compose_cached(overrides: Sequence[str]) -> DictConfig:
    """The same as `compose`, some ten times as fast where many command lines make the same choices.

    Each set of choices is composed once; values are then put in by Hydra's own function, which its releases below 1.4
    all have.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with _carried(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        chosen = tuple(each.input_line for each in parsed if is_group_choice(each.input_line))
        config = copy.deepcopy(_chosen(chosen))
        rest: list[Any] = [each for each in parsed if not is_group_choice(each.input_line)]
        with flag_override(config, "struct", True):
            ConfigLoaderImpl._apply_overrides_to_config(rest, config)
        return config


@functools.cache
def _chosen(overrides: tuple[str, ...]) -> DictConfig:
    return compose(overrides)


@contextlib.contextmanager
def _carried(overrides: Sequence[str]) -> Iterator[None]:
    """Gives an error of composing its command line, for `config.messages.explain_error`."""
    from hydra.errors import HydraException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        error.overrides = list(overrides)  # type: ignore[attr-defined, union-attr]
        raise


def is_group_choice(override: str) -> bool:
    """Whether an override chooses from a group of the configuration, as `model=bert` does."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return any((folder / key).is_dir() for folder in conf_folders()) if key else False


def group_choices(group: str) -> list[str]:
    """The choices of a configuration group, e.g. `model`; empty for a group that does not exist."""
    return sorted({path.stem for folder in conf_folders() for path in (folder / group).glob("*.yaml")})
