"""A data contract as text: what it checks, and which rows break each check."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from config import tasks
from config.errors import InputError
from datamodules.storage import cache
from quality import soda

FORMAT = 1  # part of the cache's key: raise it when checks are read in another way
SHIPPED = tasks.CONF / "quality" / "contracts"
KINDS = ("schema", "value", "distribution", "diversity", "privacy", "volume")
SCHEMA_FILE = "contracts/soda_data_contract_json_schema_1_0_0.json"
TABLE = "data/main/facts"


@dataclass(frozen=True)
class Check:
    """One check of a contract.

    Attributes:
        path: where it stands, as Soda names it: columns.id.checks.missing.
        name: what it says, for people.
        kind: one of `KINDS`.
        type: Soda's: missing, invalid, duplicate, aggregate, metric, failed_rows, row_count, schema.
        columns: that it is about.
        filtered: whether it looks at some rows only.
        rows: SQL condition that holds for the rows that break it; "" where single rows do not.
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
    """A contract that Soda's own schema accepts.

    Attributes:
        name: of its file.
        text: YAML.
        checks: all of them.
        digest: SHA-256 (hex) of the text.
    """

    name: str
    text: str
    checks: list[Check]
    digest: str


def read(named: str, root: Path) -> Contract:
    """A shipped contract by its name, or a file; read as YAML and validated once for each text.

    Args:
        named: the name, or the file's path.
        root: of the cache.

    Raises:
        InputError: there is none, or it is none that could be broken: not Soda's language, no columns, no checks.
    """
    path = _path(named)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(sorted({file.stem for folder in _folders() for file in folder.glob("*.yaml")}))
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"cannot read the data contract {named}: {why}; shipped ones are {shipped}") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    key = {"format": FORMAT, "digest": digest, "versions": soda.versions()}

    def build(folder: Path) -> None:
        checks = [asdict(each) for each in parse(text, path.stem, str(path)).checks]
        (folder / "checks.json").write_text(json.dumps(checks), encoding="utf-8")

    remembered = json.loads((cache.entry(root, "contracts", key, build) / "checks.json").read_text(encoding="utf-8"))
    checks = [Check(**{**each, "columns": tuple(each["columns"])}) for each in remembered]
    return Contract(path.stem, text, checks, digest)


def _folders() -> list[Path]:
    """The folders with contracts: ours, and that of a configuration of the user's own."""
    return [folder / "quality" / "contracts" for folder in tasks.conf_folders()]


def _path(named: str) -> Path:
    if "/" in named or named.endswith((".yaml", ".yml")):
        return Path(named)
    paths = [folder / f"{named}.yaml" for folder in _folders()]
    return next((path for path in paths if path.is_file()), paths[0])


def parse(text: str, name: str, place: str) -> Contract:
    """A contract from its text.

    Raises:
        InputError: see `read`.
    """
    value = _loaded(text, place)
    if not isinstance(value, dict):
        raise InputError(f"{place} is no data contract: expected a mapping with dataset, columns and checks")
    _refuse_what_soda_would_overlook(value, place)
    checks = [*_dataset_checks(value), *_column_checks(value)]
    if not checks:
        raise InputError(f"{place} has no checks: a contract without any is never broken")
    for what in ("path", "name"):
        seen = [getattr(check, what) for check in checks]
        if twice := sorted({each for each in seen if seen.count(each) > 1}):
            raise InputError(
                f"{place}: {twice[0]} twice; give checks of one type and column a qualifier, and all a name"
            )
    wrong = [check for check in checks if check.kind not in KINDS]
    if wrong:
        raise InputError(
            f"{place}: {wrong[0].path} is of the kind {wrong[0].kind!r}; attributes.kind is one of {', '.join(KINDS)}"
        )
    return Contract(name, text, checks, hashlib.sha256(text.encode()).hexdigest())


