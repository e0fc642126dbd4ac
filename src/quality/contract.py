"""Data contracts: reading, validation, and the SQL condition of the rows that violate each check."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from config import parsing, tasks
from config.errors import InputError
from datamodules.storage import cache
from quality import soda

FORMAT = 2  # part of the cache key: raise it when checks are read differently
KINDS = ("schema", "value", "distribution", "diversity", "privacy", "volume")
MAX_CHECKS = 2_000
SCHEMA_FILE = "contracts/soda_data_contract_json_schema_1_0_0.json"
TABLE = "data/main/facts"
_VARIABLE = re.compile(r"\$\{\s*[A-Za-z]+\.")  # Soda replaces ${env.HF_TOKEN} by its value


@dataclass(frozen=True)
class Check:
    """One check of a contract.

    Attributes:
        path: Soda's name of its position, such as columns.id.checks.missing.
        name: description for people.
        kind: one of `KINDS`.
        type: Soda's: missing, invalid, duplicate, aggregate, metric, failed_rows, row_count, schema.
        columns: columns to display for the rows that violate it.
        rows: SQL condition of the rows that violate it; "" if single rows do not.
        filtered: whether it applies to some rows only.
    """

    path: str
    name: str
    kind: str
    type: str
    columns: tuple[str, ...]
    rows: str
    filtered: bool


@dataclass(frozen=True)
class Contract:
    """A contract that is valid by Soda's own schema.

    Attributes:
        name: stem of its file.
        text: YAML.
        checks: all checks.
        digest: SHA-256 (hex) of the text.
    """

    name: str
    text: str
    checks: list[Check]
    digest: str


def read(name: str, root: Path) -> Contract:
    """Read a shipped contract or a file. Each text is validated once.

    Args:
        name: name of a shipped contract, or path of a file.
        root: folder of the cache.

    Raises:
        InputError: there is no such contract, or it is invalid.
    """
    path = _contract_path(name)
    try:
        text = parsing.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(
            sorted({file.stem for folder in tasks.contract_folders() for file in folder.glob("*.yaml")})
        )
        reason = getattr(error, "strerror", None) or str(error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else reason
        raise InputError(
            f"cannot read the data contract {name}: {reason}; the shipped contracts are {shipped}"
        ) from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    key = {"format": FORMAT, "digest": digest, "versions": soda.versions()}

    def build(folder: Path) -> None:
        checks = [asdict(check) for check in parse(text, path.stem, str(path)).checks]
        (folder / "checks.json").write_text(json.dumps(checks), encoding="utf-8")

    def read_checks(folder: Path) -> list[Check]:
        rows = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
        return [Check(**{**row, "columns": tuple(row["columns"])}) for row in rows]

    checks = read_checks(cache.entry(root, "contracts", key, build, check=read_checks))
    return Contract(path.stem, text, checks, digest)


def _contract_path(name: str) -> Path:
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    paths = [folder / f"{name}.yaml" for folder in tasks.contract_folders()]
    return next((path for path in paths if path.is_file()), paths[0])


def parse(text: str, name: str, source: str) -> Contract:
    """Parse and validate the text of a contract.

    Args:
        text: YAML.
        name: name of the contract.
        source: path of its file, for messages.

    Raises:
        InputError: it is not YAML, not a contract by Soda's schema, has no columns or no checks, or has keys without effect.
    """
    value = _parse_yaml(text, source)
    if not isinstance(value, dict):
        raise InputError(f"{source} is not a data contract: expected a mapping with dataset, columns and checks")
    if (count := _count_checks(value)) > MAX_CHECKS:  # validation takes a millisecond per check
        raise InputError(f"{source} has {count:,} checks; at most {MAX_CHECKS:,} are allowed")
    _validate(value, source)
    checks = [_make_check(*check, value.get("filter")) for check in _iter_checks(value)]
    if not checks:
        raise InputError(f"{source} has no checks: add checks to columns, or to the contract")
    for attribute in ("path", "name"):
        values = [getattr(check, attribute) for check in checks]
        if repeated := sorted({value for value in values if values.count(value) > 1}):
            raise InputError(
                f"{source}: {repeated[0]} twice; checks of one type and column need a qualifier, and names must be unique"
            )
    for check in checks:
        if check.kind not in KINDS:
            raise InputError(
                f"{source}: {check.path} is of the kind {check.kind!r}; attributes.kind must be one of {', '.join(KINDS)}"
            )
    return Contract(name, text, checks, hashlib.sha256(text.encode()).hexdigest())


def _parse_yaml(text: str, source: str) -> Any:
    """Parse YAML 1.2 as Soda does: `yes` is a string, 0700 is seven hundred, and keys are unique."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        parsing.check_length(text)
        parsing.check_aliases(YAML(typ="safe", pure=True).compose(text))
        document = YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise InputError(f"{source} is not YAML: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{source} is not YAML: {error}") from error
    except YAMLError as error:
        message = str(error).partition("To suppress this check")[0]  # advice to programmers
        raise InputError(f"{source} is not YAML: {' '.join(message.split())}") from error

    def check_keys(node: Any) -> None:
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    raise InputError(f"{source}: the key {key!r} must be a string")
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            check_keys(child)

    check_keys(document)
    return document


