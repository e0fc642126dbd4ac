"""Warnings of combinations that take long and learn little, before the training starts."""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

logger = logging.getLogger(__name__)

LARGE = 20_000_000  # parameters; smaller models learn from little data, and are soon trained
PARAMETERS_PER_EXAMPLE = 1_000
SOURCES = ("init_from", "population_dir", "population_parent")  # settings that name other weights


def warn_default_model(config: DictConfig) -> None:
    """Warn of random weights that were not chosen, where the data set suggests models that are fine-tuned.

    Args:
        config: the composed configuration, in a command of Hydra.
    """
    suggested = (config.data.get("suitable") or {}).get("models")
    if not suggested or config.model.get("pretrained") or any(config.get(key) for key in SOURCES):
        return
    hydra = HydraConfig.get()
    if any(
        word.lstrip("+").startswith(("model=", "model.pretrained=", "experiment=")) for word in hydra.overrides.task
    ):
        return
    logger.warning(
        "model=%s, the default, has random weights, for tests with generated data; %s fine-tunes pretrained weights",
        hydra.runtime.choices["model"],
        " or ".join(f"model={name}" for name in suggested),
    )


def warn_random_weights(config: DictConfig, model: Any, data: Any) -> None:
    """Warn of a large model that starts with random weights, and has few examples to learn from.

    Args:
        config: the composed configuration.
        model: the LightningModule.
        data: the data module, set up.
    """
    if not hasattr(model, "parameters"):  # a baseline
        return
    if "pretrained" not in config.model or config.model.pretrained or any(config.get(key) for key in SOURCES):
        return
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters <= LARGE:
        return
    examples = len(getattr(data.train_dataloader(), "dataset", ()))
    if parameters > PARAMETERS_PER_EXAMPLE * examples:
        logger.warning(
            "model.pretrained=%s: %.1f million random weights learn little from %d examples; fine-tune pretrained weights, "
            "or choose a smaller model",
            "null" if config.model.pretrained is None else "false",
            parameters / 1e6,
            examples,
        )
