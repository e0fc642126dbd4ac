"""Check, before anything heavy is imported, of what a run needs from the Hugging Face Hub.

Importing torch, Lightning and transformers takes seconds. Without a network the error comes before that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from datamodules.sources import hub, hub_errors
from datamodules.storage import cache


def check_hub_requirements(data: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse a run that lacks files of the Hub when the Hub cannot be reached.

    Only where the lack is certain: prepared data may not need its source, so data missing in the Hub's cache certainly
    lacks only where nothing was ever prepared. In doubt the Hub is probed in the background, during the imports.

    Args:
        data: configuration as in conf/data/*.yaml.
        model: configuration as in conf/model/*.yaml.

    Raises:
        InputError: in one line, after a few seconds at most.
    """
    missing = _missing_data(data) + _missing_model(model)
    if not missing:
        return
    hub_errors.start_probe()
    certain = {subject: alternatives for subject, alternatives, is_certain in missing if is_certain}
    if certain and hub_errors.work_offline_if_unreachable():
        subject, alternatives = " and ".join(certain), "; ".join(certain.values())
        reason = hub_errors.offline_reason() or "no network"
        raise InputError(hub_errors.unreachable_message(subject, alternatives, reason))


def _missing_data(data: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(subject, alternatives, whether the lack is certain) of data that would be downloaded."""
    source = data.get("hub")
    if not source or any(data.get(key) for key in ("path", "train_file", "val_file")):
        return []
    entries = [source.get(split) for split in ("train", "val")]
    files = [file for entry in entries if entry for file in ([entry] if isinstance(entry, str) else entry)]
    if all(_is_cached(source["repo"], source["revision"], file, "dataset") for file in files):
        return []
    prepared = any(cache.root(data.get("cache_dir")).glob("*/*"))
    return [(f"the data set {source['repo']}", hub_errors.DATA_ALTERNATIVES, not prepared)]


def _missing_model(model: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """As `_missing_data`, of a transformers model; timm's names on the Hub are not known before timm is imported."""
    name = model.get("pretrained")
    if not isinstance(name, str) or Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        return []
    if _is_cached(name, model.get("revision") or "main", "config.json", "model"):
        return []
    return [(f"the model {name}", hub_errors.MODEL_ALTERNATIVES, True)]


def _is_cached(repo: str, revision: str, file: str, repo_type: str) -> bool:
    from huggingface_hub.errors import HFValidationError

    try:
        return hub.cached_path(repo, revision, file, repo_type) is not None
    except HFValidationError:  # not a valid name: loading it raises the error
        return True
