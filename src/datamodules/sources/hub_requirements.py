"""What a run needs from the Hugging Face Hub, looked at before anything heavy is imported.

Importing torch, Lightning and transformers takes seconds. A machine without a network is told before that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from datamodules.sources import hub_errors
from datamodules.storage import cache


def check_hub_requirements(data: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuses a run that lacks what only the Hub has, when the Hub is out of reach.

    Only where that is certain. Prepared data may do without its source, so data missing from the Hub's cache
    is certain to lack only where nothing was ever prepared. In doubt the Hub is asked in the background,
    while imports go on.

    Args:
        data: configuration as in conf/data/*.yaml.
        model: configuration as in conf/model/*.yaml.

    Raises:
        InputError: one line, at once or after the few seconds that a silent Hub is given.
    """
    lacking = _lacking_data(data) + _lacking_model(model)
    if not lacking:
        return
    hub_errors.begin_asking()
    certain = {what: instead for what, instead, sure in lacking if sure}
    if certain and hub_errors.work_offline_if_unreachable():
        what, instead = " and ".join(certain), "; ".join(certain.values())
        raise InputError(hub_errors.out_of_reach(what, instead, hub_errors.why_offline() or "no network"))


def _lacking_data(data: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(what, what to do instead, whether it is certain) of data that would be downloaded."""
    hub = data.get("hub")
    if not hub or any(data.get(key) for key in ("path", "train_file", "val_file")):
        return []
    named = [hub.get(split) for split in ("train", "val")]
    files = [file for entry in named if entry for file in ([entry] if isinstance(entry, str) else entry)]
    if all(_is_cached(hub["repo"], file, hub["revision"], "dataset") for file in files):
        return []
    prepared = any(cache.root(data.get("cache_dir")).glob("*/*"))
    return [(f"the data set {hub['repo']}", hub_errors.INSTEAD_OF_DATA, not prepared)]


def _lacking_model(model: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """The same of a transformers model; the names that timm uses on the Hub are not known here."""
    name = model.get("pretrained")
    if not isinstance(name, str) or Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        return []
    if _is_cached(name, "config.json", model.get("revision") or "main", "model"):
        return []
    return [(f"the model {name}", hub_errors.INSTEAD_OF_MODEL, True)]


def _is_cached(repo: str, file: str, revision: str, kind: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repo, file, revision=revision, repo_type=kind), str)
    except HFValidationError:  # not a name at all: loading it will tell
        return True