def _validate(value: dict[str, Any], source: str) -> None:
    """Refuse what Soda ignores: Soda 4.28 ships a JSON schema and does not use it, so misspelt keys have no effect."""
    import jsonschema

    errors = sorted(jsonschema.Draft202012Validator(_schema()).iter_errors(value), key=lambda error: list(error.path))
    if errors:
        path, message = _deepest_error(errors[0])
        raise InputError(f"{source}: {path or 'the whole file'}: {message}")
    column_keys = {
        name for part in _schema()["properties"]["columns"]["items"]["allOf"] for name in part.get("properties", {})
    }
    for column in value["columns"]:  # the schema allows any key here, and Soda ignores unknown ones
        if unknown := sorted(set(column) - column_keys):
            allowed = ", ".join(sorted(column_keys))
            raise InputError(
                f"{source}: column {column['name']}: {unknown[0]} is not a key of a column; allowed: {allowed}"
            )
    if value.get("variables") or "${var." in (text := json.dumps(value, default=str)):
        raise InputError(f"{source}: variables have no effect in thresholds; write their values")
    if reference := _VARIABLE.search(text):
        raise InputError(f"{source}: {reference[0]}...: a contract does not read the environment; write the value")
    if value.get("dataset") != TABLE:
        raise InputError(f"{source}: dataset is {value.get('dataset')!r}; it must be {TABLE}, the table of facts")
    if value.get("scopes"):
        raise InputError(f"{source}: scopes need Soda's extensions; use filter: in each check")
    if not value["columns"]:
        raise InputError(f"{source}: columns is empty")
    for path, _, body in _iter_checks(value):
        if "scope" in body:
            raise InputError(f"{source}: {path}: scope needs Soda's extensions; use filter:")
        if "query" in body and ("filter" in body or value.get("filter")):
            raise InputError(f"{source}: {path}: a filter has no effect on a query; write it into the query")
        attributes = body.get("attributes") or {}
        columns = attributes.get("show", [])
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise InputError(f"{source}: {path}: attributes.show must be a list of columns")
        if not isinstance(attributes.get("rows", ""), str):
            raise InputError(f"{source}: {path}: attributes.rows must be a condition in SQL")


@lru_cache
def _schema() -> Any:
    """Return Soda's own schema, with the filters and attributes of metric and failed_rows, which Soda reads."""
    spec = find_spec("soda_core")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise InputError(soda.INSTALL_HINT)
    text = (Path(spec.submodule_search_locations[0]) / SCHEMA_FILE).read_text(encoding="utf-8")

    def add_keys(mapping: dict[str, Any]) -> dict[str, Any]:
        for check_type in ("metric", "failed_rows"):
            for form in mapping[check_type].get("oneOf", []) if isinstance(mapping.get(check_type), dict) else []:
                form["properties"] |= {"filter": {"type": "string"}, "attributes": {"type": "object"}}
        return mapping

    return json.loads(text, object_hook=add_keys)


def _deepest_error(error: Any) -> tuple[str, str]:
    """Return path and message of an error; of alternatives, those of the one that failed deepest in the document."""
    while error.context:
        error = max(error.context, key=lambda cause: (len(cause.absolute_path), cause.validator != "type"))
    path = error.json_path.removeprefix("$").removeprefix(".")
    return path, error.message if len(error.message) < 300 else error.message[:300] + " ..."