def _loaded(text: str, place: str) -> Any:
    """As Soda reads it: in YAML 1.2, where `yes` is a word and 0700 is seven hundred, and no key is there twice."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        said = str(error).partition("To suppress this check")[0]  # advice to programmers
        raise InputError(f"{place} is not YAML: {' '.join(said.split())}") from error

    def check(inside: Any) -> None:
        for key in inside if isinstance(inside, dict) else ():
            if not isinstance(key, str):
                raise InputError(f"{place}: {key!r} is a key: a key must be a word")
        for each in inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list) else ():
            check(each)

    check(value)
    return value


def _refuse_what_soda_would_overlook(value: dict[str, Any], place: str) -> None:
    """Soda 4.28 ships a JSON schema of its language and does not use it: a misspelt key takes a default there."""
    import jsonschema

    errors = sorted(jsonschema.Draft202012Validator(_schema()).iter_errors(value), key=lambda each: list(each.path))
    if errors:
        where, why = _deepest(errors[0])
        raise InputError(f"{place}: {where or 'the whole file'}: {why}")
    known = {
        name for part in _schema()["properties"]["columns"]["items"]["allOf"] for name in part.get("properties", {})
    }
    for column in value["columns"]:  # the schema leaves columns open, and Soda reads over what it does not know
        if unknown := sorted(set(column) - known):
            raise InputError(
                f"{place}: column {column['name']}: {unknown[0]} is no key of a column; known are {', '.join(sorted(known))}"
            )
    if value.get("variables") or "${var." in json.dumps(value, default=str):
        raise InputError(f"{place}: variables have no effect in thresholds, and none here: write the values")
    if value.get("dataset") != TABLE:
        raise InputError(f"{place}: dataset is {value.get('dataset')!r}; here it is {TABLE}, the table of facts")
    for column in value["columns"]:
        for each in column.get("checks") or []:
            _refuse_unread(each, bool(value.get("filter")), f"{place}: column {column['name']}")
    for each in value.get("checks") or []:
        _refuse_unread(each, bool(value.get("filter")), place)
    if value.get("scopes"):
        raise InputError(f"{place}: scopes are only in Soda's extensions; use filter: on each check")
    if not value["columns"]:
        raise InputError(f"{place}: columns is empty")


def _refuse_unread(check: dict[str, Any], filtered: bool, place: str) -> None:
    """Keys that Soda's schema has, and that do nothing, or not what they say."""
    for type_, body in check.items():
        if isinstance(body, dict) and "scope" in body:
            raise InputError(f"{place}: {type_}: scope is only in Soda's extensions; use filter:")
        if isinstance(body, dict) and "query" in body and ("filter" in body or filtered):
            raise InputError(f"{place}: {type_}: a filter has no effect on a query; write it into the query")
        attributes = (body or {}).get("attributes") or {}
        shown = attributes.get("show", [])
        if not isinstance(shown, list) or not all(isinstance(each, str) for each in shown):
            raise InputError(f"{place}: {type_}: attributes.show must be a list of columns")
        if not isinstance(attributes.get("rows", ""), str):
            raise InputError(f"{place}: {type_}: attributes.rows must be a condition in SQL")


@lru_cache
def _schema() -> Any:
    """Soda's own schema, with what it lacks: Soda does read a filter and attributes of metric and failed_rows."""
    spec = find_spec("soda_core")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise InputError(soda.INSTALL_HINT)
    text = (Path(spec.submodule_search_locations[0]) / SCHEMA_FILE).read_text(encoding="utf-8")

    def added(mapping: dict[str, Any]) -> dict[str, Any]:
        for type_ in ("metric", "failed_rows"):
            for each in mapping[type_].get("oneOf", []) if isinstance(mapping.get(type_), dict) else []:
                each["properties"] |= {"filter": {"type": "string"}, "attributes": {"type": "object"}}
        return mapping

    return json.loads(text, object_hook=added)


