"""`python -m quality init`: a first contract from data as it is today."""

import argparse
import io
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from config.errors import InputError
from datamodules import factory
from quality import contract, facts, profile, tables
from quality.description import describe
from quality.settings import read_settings
from runs.masking import mask_command

KEPT = 0.8  # of today's rows, before somebody is told


def command(args: argparse.Namespace) -> int:
    """Writes the contract.

    Returns:
        0.
    """
    path = Path(args.output) if args.output else None
    if path is not None and (path.exists() or not path.absolute().parent.is_dir()):
        why = (
            "is there already: choose another name, or remove it" if path.exists() else "has no folder to be written to"
        )
        raise InputError(f"{path} {why}")
    config = factory.compose_config(args.overrides, any_model=True)
    settings = read_settings(config)
    data = factory.build(config.data)
    base = contract.read(settings.contract, data.root)
    table = facts.load_facts(data, settings.task)
    with tempfile.TemporaryDirectory() as spill:
        connection = tables.connect(table.path, Path(spill))
        statistics = profile.write(Path(spill), connection, describe(settings.task))
        connection.close()
    text = draft_contract(base.text, statistics, args.overrides)
    contract.parse(text, "new", args.output or "the new contract")
    if path is None:
        print(text, end="")
        return 0
    path.write_text(text, encoding="utf-8")
    overrides = shlex.join(mask_command(args.overrides))
    print(f"isotrain: wrote {path}; python -m quality {overrides} quality.contract={path}", file=sys.stderr)
    return 0


def draft_contract(base: str, seen: dict[str, Any], overrides: list[str]) -> str:
    """A contract's text with today's ranges added as warnings, its comments kept.

    Args:
        base: a shipped contract's text.
        seen: of `profile.write`.
        overrides: that named the data, for the head.
    """
    from ruamel.yaml import YAML  # keeps comments, and is Soda's own

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    value = yaml.load(base)
    for split, rows in seen["rows"].items():
        value.setdefault("checks", []).append(
            _flow(
                yaml,
                f"""row_count:
  name: at least {KEPT:.0%} of today's {split} rows
  qualifier: today_{split}
  filter: split = '{split}' and number is not null
  threshold: {{must_be_greater_than_or_equal: {int(KEPT * rows)}, level: warn}}
""",
            )
        )
    for column in value["columns"]:
        known = [each.get("invalid") or {} for each in column.get("checks", [])]
        if any("valid_values" in each or "valid_max" in each for each in known):
            continue  # what is valid there does not depend on today
        about = seen["columns"].get(column["name"])
        if about is not None and (check := _today(column["name"], about)):
            column.setdefault("checks", []).append(_flow(yaml, check))
    stream = io.StringIO()
    yaml.dump(value, stream)
    text = stream.getvalue()
    body = text[text.index("dataset:") :]
    given = shlex.join(mask_command(overrides))
    return (
        f"# Made by: python -m quality init {given}\n"
        f"#   python -m quality {given} quality.contract=<this file>    verify it\n"
        "# Checks with the qualifier `today` are the ranges of the data as it was then; they warn. Make those that matter fail\n"
        "# (level: fail), and remove those that do not. docs/quality.md describes the tables and their columns.\n"
        + body
    )


def _flow(yaml: Any, text: str) -> Any:
    return yaml.load(text)


def _today(name: str, about: dict[str, Any]) -> str:
    """A check of one column's range today, as YAML; nothing for a column that is the same everywhere or nowhere there."""
    head = f"invalid:\n  name: {name} is as it was\n  qualifier: today\n"
    tail = "  threshold: {must_be: 0, level: warn}\n  attributes: {kind: distribution}\n"
    if about["kind"] == "number":
        numbers = [each for each in about["numbers"].values() if each["min"] is not None]
        if not numbers:
            return ""
        low, high = min(each["min"] for each in numbers), max(each["max"] for each in numbers)
        return f"{head}  valid_min: {_lower(low)}\n  valid_max: {_upper(high)}\n{tail}"
    values = sorted({value for each in about["counts"].values() for value in each})
    if about["kind"] == "category" and 0 < len(values) <= 50 and "other" not in values:
        quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        return f"{head}  valid_values: [{quoted}]\n{tail}"
    return ""


def _lower(value: float) -> str:
    """A number that is no more than a value, in few digits: FLOAT and DOUBLE round differently."""
    return str(int(value)) if float(value).is_integer() else f"{value - abs(value) * 1e-4:.6g}"


def _upper(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value + abs(value) * 1e-4:.6g}"
