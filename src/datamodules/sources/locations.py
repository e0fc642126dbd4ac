"""Where a data set's files are: in a local or fsspec folder, or on the Hugging Face Hub."""

import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from config.errors import Refused
from datamodules.sources.hub_errors import INSTEAD_OF_DATA, hub_access
from datamodules.storage import cache, fingerprint

BEGINNINGS: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("dev", "val")}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?(?=\.)")


def kind(
    files: Mapping[str, str | None], sample: object, hub: object, generated: str
) -> Literal["path", "sample", "hub"]:
    """Which of a configuration's sources counts: files before a sample, a sample before the Hub.

    Args:
        files: `path`, `train_file`, `val_file`.
        sample: settings of a generator, or None.
        hub: settings of a Hub repository, or None.
        generated: the choice of `data` that needs nothing, for the message.

    Raises:
        Refused: there is none.
    """
    if any(value is not None for value in files.values()):
        return "path"
    if sample is not None:
        return "sample"
    if hub is not None:
        return "hub"
    raise Refused(f"no data: give data.path=<folder>, data.train_file and data.val_file, or choose data={generated}")


def sample(root: Path, generator: ModuleType, settings: Mapping[str, Any]) -> Path:
    """The cached folder of generated data, generated if need be.

    Args:
        root: of the cache.
        generator: a module with `write(folder, **settings)`. Its text is part of the key: another generator, other data.
        settings: of conf/data.

    Raises:
        Refused: a setting that the generator does not have.
    """
    known = list(inspect.signature(generator.write).parameters)[1:]
    if unknown := sorted(set(settings) - set(known)):
        raise Refused(f"data.sample has no key {unknown[0]}; it has {', '.join(known)}")
    key = {**settings, "generator": fingerprint.of_files([str(generator.__file__)], root, "full")}
    name = generator.__name__.rpartition(".")[2]
    return cache.entry(root, name, key, lambda folder: generator.write(folder, **settings))


def place(
    kind: str, files: Mapping[str, str | None], sample: Mapping[str, Any] | None, hub: Mapping[str, Any] | None
) -> str:
    """Where data comes from, whatever is there today: what "the data before" is the data before of."""
    if kind == "path":
        return json.dumps([name and (name if "://" in name else str(Path(name).absolute())) for name in files.values()])
    return str((hub or {})["repo"]) if kind == "hub" else json.dumps(dict(sample or {}), sort_keys=True)


def expected(sample: Mapping[str, Any] | None, limit: int | None, split: str) -> int | None:
    """How many examples a split must have: generated ones are as many as were asked for, no more than the limit."""
    made = (sample or {}).get(split)
    return None if made is None else min(int(made), limit or int(made))


def fingerprint_of(hub: Mapping[str, Any], split: str) -> str:
    """`repo@revision:file`."""
    return f"{hub['repo']}@{hub['revision']}:{hub[split]}"


def resolve(
    path: str | None,
    train_file: str | None = None,
    val_file: str | None = None,
    official: Mapping[str, Sequence[str]] | None = None,
    suffixes: Sequence[str] = (),
    splits: Sequence[str] = ("train", "val"),
) -> dict[str, list[str]]:
    """The files of each split.

    For each split, the first of: the file named outright; the first official name there is; the one file (or the one
    set of shards `name-00000-of-00002`) that begins with "train", or with "dev" or "val".

    Args:
        path: folder, local or an fsspec URL. None if both files are named outright.
        train_file: the training file or a pattern of files, relative to `path`, else to the working
            directory.
        val_file: the same for validation.
        official: official names by split ("train", "val"), in order of preference. A name may be a folder.
        suffixes: what other files must end with, such as ".json".
        splits: which of them are wanted.

    Returns:
        {"train": [...], "val": [...]}, those wanted: sorted paths or URLs.

    Raises:
        Refused: nothing fits, or more than one thing does. The message names what was found and what was
            expected.
    """
    if path is not None:
        system, folder = _system(path)
        if system.isfile(folder):
            raise Refused(f"data.path={path} is a file; give its folder, or data.train_file and data.val_file")
        if not system.isdir(folder):
            raise Refused(f"there is no folder data.path={path} (seen from {Path.cwd()})")
    named = {"train": train_file, "val": val_file}
    if path is None and not all(named[split] for split in splits):
        raise Refused("give data.path=<folder>, or " + " and ".join(f"data.{split}_file" for split in splits))
    found: dict[str, list[str]] = {}
    for split in splits:
        name = named[split]
        if name is not None:
            found[split] = _outright(path, name, f"data.{split}_file")
        else:
            assert path is not None
            found[split] = _search(path, split, tuple((official or {}).get(split, ())), tuple(suffixes))
    return found


