"""Cache of folders of preprocessed data, keyed by everything their content depends on.

An entry is built once, in a temporary folder under a file lock, and then renamed: readers see a complete entry or none,
two processes that start at the same time do the work once, and an incomplete entry of a killed process is never read.
A manifest in the entry has sizes and digests of its files: what is damaged is noticed, set aside and built again.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from config import files, parsing
from config.errors import InputError, ResourceError, first_line
from config.output_paths import refuse_url
from config.temporary_files import remove_temporary_files
from datamodules.storage import manifest
from datamodules.storage.fingerprint import Verify

logger = logging.getLogger(__name__)

KEY = "key.json"

_NAME = re.compile("[0-9a-f]{24}")  # of an entry
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EIO, errno.ESTALE}
_checked: dict[Path, dict[str, tuple[int, str]]] = {}  # manifests with which this process compared the digests
MOVE_HINT = "set data.cache_dir=<folder> or the environment variable ISOTRAIN_CACHE to move it"


def root(configured: str | None = None) -> Path:
    """Return the folder of all entries: the configured one, else $ISOTRAIN_CACHE, else ~/.cache/isotrain.

    Raises:
        InputError: It is a URL.
    """
    folder = configured or os.environ.get("ISOTRAIN_CACHE") or "~/.cache/isotrain"
    refuse_url(folder, "data.cache_dir=" if configured else "ISOTRAIN_CACHE=")
    return Path(folder).expanduser().absolute()


def entry_name(key: Mapping[str, Any]) -> str:
    """Return the name of the entry with a key: the first 24 hex digits of the key's SHA-256."""
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


