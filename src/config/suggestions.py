"""Suggestions for a command line that does not compose: the similar key, and the exact quoting of a value."""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Sequence

from omegaconf import DictConfig, OmegaConf

# Names that other tools give to keys of conf/.
SYNONYMS = {
    "learning_rate": "lr",
    "base_lr": "lr",
    "wd": "weight_decay",
    "scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "batch": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "num_train_epochs": "max_epochs",
    "steps": "max_steps",
    "num_steps": "max_steps",
    "gpus": "devices",
    "device": "accelerator",
    "num_workers": "workers",
    "gradient_accumulation_steps": "accumulate_grad_batches",
    "max_grad_norm": "gradient_clip_val",
    "clip_grad": "gradient_clip_val",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "max_seq_length": "max_length",
    "img_size": "image_size",
    "resume": "init_from",
    "random_seed": "seed",
    "output_dir": "hydra.run.dir",
}
# Packages with the launchers and sweepers that Hydra's own documentation describes.
PLUGINS = {
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=rq": "hydra-rq-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
}
# The first section that has a key of the name is suggested.
_SECTIONS = ("optim", "trainer", "data", "model", "explain", "quality")


def similar_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to an invalid one; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def similar_key(key: str, config: DictConfig) -> str | None:
    """Return the dotted key that a user may have meant by one that does not exist; None if none is similar.

    Args:
        key: The key; another section may have one with its last name, or with a synonym of it.
        config: The configuration without the key.
    """
    section, _, leaf = key.rpartition(".")
    keys = sorted(_iter_keys(config), key=lambda path: (not path.startswith(f"{section}."), _rank(path)))
    leaves = {path.rpartition(".")[2] for path in keys}
    close = difflib.get_close_matches(leaf, [*leaves, *SYNONYMS], n=1, cutoff=0.85)
    for name in (leaf, *close):
        name = SYNONYMS.get(name, name)
        if "." in name:
            return name
        if match := next((path for path in keys if path.rpartition(".")[2] == name), None):
            return match
    return None


def quote_override(word: str) -> str | None:
    """Return the shell word that sets a key to a text which Hydra cannot read without quotes.

    Args:
        word: `key=value`, as the command received it from the shell.

    Returns:
        `'key="value"'`, for the shell; None if there is no key, or the value is meant as a list or mapping.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    key, separator, value = word.partition("=")
    if not separator or not key or not value or value[0] in "[{\"'":
        return None
    if value.startswith("~/"):  # the shell expands ~ only at the start of a word
        return f'{key}="$HOME{value[1:]}"'
    quote = "'" if '"' in value else '"'
    quoted = f"{key}={quote}{value}{quote}"
    try:
        if OverridesParser.create().parse_override(quoted).value() != value:
            return None
    except Exception:  # both quotes, or a key that is no key
        return None
    return shlex.quote(quoted)


def join_parts(word: str, overrides: Sequence[str]) -> str | None:
    """Return the shell word for an override whose value the shell split at a blank.

    Args:
        word: A part behind a blank, which has no `=`.
        overrides: All words of the command line.
    """
    if "=" in word or word not in overrides:
        return None
    start = position = overrides.index(word)
    while start and "=" not in overrides[start]:
        start -= 1
    if "=" not in overrides[start]:
        return None
    end = next((index for index in range(position, len(overrides)) if "=" in overrides[index]), len(overrides))
    joined = " ".join(overrides[start:end])
    return quote_override(joined)


def _rank(key: str) -> tuple[int, int]:
    section = key.partition(".")[0]
    return (_SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS), key.count("."))


def _iter_keys(config: DictConfig, path: str = "") -> Iterator[str]:
    """All dotted keys, without resolving interpolations."""
    for name in config:
        key = f"{path}.{name}".lstrip(".")
        yield key
        child = None if OmegaConf.is_interpolation(config, name) else config._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _iter_keys(child, key)
