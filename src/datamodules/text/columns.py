"""Names of the columns of tables of texts: `data.columns` of a configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from config import check
from config.errors import InputError
from config.messages import suggest_name
from config.ranges import Keys

T = TypeVar("T")


def parse(kind: type[T], settings: Mapping[str, Any] | None) -> T:
    """Make the names of columns of a configuration.

    Args:
        kind: a dataclass with the name of each field's column, such as `datamodules.text.records.Columns`.
        settings: names that differ from the defaults.

    Raises:
        InputError: an unknown field, or a name that is not text.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f"data.columns={settings}: must be a mapping of fields to names of columns")
    values = dict(settings or {})
    if problems := check.check_settings("data.columns", values, Keys(f"{kind.__module__}.{kind.__qualname__}")):
        raise InputError("; ".join(problems))
    return kind(**values)


def variant(columns: Any) -> str:
    """Return the part of fingerprints that stands for names of columns; "" for the default ones.

    Other columns of a file are other data.
    """
    if columns == type(columns)():
        return ""
    return "columns-" + "-".join(str(name) for name in asdict(columns).values())


def require(file: str, required: Iterable[str], names: Sequence[str], columns: Any) -> None:
    """Refuse a file that lacks a column.

    Args:
        file: for the message.
        required: names of columns.
        names: the file's columns.
        columns: the names of columns by field, for the message.

    Raises:
        InputError: a column is missing; the message lists the file's columns.
    """
    for name in required:
        if name not in names:
            raise InputError(f"{file}: {describe_missing('column', name, names, columns)}")


def describe_missing(kind: str, name: str, names: Iterable[Any], columns: Any) -> str:
    """Return the message for a column that a file or a row does not have.

    Args:
        kind: "column" of a file or "key" of a row.
        name: the missing one.
        names: those that there are.
        columns: the names of columns by field.
    """
    present = [str(other) for other in names]
    field = next((field for field, value in asdict(columns).items() if value == name), name)
    # Only a file's: one row without a key is a defect of that row.
    hint = f"; data.columns.{field}=NAME reads another column" if kind == "column" and present else ""
    return f"the {kind} {name!r} is missing; found {', '.join(present) or 'none'}{suggest_name(name, present)}{hint}"