def entry(
    root: Path,
    kind: str,
    key: Mapping[str, Any],
    build: Callable[[Path], None],
    verify: Verify = "fast",
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Return the folder of the entry with a key, built if it does not exist or is damaged.

    Sizes of files are compared with the entry's manifest at each call, digests at the first call in a process; see
    `manifest.check_digests` for large files. A damaged entry is set aside as `<name>.damaged`, with a warning.

    Args:
        root: the folder of all entries, see `root()`.
        kind: subfolder of entries of one kind, such as "windows".
        key: everything the content depends on, as JSON values; also written to `key.json` in the entry.
        build: writes the content into an empty folder.
        verify: "full" compares the digests of all files at each call.
        check: opens an entry that a version without manifests built, and raises an exception if it is damaged. The entry
            gets a manifest then.

    Returns:
        `root/kind/<entry_name(key)>`, whose content never changes.

    Raises:
        ResourceError: the disk is full. The incomplete entry is removed.
        InputError: the folder cannot be created, read or written.
    """
    name = entry_name(key)
    folder = root / kind
    final = folder / name
    damage = None
    if os.path.lexists(final):
        damage = _find_damage(final, root, key, verify, check)
        if damage is None:
            if not (final / manifest.FILE).exists():
                _add_manifest(final)
            return final
        if not os.access(folder, os.W_OK):
            raise InputError(
                f"the cache entry {final} is damaged ({damage}), and the cache cannot be written to build it again; "
                f"{MOVE_HINT}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the data cache {folder} cannot be created ({error.strerror}); {MOVE_HINT}") from error
    temporary = folder / f"{name}.tmp"
    message = f"waiting for another process to build {final}"
    with _disk_errors(folder), _locked(folder / f"{name}.lock", message):
        if os.path.lexists(final):
            # Another process may have built it in the meantime.
            damage = _find_damage(final, root, key, "full", check)
            if damage is None:
                return final
            _set_aside(final, damage)
        _remove_abandoned(folder, keep=name)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            build(temporary)
            text = json.dumps(key, indent=1, sort_keys=True) + "\n"
            (temporary / KEY).write_text(text, encoding="utf-8")
            manifest.write(temporary)
            files.sync_folder(temporary)
            temporary.replace(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        files.sync_directory(folder)
    return final


def entries(root: Path, kind: str, check: Callable[[Path], object]) -> Iterator[Path]:
    """Yield the folders of all entries of a kind, ordered by name; damaged ones are left out, with a warning.

    Args:
        root: the folder of all entries.
        kind: subfolder of entries of one kind.
        check: see `entry`.
    """
    for folder in sorted((root / kind).glob("*")):
        if _NAME.fullmatch(folder.name):
            if damage := _find_damage(folder, root, None, "fast", check):
                logger.warning("the cache entry %s is damaged (%s), and not used", folder, damage)
            else:
                yield folder


def _find_damage(
    folder: Path,
    root: Path,
    key: Mapping[str, Any] | None,
    verify: Verify,
    check: Callable[[Path], object] | None,
) -> str | None:
    """Return what is wrong with an entry; None: nothing. See `entry` for the arguments; without a key it is not compared.

    Raises:
        InputError: the entry cannot be read.
    """
    records = None
    try:
        records = manifest.read(folder)
        if records is not None:
            manifest.check_sizes(folder, records)
            if verify == "full" or _checked.get(folder) != records:
                manifest.check_digests(folder, records, root, verify)
                _checked[folder] = records
        elif check is not None:
            check(folder)
        content = parsing.read_json(folder / KEY)
        if key is not None and content != json.loads(json.dumps(key)):
            return f"{KEY} is that of another entry"
    except ResourceError:
        raise
    except manifest.DamagedError as error:
        return f"{os.path.relpath(error.path, folder)}: {error.reason}"
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if isinstance(cause, MemoryError):
            raise
        if isinstance(cause, OSError):
            if isinstance(cause, PermissionError):
                raise InputError(
                    f"the cache entry {folder} cannot be read ({cause.strerror}); change its permissions, or {MOVE_HINT}"
                ) from error
            if cause.errno not in _DAMAGE:
                raise
            return f"{os.path.relpath(cause.filename or folder, folder)}: {cause.strerror}"
        if records is None or isinstance(error, ValueError):  # of `check`, or of JSON
            return f"it cannot be opened: {type(error).__name__}: {first_line(error)}"
        raise
    return None


def _add_manifest(folder: Path) -> None:
    """Write the manifest of an entry of a version without manifests, if its folder can be written."""
    if not os.access(folder, os.W_OK):
        return
    try:
        with _locked(folder.with_name(f"{folder.name}.lock"), f"waiting for another process to read {folder}"):
            if not (folder / manifest.FILE).exists():
                logger.info("adding a manifest to the cache entry %s of an earlier version", folder)
                remove_temporary_files(folder, manifest.FILE)
                manifest.write(folder)
    except (OSError, InputError) as error:
        logger.warning("damage of the cache entry %s cannot be noticed: it gets no manifest (%s)", folder, error)


def _set_aside(folder: Path, damage: str) -> None:
    """Rename a damaged entry; one of the same name that was set aside before is removed."""
    target = folder.with_name(f"{folder.name}.damaged")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    folder.rename(target)
    _checked.pop(folder, None)
    logger.warning(
        "the cache entry %s is damaged (%s): it was set aside as %s, and is built again", folder, damage, target.name
    )


@contextlib.contextmanager
def _locked(path: Path, message: str) -> Iterator[None]:
    # A lock of the operating system: it ends with its process, even if that is killed.
    lock: BaseFileLock = FileLock(path)
    try:
        acquired = lock.acquire(timeout=0)
    except Timeout:
        logger.info(message)
        acquired = lock.acquire()
    with acquired:
        yield


def _remove_abandoned(folder: Path, keep: str) -> None:
    """Remove the temporary folders of processes that ended: those whose lock is free."""
    for temporary in folder.glob("*.tmp"):
        if temporary.stem != keep and _NAME.fullmatch(temporary.stem):
            with contextlib.suppress(Timeout), FileLock(temporary.with_suffix(".lock")).acquire(timeout=0):
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a short write without an errno: "4096 requested and 512 written".
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error)):
            raise ResourceError(f"no space left for the data cache in {folder}; free some, or {MOVE_HINT}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and str(error.filename or "").startswith(
            str(folder)
        ):
            raise InputError(f"the data cache {folder} cannot be written ({error.strerror}); {MOVE_HINT}") from error
        raise
