"""Predictions in a file whose command, when it was stopped, goes on after the predictions that are there.

Rows are appended to OUT.partial.jsonl and synced, a batch at a time. Its first line is a header: the model and the options, whose
predictions cannot be mixed with others. At the end OUT is written atomically and the partial file is removed.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from config.errors import InputError
from config.parsing import check_regular, parse_json
from config.syncing import make_folder, sync_directory
from runs import digests
from trainers import prediction_formats
from trainers.saved_model import SavedModel

logger = logging.getLogger(__name__)

_MARK = "isotrain_partial_predictions"  # key of the header with the version of its format


def make_header(model: SavedModel, inputs: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predictions depend on.

    Args:
        model: The model.
        inputs: Names of the input files and folders.
        options: Options of the command.

    Returns:
        `model`, the SHA-256 of its files and settings; `options`; `inputs`, the SHA-256 of the input files (not of those in
        folders).
    """
    content = [digests.folder_digests(model.folder), model.settings, model.measurements, model.precision]
    input_digests = [digests.file_digest(Path(name)) for name in inputs if Path(name).is_file()]
    return {_MARK: 1, "model": _digest(content), "options": dict(options), "inputs": _digest(input_digests)}


def write(
    path: Path, header: dict[str, Any], rows: Callable[[int], Iterable[tuple[str, str]]], batch_size: int
) -> None:
    """Write predictions to a file, after those in its partial file.

    Args:
        path: The file, which `prediction_formats.check_output` has checked.
        header: Of `make_header`.
        rows: Called with the number of predictions that are there; yields the id of each input, also of those, and the
            prediction as JSON.
        batch_size: Rows that are written and synced at once.

    Raises:
        InputError: The partial file is of another model, of other options or inputs, or of a command that still writes it.
    """
    partial = path.with_name(f"{path.name}.partial.jsonl")
    with _open_partial(partial, header) as file:
        ids = _read_ids(file, partial)
        if ids:
            logger.info("%s: %s predictions were there; going on after them", partial, f"{len(ids):,}")
        batch: list[str] = []
        count = 0
        for identity, line in rows(len(ids)):
            count += 1
            if count <= len(ids):
                if identity != ids[count - 1]:
                    raise InputError(
                        f"{partial}: prediction {count} is of {ids[count - 1]}, but input {count} is {identity}: name the "
                        "same inputs in the same order, or remove this file to begin again"
                    )
                continue
            batch.append(line)
            if len(batch) == batch_size:
                _append(file, batch)
                batch.clear()
        if count < len(ids):
            raise InputError(
                f"{partial} has {len(ids):,} predictions, but there are {count:,} inputs: name the same inputs, or remove "
                "this file to begin again"
            )
        _append(file, batch)

        def lines() -> Iterator[bytes]:
            file.seek(0)
            file.readline()
            return iter(file)

        prediction_formats.write(path, lines)
        partial.unlink(missing_ok=True)
        sync_directory(partial.parent)
    logger.info("%s: %s predictions", path, f"{count:,}")


@contextlib.contextmanager
def _open_partial(partial: Path, header: dict[str, Any]) -> Iterator[IO[bytes]]:
    """Open a partial file, locked. A new one gets a header; one without rows is removed at the end.

    Raises:
        InputError: It cannot be continued.
    """
    make_folder(partial.parent)
    if partial.exists():
        check_regular(partial)
    with partial.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{partial} is being written by another process: wait, or choose another --output"
            ) from None
        except OSError:  # storage without locks
            pass
        file.seek(0)
        first = file.readline()
        # A header that was not written to its end has no rows behind it.
        if not first.endswith(b"\n") and first.startswith(f'{{"{_MARK}"'.encode()[: len(first)]):
            file.truncate(0)
            _append(file, [json.dumps(header)])
            sync_directory(partial.parent)
        else:
            _check_header(partial, first, header, file.read(1) != b"")
        try:
            yield file
        finally:
            file.seek(0)
            file.readline()
            if not file.read(1):  # there is nothing to go on after
                partial.unlink(missing_ok=True)


def _check_header(partial: Path, line: bytes, header: Mapping[str, Any], has_rows: bool) -> None:
    begin_again = "or remove this file to begin again"
    try:
        content = parse_json(line)
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get(_MARK) != header[_MARK]:
        raise InputError(
            f"{partial} has no header of this version of isotrain, and is where predictions are kept until all are made: "
            "move it away, or choose another --output"
        )
    if content.get("model") != header["model"]:
        raise InputError(
            f"{partial} has predictions of another model: name the model that made them, choose another --output, {begin_again}"
        )
    if content.get("options") != header["options"]:
        before, current = (json.dumps(options) for options in (content.get("options"), header["options"]))
        raise InputError(
            f"{partial} has predictions with other options ({before}; now {current}): repeat them, {begin_again}"
        )
    if has_rows and content.get("inputs") != header["inputs"]:
        logger.warning(
            "%s: the input files have changed since; predictions that are there are kept if the ids agree. Remove this file to "
            "begin again",
            partial,
        )


def _read_ids(file: IO[bytes], partial: Path) -> list[str]:
    """Return the ids of the rows behind the header, and remove a last line without an end."""
    file.seek(0)
    end = len(file.readline())
    ids: list[str] = []
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            ids.append(str(parse_json(line)["id"]))
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{partial}, line {len(ids) + 2} is damaged: remove this file to begin again") from None
        end += len(line)
    file.truncate(end)
    return ids


def _append(file: IO[bytes], lines: Iterable[str]) -> None:
    file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    file.flush()
    os.fsync(file.fileno())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
