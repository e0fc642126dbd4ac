"""Finds the files of each split in a local or fsspec folder."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError

BEGINNINGS: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("dev", "val")}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?(?=\.)")


def resolve_files(
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
        InputError: nothing fits, or more than one thing does. The message names what was found and what was
            expected.
    """
    if path is not None:
        system, folder = _system(path)
        if system.isfile(folder):
            raise InputError(f"data.path={path} is a file; give its folder, or data.train_file and data.val_file")
        if not system.isdir(folder):
            raise InputError(f"there is no folder data.path={path} (seen from {Path.cwd()})")
    named = {"train": train_file, "val": val_file}
    if path is None and not all(named[split] for split in splits):
        raise InputError("give data.path=<folder>, or " + " and ".join(f"data.{split}_file" for split in splits))
    found: dict[str, list[str]] = {}
    for split in splits:
        name = named[split]
        if name is not None:
            found[split] = _outright(path, name, f"data.{split}_file")
        else:
            assert path is not None
            found[split] = _search(path, split, tuple((official or {}).get(split, ())), tuple(suffixes))
    return found


def _system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, folder = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open {path}: {error}") from error
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
    raise InputError(f"there is no {key}={name} (tried {' and '.join(tried)}, from {Path.cwd()})")


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
        raise InputError(
            f"{path}: more than one file could be the {split} split ({', '.join(fitting)}); "
            f"name it with data.{split}_file"
        )
    shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    raise InputError(f"{path}: no file for the {split} split; {wanted}; found {shown or 'nothing'}")