def hub(
    repo: str,
    revision: str,
    files: str | Sequence[str],
    repo_type: Literal["dataset", "model"] = "dataset",
    instead: str = INSTEAD_OF_DATA,
) -> list[str]:
    """Local paths of a Hub repository's files, downloaded unless the Hub's cache has them.

    Honours HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE. The fingerprint of such data is `repo@revision`.

    Args:
        repo: "owner/name".
        revision: a commit hash, a tag or a branch; what the cache has of it is not asked for again.
        files: one path in the repository, or several.
        repo_type: "dataset" or "model".
        instead: what the message proposes when there is no network.

    Raises:
        Refused: no network, no such repository, revision or file, no access. Within seconds, in one line.
    """
    names = [files] if isinstance(files, str) else list(files)
    here = [in_hub_cache(repo, revision, name, repo_type) for name in names]
    if all(here):
        return [str(path) for path in here]

    from huggingface_hub import hf_hub_download

    with hub_access(f"{'the data set' if repo_type == 'dataset' else 'the model'} {repo}", instead):
        return [hf_hub_download(repo, name, revision=revision, repo_type=repo_type) for name in names]


def in_hub_cache(repo: str, revision: str, name: str, repo_type: str) -> str | None:
    """The path of a file in the Hub's cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision, repo_type=repo_type)
    return found if isinstance(found, str) else None


def _system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, folder = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise Refused(f"cannot open {path}: {error}") from error
    return system, folder


def _full(system: Any, name: str) -> str:
    """A path as fsspec gives it: local ones as they are, others with their protocol."""
    return str(name) if "file" in _protocols(system) else str(system.unstrip_protocol(name))


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _outright(path: str | None, name: str, key: str) -> list[str]:
    tried = []
    if path is not None and "://" not in name and not Path(name).is_absolute():
        tried.append(f"{path.rstrip('/')}/{name}")
    tried.append(name)
    for candidate in tried:
        system, full = _system(candidate)
        # `exists` first: a real name may hold brackets.
        found = [full] if system.exists(full) else (system.glob(full) if any(c in name for c in "*?[") else [])
        if found:
            return sorted(_full(system, file) for file in found)
    raise Refused(f"there is no {key}={name} (tried {' and '.join(tried)}, from {Path.cwd()})")


def _search(path: str, split: str, official: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    system, folder = _system(path)
    for name in official:
        if system.exists(f"{folder}/{name}"):
            return [_full(system, f"{folder}/{name}")]
    there = sorted(os.path.basename(entry.rstrip("/")) for entry in system.ls(folder, detail=False))  # noqa: PTH119
    fitting = [
        name
        for name in there
        if name.startswith(BEGINNINGS[split]) and name.endswith(suffixes) and system.isfile(f"{folder}/{name}")
    ]
    if len(fitting) == 1 or (fitting and len({_SHARD.sub("", name) for name in fitting}) == 1):
        return [_full(system, f"{folder}/{name}") for name in fitting]
    expected = " or ".join(official) or "one"
    beginning = " or ".join(f'"{word}"' for word in BEGINNINGS[split])
    wanted = f"expected {expected}, else one file that begins with {beginning} and ends with {', '.join(suffixes)}"
    if fitting:
        raise Refused(
            f"{path}: more than one file could be the {split} split ({', '.join(fitting)}); "
            f"name it with data.{split}_file"
        )
    shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    raise Refused(f"{path}: no file for the {split} split; {wanted}; found {shown or 'nothing'}")