def _deepest(error: Any) -> tuple[str, str]:
    """Of an error that has several possible causes, the one that got furthest, and its place."""
    found = error
    while found.context:
        # Of the alternatives, the one that failed deepest inside is the one that was meant.
        found = max(found.context, key=lambda each: (len(each.absolute_path), each.validator != "type"))
    place = ""
    for part in found.absolute_path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip("."), found.message if len(found.message) < 300 else found.message[:300] + " ..."


def _dataset_checks(value: dict[str, Any]) -> Iterator[Check]:
    for each in value.get("checks") or []:
        for type_, body in each.items():
            body = body or {}
            columns = tuple(body.get("columns") or ([body["column"]] if body.get("column") else []))
            yield _check("checks", type_, body, columns, value)


def _column_checks(value: dict[str, Any]) -> Iterator[Check]:
    for column in value["columns"]:
        for each in column.get("checks") or []:
            for type_, body in each.items():
                yield _check(f"columns.{column['name']}.checks", type_, body or {}, (column["name"],), value)


def _check(place: str, type_: str, body: dict[str, Any], columns: tuple[str, ...], value: dict[str, Any]) -> Check:
    qualifier = body.get("qualifier")
    path = f"{place}.{type_}" + (f".{qualifier}" if qualifier is not None else "")
    attributes = body.get("attributes") or {}
    kind = attributes.get("kind") or {"schema": "schema", "row_count": "volume"}.get(type_, "value")
    filters = [each for each in (body.get("filter"), value.get("filter")) if each]
    rows = attributes.get("rows") or _rows(type_, body, columns, filters)
    if rows and filters:
        rows = " and ".join(f"({each})" for each in [*filters, rows])
    shown = tuple(attributes.get("show") or columns)
    return Check(path, body.get("name") or path, kind, type_, shown, rows, bool(filters))


def _rows(type_: str, body: dict[str, Any], columns: tuple[str, ...], filters: Sequence[str]) -> str:
    """The condition that rows meet that break a check, from its own words."""
    if type_ == "failed_rows":
        return str(body.get("expression") or "")
    if not columns:
        return ""
    column = f'"{columns[0]}"'
    missing = [f"{column} is null", *_listed(column, body.get("missing_values"), "in")]
    missing += [_matches(column, body["missing_format"])] if body.get("missing_format") else []
    if type_ == "missing":
        return " or ".join(missing)
    if type_ == "duplicate":
        names = ", ".join(f'"{each}"' for each in columns)
        inside = f"where {' and '.join(f'({each})' for each in filters)}" if filters else ""
        return f"({names}) in (select ({names}) from facts {inside} group by {names} having count(*) > 1)"
    if type_ == "invalid":
        wrong = list(_invalid(column, body))
        return f"not ({' or '.join(missing)}) and ({' or '.join(wrong)})" if wrong else ""
    return ""


def _invalid(column: str, body: dict[str, Any]) -> Iterator[str]:
    yield from _listed(column, body.get("valid_values"), "not in")
    yield from _listed(column, body.get("invalid_values"), "in")
    for key, what in (
        ("valid_min", f"{column} < {{}}"),
        ("valid_max", f"{column} > {{}}"),
        ("valid_length", f"length({column}) <> {{}}"),
        ("valid_min_length", f"length({column}) < {{}}"),
        ("valid_max_length", f"length({column}) > {{}}"),
    ):
        if body.get(key) is not None:
            yield what.format(body[key])
    if body.get("valid_format"):
        yield f"not {_matches(column, body['valid_format'])}"
    if body.get("invalid_format"):
        yield _matches(column, body["invalid_format"])
    if reference := body.get("valid_reference_data"):
        table = ".".join(reference["dataset"].split("/")[1:])
        there = f'"{reference["column"]}"'
        yield f"{column} not in (select {there} from {table} where {there} is not null)"


def _listed(column: str, values: Any, how: str) -> list[str]:
    return [f"{column} {how} ({', '.join(_literal(each) for each in values)})"] if values else []


def _matches(column: str, form: dict[str, str]) -> str:
    return f"regexp_matches({column}, {_literal(form['regex'])})"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"
