"""Manifest of a cache entry: the size and the SHA-256 of each file, by which damage is noticed before data is used."""

import os
import stat
from pathlib import Path
from typing import Any

from config import checked_json
from config.errors import InputError
from datamodules.storage import fingerprint

FILE = "manifest.json"
FORMAT = 1
# Bytes. The digest of a larger file costs more than a tenth of a second: it is remembered while the file is unchanged.
LARGE = 64 << 20


class DamagedError(InputError):
    """A file of a cache entry that is not what was written.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}; repeat the command with data.verify=full, or remove its folder, to have it "
            "built again"
        )
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:  # loaders send errors between processes
        return type(self), (self.path, self.reason)


def write(folder: Path) -> None:
    """Write the manifest of a folder whose files are complete."""
    paths = _find_files(folder)
    digests = fingerprint.read_digests([str(path) for path in paths])
    records = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digests[str(path)]}
        for path in paths
    }
    checked_json.write(folder / FILE, {"format": FORMAT, "files": records})


def read(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Return size and SHA-256 of each file by name; None: the entry is of a version that wrote no manifest.

    Raises:
        DamagedError: the manifest is damaged.
    """
    try:
        content = checked_json.read(folder / FILE)
        return {name: (int(record["size"]), str(record["sha256"])) for name, record in content["files"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(folder / FILE, "it is not the manifest that was written") from error


def check_sizes(folder: Path, records: dict[str, tuple[int, str]]) -> None:
    """Check that all files exist with their sizes.

    Raises:
        DamagedError: one does not.
    """
    for name, (size, _) in records.items():
        status = os.stat(folder / name)  # noqa: PTH116 -- faster, and samples have thousands of files
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(folder / name, "it is not a file")
        if status.st_size != size:
            raise DamagedError(folder / name, f"it has {status.st_size} bytes instead of {size}")


def check_digests(folder: Path, records: dict[str, tuple[int, str]], root: Path, verify: fingerprint.Verify) -> None:
    """Check the content of all files.

    Args:
        folder: the entry.
        records: of `read`.
        root: the cache folder, which stores digests of large files.
        verify: "fast" does not read large files again whose size, times and inode are those of an earlier check.

    Raises:
        DamagedError: a file has other content.
    """
    large = [str(folder / name) for name, (size, _) in records.items() if size > LARGE and verify == "fast"]
    digests = fingerprint.digest_files(large, root) if large else {}
    digests |= fingerprint.read_digests([path for name in records if (path := str(folder / name)) not in digests])
    for name, (_, digest) in records.items():
        if digests[str(folder / name)] != digest:
            raise DamagedError(folder / name, "its content has changed since it was written")


def _find_files(folder: Path) -> list[Path]:
    paths = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return sorted(path for path in paths if path != folder / FILE and path.is_file() and not path.is_symlink())