def _iter_checks(value: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Yield path without qualifier, columns and body of each check of a contract."""
    for check in value.get("checks") or []:
        for check_type, body in check.items():
            body = body or {}
            columns = body.get("columns") or ([body["column"]] if body.get("column") else [])
            yield f"checks.{check_type}", tuple(columns), body
    for column in value["columns"]:
        for check in column.get("checks") or []:
            for check_type, body in check.items():
                yield f"columns.{column['name']}.checks.{check_type}", (column["name"],), body or {}


def _count_checks(value: dict[str, Any]) -> int:
    """Return the number of checks of what may not be a contract."""
    columns = value.get("columns")
    lists = [
        part.get("checks")
        for part in (value, *(columns if isinstance(columns, list) else ()))
        if isinstance(part, dict)
    ]
    return sum(len(part) for part in lists if isinstance(part, list))


def _make_check(path: str, columns: tuple[str, ...], body: dict[str, Any], contract_filter: Any) -> Check:
    check_type = path.rpartition(".")[2]
    if body.get("qualifier") is not None:
        path += f".{body['qualifier']}"
    attributes = body.get("attributes") or {}
    kind = attributes.get("kind") or {"schema": "schema", "row_count": "volume"}.get(check_type, "value")
    filters = [condition for condition in (body.get("filter"), contract_filter) if condition]
    rows = attributes.get("rows") or _row_condition(check_type, body, columns, filters)
    if rows and filters:
        rows = " and ".join(f"({condition})" for condition in [*filters, rows])
    display_columns = tuple(attributes.get("show") or columns)
    return Check(path, body.get("name") or path, kind, check_type, display_columns, rows, bool(filters))


def _row_condition(check_type: str, body: dict[str, Any], columns: tuple[str, ...], filters: Sequence[str]) -> str:
    """Return the SQL condition of the rows that violate a check; "" if single rows do not."""
    if check_type == "failed_rows":
        return str(body.get("expression") or "")
    if not columns:
        return ""
    column = f'"{columns[0]}"'
    if check_type == "duplicate":
        names = ", ".join(f'"{name}"' for name in columns)
        filtered = f"where {' and '.join(f'({condition})' for condition in filters)}" if filters else ""
        return f"({names}) in (select ({names}) from facts {filtered} group by {names} having count(*) > 1)"
    missing = [f"{column} is null", *_membership(column, "in", body.get("missing_values"))]
    missing += [_regex_match(column, body["missing_format"])] if body.get("missing_format") else []
    if check_type == "missing":
        return " or ".join(missing)
    if check_type == "invalid" and (invalid := list(_invalid_conditions(column, body))):
        return f"not ({' or '.join(missing)}) and ({' or '.join(invalid)})"
    return ""


def _invalid_conditions(column: str, body: dict[str, Any]) -> Iterator[str]:
    yield from _membership(column, "not in", body.get("valid_values"))
    yield from _membership(column, "in", body.get("invalid_values"))
    for key, condition in (
        ("valid_min", f"{column} < {{}}"),
        ("valid_max", f"{column} > {{}}"),
        ("valid_length", f"length({column}) <> {{}}"),
        ("valid_min_length", f"length({column}) < {{}}"),
        ("valid_max_length", f"length({column}) > {{}}"),
    ):
        if body.get(key) is not None:
            yield condition.format(body[key])
    if body.get("valid_format"):
        yield f"not {_regex_match(column, body['valid_format'])}"
    if body.get("invalid_format"):
        yield _regex_match(column, body["invalid_format"])
    if reference := body.get("valid_reference_data"):
        table = ".".join(reference["dataset"].split("/")[1:])
        key = f'"{reference["column"]}"'
        yield f"{column} not in (select {key} from {table} where {key} is not null)"


def _membership(column: str, operator: str, values: Any) -> list[str]:
    return [f"{column} {operator} ({', '.join(_sql_literal(value) for value in values)})"] if values else []


def _regex_match(column: str, form: dict[str, str]) -> str:
    return f"regexp_matches({column}, {_sql_literal(form['regex'])})"


def _sql_literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"
