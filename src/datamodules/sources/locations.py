"""Locations of the files of each split in a local or fsspec folder."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.errors import InputError
from datamodules.sources.files import file_system, full_path

PREFIXES: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("dev", "val")}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?(?=\.)")


def resolve_files(
    path: str | None,
    train_file: str | None = None,
    val_file: str | None = None,
    splits: Sequence[str] = ("train", "val"),
    official: Mapping[str, Sequence[str]] | None = None,
    suffixes: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Find the files of each split.

    For each split, the first of: the named file; the first official name that exists; the only file (or the only set of
    shards `name-00000-of-00002`) whose name begins with "train", or with "dev" or "val".

    Args:
        path: folder, local or an fsspec URL. None if the files of all splits are named.
        train_file: the training file or a pattern of files, relative to `path`, else to the working directory.
        val_file: the same for validation.
        splits: which splits to find.
        official: official names by split, in order of preference. A name may be a folder.
        suffixes: what the names of other files must end with, such as ".json".

    Returns:
        Sorted paths or URLs by split.

    Raises:
        InputError: no match, or several. The message names what exists and what is expected.
    """
    if path is not None:
        system, folder = file_system(path)
        if system.isfile(folder):
            raise InputError(f"data.path={path} is a file; give its folder, or data.train_file and data.val_file")
        if not system.isdir(folder):
            raise InputError(f"there is no folder data.path={path} (in {Path.cwd()})")
    names = {"train": train_file, "val": val_file}
    files: dict[str, list[str]] = {}
    for split in splits:
        name = names[split]
        if name is not None:
            files[split] = _find_named(path, name, f"data.{split}_file")
        elif path is not None:
            files[split] = _search(path, split, tuple((official or {}).get(split, ())), tuple(suffixes))
        else:
            raise InputError("give data.path=<folder>, or " + " and ".join(f"data.{name}_file" for name in splits))
    return files


def _find_named(path: str | None, name: str, key: str) -> list[str]:
    candidates = [name]
    if path is not None and "://" not in name and not Path(name).is_absolute():
        candidates.insert(0, f"{path.rstrip('/')}/{name}")
    for candidate in candidates:
        system, file = file_system(candidate)
        if system.exists(file):  # first: a file name may contain brackets
            return [full_path(system, file)]
        if any(character in name for character in "*?[") and (matches := system.glob(file)):
            return sorted(full_path(system, match) for match in matches)
    raise InputError(f"there is no {key}={name} (tried {' and '.join(candidates)}, in {Path.cwd()})")


def _search(path: str, split: str, official: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    system, folder = file_system(path)
    for name in official:
        if system.exists(f"{folder}/{name}"):
            return [full_path(system, f"{folder}/{name}")]
    entries = sorted(os.path.basename(entry.rstrip("/")) for entry in system.ls(folder, detail=False))  # noqa: PTH119
    matches = [
        name
        for name in entries
        if name.startswith(PREFIXES[split]) and name.endswith(suffixes) and system.isfile(f"{folder}/{name}")
    ]
    if len(matches) == 1 or (matches and len({_SHARD.sub("", name) for name in matches}) == 1):
        return [full_path(system, f"{folder}/{name}") for name in matches]
    if matches:
        raise InputError(
            f"{path}: more than one file could be the {split} split ({', '.join(matches)}); "
            f"name it with data.{split}_file"
        )
    prefixes = " or ".join(f'"{prefix}"' for prefix in PREFIXES[split])
    content = ", ".join(entries[:12]) + (", ..." if len(entries) > 12 else "")
    raise InputError(
        f"{path}: no file for the {split} split; expected {' or '.join(official) or 'one'}, else one file that begins "
        f"with {prefixes} and ends with {', '.join(suffixes)}; found {content or 'nothing'}"
    )
