"""Locations of the files of each split in a local or fsspec folder."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.errors import InputError
from datamodules.sources.files import file_system, full_path

# Beginnings of the names of files and folders, in any case.
PREFIXES: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("dev", "val"), "test": ("test",)}
# Names of folders, in any case.
FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test",)}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?(?=\.)")


@dataclass(frozen=True)
class Names:
    """Files that a configuration names.

    Attributes:
        path: folder, local or an fsspec URL, or the only file.
        train: the training file or a pattern of files, relative to `path`, else to the working directory.
        val: the same for validation.
        test: the same for the test.
    """

    path: str | None = None
    train: str | None = None
    val: str | None = None
    test: str | None = None

    def __bool__(self) -> bool:
        """Whether the files of training or validation are named; a test file may belong to data of the Hub."""
        return any(name is not None for name in (self.path, self.train, self.val))


def resolve_files(
    names: Names,
    split: str,
    official: Mapping[str, Sequence[str]] | None = None,
    suffixes: Sequence[str] = (),
    undivided: bool = False,
    folders: bool = False,
) -> list[str]:
    """Find the files of a split.

    The first of: the named file; the first official name that exists; the only file (or the only set of shards
    `name-00000-of-00002`) whose name begins with "train", or with "dev" or "val", or with "test".

    Args:
        names: of the configuration.
        split: "train", "val" or "test".
        official: official names by split, in order of preference.
        suffixes: what the names of other files must end with, such as ".json".
        undivided: the training files are all that there is: `path` may be a file, or have only one file, of any name.
        folders: a split may be a folder of one of `FOLDERS`, or with `undivided`, `path` itself.

    Returns:
        Sorted paths or URLs.

    Raises:
        InputError: no match, or several. The message names what exists and what is expected.
    """
    name = getattr(names, split)
    if name is not None:
        _check_folder(names.path, allow_file=False)
        return _find_named(names.path, name, f"data.{split}_file")
    if names.path is None:
        raise InputError(_unnamed(names, split))
    if _check_folder(names.path, allow_file=undivided and split == "train"):
        return [full_path(*file_system(names.path))]
    return _search(names.path, split, tuple((official or {}).get(split, ())), tuple(suffixes), undivided, folders)


def _unnamed(names: Names, split: str) -> str:
    """The message for a split without a file, and without a folder in which it could be."""
    if split == "train":
        return "give data.path=<folder>, or data.train_file and data.val_file"
    key = {"val": "data.split=0.1", "test": "data.test_split=0.1"}[split]
    return (
        f"no file for the {split} split: give data.path=<folder> or data.{split}_file, or take a share of the training part "
        f"with {key}"
    )


def _check_folder(path: str | None, allow_file: bool) -> bool:
    """Return whether a path is a file.

    Raises:
        InputError: it does not exist, or is a file where it may not be one.
    """
    if path is None:
        return False
    system, folder = file_system(path)
    if system.isfile(folder):
        if allow_file:
            return True
        raise InputError(
            f"data.path={path} is a file; give its folder, or data.train_file and data.val_file, or take a share of it "
            "for validation with data.split=0.1"
        )
    if not system.isdir(folder):
        raise InputError(f"there is no folder data.path={path} (in {Path.cwd()})")
    return False


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


def _search(
    path: str, split: str, official: tuple[str, ...], suffixes: tuple[str, ...], undivided: bool, folders: bool
) -> list[str]:
    system, folder = file_system(path)
    for name in official:
        if system.exists(f"{folder}/{name}"):
            return [full_path(system, f"{folder}/{name}")]
    entries = sorted(os.path.basename(entry.rstrip("/")) for entry in system.ls(folder, detail=False))  # noqa: PTH119
    found_folders = [
        name for name in entries if folders and name.lower() in FOLDERS[split] and system.isdir(f"{folder}/{name}")
    ]
    files = [name for name in entries if name.lower().endswith(suffixes) and system.isfile(f"{folder}/{name}")]
    matches = found_folders or [name for name in files if name.lower().startswith(PREFIXES[split])]
    if undivided and split == "train" and not matches:
        excluded = tuple(prefix for other in ("val", "test") for prefix in PREFIXES[other])
        matches = [name for name in files if not name.lower().startswith(excluded)]
        if folders and not matches:
            reserved = [name for name in entries if name.lower() in (*FOLDERS["val"], *FOLDERS["test"])]
            if not reserved:
                return [full_path(system, folder)]
    if len(matches) == 1 or (matches and len({_SHARD.sub("", name) for name in matches}) == 1):
        return [full_path(system, f"{folder}/{name}") for name in matches]
    if matches:
        kind = "folder" if found_folders else "file"
        raise InputError(
            f"{path}: more than one {kind} could be the {split} split ({', '.join(matches)}); "
            f"name it with data.{split}_file"
        )
    prefixes = " or ".join(f'"{prefix}"' for prefix in PREFIXES[split])
    content = ", ".join(entries[:12]) + (", ..." if len(entries) > 12 else "")
    expected = " or ".join(official) or ("a folder " + " or ".join(FOLDERS[split]) if folders else "one")
    hint = {
        "train": "to take one file or folder for training and validation, set data.split=0.1",
        "val": "to take a share of the training part for it, set data.split=0.1",
        "test": "to take a share of the training part for it, set data.test_split=0.1",
    }[split]
    raise InputError(
        f"{path}: no file for the {split} split; expected {expected}, else one file that begins "
        f"with {prefixes} and ends with {', '.join(suffixes)}; found {content or 'nothing'}; {hint}"
    )
