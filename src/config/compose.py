"""The configuration of a command line, composed by Hydra without running anything."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

CONF = Path(__file__).resolve().parents[2] / "conf"


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


def choices(group: str) -> list[str]:
    """The choices of a configuration group, e.g. `model`; empty for a group that does not exist."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
