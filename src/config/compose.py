"""The configuration of a command line, composed by Hydra without running anything."""

import copy
import functools
from collections.abc import Sequence

from omegaconf import DictConfig, flag_override

from config.tasks import CONF, folders


def compose(overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """Composes conf/train.yaml with overrides, as `python train.py OVERRIDES` does.

    Args:
        overrides: Hydra overrides, e.g. `["model=bert", "optim.lr=3e-5"]`.
        with_hydra: keep Hydra's own node `hydra` in the result.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what does not compose;
            `config.messages.explain` says it in one line.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=with_hydra)


def compose_many(overrides: Sequence[str]) -> DictConfig:
    """The same as `compose`, some ten times as fast where many command lines make the same choices.

    Each set of choices is composed once; values are then put in by Hydra's own function, which its releases below 1.4
    all have.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = {path.name for folder in folders() for path in folder.iterdir() if path.is_dir()}
    chosen = tuple(each.input_line for each in parsed if each.key_or_group in groups)
    config = copy.deepcopy(_chosen(chosen))
    rest = [each for each in parsed if each.key_or_group not in groups]
    with flag_override(config, "struct", True):
        ConfigLoaderImpl._apply_overrides_to_config(rest, config)
    return config


@functools.cache
def _chosen(overrides: tuple[str, ...]) -> DictConfig:
    return compose(overrides)


def choices(group: str) -> list[str]:
    """The choices of a configuration group, e.g. `model`; empty for a group that does not exist."""
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})
