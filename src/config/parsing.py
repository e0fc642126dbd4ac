"""Parsing of files that others wrote: whatever is in them, the only exception is a ValueError."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 30  # of a file that is read whole
MAX_YAML = 1 << 20  # characters of a YAML text: an object of Kubernetes has at most 1.5 MiB (etcd's limit)
MAX_NODES = 200_000  # values of a YAML document, an alias counted as what it stands for
MAX_DIGITS = 300  # of a whole number, so that it can become a float


def _parse_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return int(text)


DECODER = json.JSONDecoder(parse_int=_parse_integer)


def check_regular(path: str | os.PathLike[str], limit: int | None = None) -> os.stat_result:
    """Check that a path is a file: opening a pipe waits for its writer, and a device may have no end.

    Args:
        path: The path; links are followed.
        limit: Largest size in bytes; None for any.

    Returns:
        The status of the file.

    Raises:
        OSError: It does not exist, is no regular file, or is too large.
    """
    status = os.stat(path)  # noqa: PTH116 (a Path for each of 110,000 images would take as long again)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device", str(path))
    if limit is not None and status.st_size > limit:
        raise OSError(errno.EINVAL, f"has more than {limit:,} bytes", str(path))
    return status


def check_folder(folder: str | os.PathLike[str], excluded: Collection[str] = ()) -> None:
    """Check that a folder holds files and folders only, because libraries open its files by name.

    Args:
        folder: The folder; those below it are not checked. There may be none.
        excluded: Names that are not checked.

    Raises:
        OSError: It holds a pipe, a socket or a device.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in excluded or entry.is_file(follow_symlinks=False) or Path(entry.path).is_dir():
                continue
            if Path(entry.path).exists():  # otherwise a link to nothing
                check_regular(entry.path)


def read_bytes(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file that is a regular one of at most `limit` bytes.

    Raises:
        OSError: It is not, or cannot be read.
    """
    check_regular(path, limit)
    with open(path, "rb") as file:  # noqa: PTH123 (see above)
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the content of a text file in UTF-8, which is a regular one; all ends of lines become `\\n`.

    Raises:
        OSError: It is not, or cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    check_regular(path, MAX_BYTES)
    return Path(path).read_text(encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value in a JSON file.

    Raises:
        OSError: It is no regular file, or cannot be read.
        ValueError: It is not JSON, or what Python cannot hold.
    """
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: The text is not JSON or not UTF-8, is nested too deeply, or has a number of more than `MAX_DIGITS`.
    """
    if isinstance(text, bytes):  # as json.loads
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str | bytes) -> list[Any]:
    """Parse the documents of a YAML text: mappings, lists and plain values.

    Raises:
        ValueError: The text is too long, not YAML, is nested too deeply, has a number of too many digits, contains itself by an
            alias, or more than `MAX_NODES` values.
    """
    import yaml

    check_length(text)
    try:
        loader = yaml.SafeLoader(text)
        documents = []
        while loader.check_node():
            node = loader.get_node()
            check_aliases(node)
            documents.append(loader.construct_document(node))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (AttributeError, KeyError, TypeError) as error:  # of `!!bool x` and `!!timestamp x`
        raise ValueError(f"a value does not fit its tag: {error}") from error
    return documents


def check_length(text: str | bytes) -> None:
    """Check that a YAML text can be parsed in seconds.

    Raises:
        ValueError: It is longer than `MAX_YAML`.
    """
    if len(text) > MAX_YAML:
        raise ValueError(f"{len(text):,} characters; at most {MAX_YAML:,} are read")


def check_aliases(node: Any) -> None:
    """Check that aliases neither contain themselves nor stand for too much, and that numbers are not too long.

    Args:
        node: A node that PyYAML or ruamel.yaml composed; None for an empty document.

    Raises:
        ValueError: They do.
    """
    sizes: dict[int, int | None] = {}  # by the node's id; None while its children are counted

    def count(parent: Any) -> int:
        key = id(parent)
        if key in sizes:
            size = sizes[key]
            if size is None:
                raise ValueError(f"line {parent.start_mark.line + 1}: an alias contains itself")
            return size
        if isinstance(parent.value, str):
            if parent.tag == "tag:yaml.org,2002:int" and len(parent.value) > MAX_DIGITS:
                raise ValueError(f"line {parent.start_mark.line + 1}: a number has more than {MAX_DIGITS} digits")
            return 1
        sizes[key] = None
        children = (child for item in parent.value for child in (item if isinstance(item, tuple) else (item,)))
        total = 1 + sum(count(child) for child in children)
        if total > MAX_NODES:
            raise ValueError(f"line {parent.start_mark.line + 1}: more than {MAX_NODES:,} values")
        sizes[key] = total
        return total

    if node is not None:
        count(node)
