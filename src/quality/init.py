"""`python -m quality init`: a first contract from existing data."""

import argparse
import io
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from config import files
from config.errors import InputError
from config.masking import mask_command
from datamodules import factory
from quality import contract, profile, tables
from quality.description import describe
from quality.facts import load_facts

MIN_SHARE = 0.8  # of the current rows; fewer rows warn
MAX_CATEGORIES = 50  # values of a category that is checked


def command(args: argparse.Namespace) -> int:
    """Write the contract.

    Returns:
        0.
    """
    path = Path(args.output) if args.output else None
    if path is not None and path.exists():
        raise InputError(f"{path} exists: choose another name, or remove it")
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: its folder does not exist")
    config = factory.compose_config(args.overrides, any_model=True)
    task = str(config.task.name)
    data = factory.build(config.data)
    base = contract.read(str(config.quality.contract), data.root)
    facts = load_facts(data, task)
    with tempfile.TemporaryDirectory() as spill, tables.connect(facts.path, Path(spill)) as connection:
        statistics = profile.write(Path(spill), connection, describe(task))
    text = draft_contract(base.text, statistics, args.overrides)
    contract.parse(text, "new", args.output or "the new contract")
    if path is None:
        print(text, end="")
        return 0
    files.write_text(path, text)
    overrides = shlex.join(mask_command(args.overrides))
    print(f"isotrain: wrote {path}; python -m quality {overrides} quality.contract={path}", file=sys.stderr)
    return 0


def draft_contract(base: str, statistics: dict[str, Any], overrides: list[str]) -> str:
    """Add the current ranges as warnings to the text of a contract, keeping its comments.

    Args:
        base: text of a shipped contract.
        statistics: of `profile.write`.
        overrides: overrides that name the data, for the comment at the top.
    """
    from ruamel.yaml import YAML  # keeps comments, and is a dependency of Soda

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(base)
    for split, rows in statistics["rows"].items():
        check = f"""row_count:
  name: at least {MIN_SHARE:.0%} of today's {split} rows
  qualifier: today_{split}
  filter: split = '{split}' and number is not null
  threshold: {{must_be_greater_than_or_equal: {int(MIN_SHARE * rows)}, level: warn}}
"""
        document.setdefault("checks", []).append(yaml.load(check))
    for column in document["columns"]:
        invalid_checks = [check.get("invalid") or {} for check in column.get("checks", [])]
        if any("valid_values" in check or "valid_max" in check for check in invalid_checks):
            continue  # the contract has a range for it
        summary = statistics["columns"].get(column["name"])
        if summary is not None and (check := _range_check(column["name"], summary)):
            column.setdefault("checks", []).append(yaml.load(check))
    stream = io.StringIO()
    yaml.dump(document, stream)
    text = stream.getvalue()
    arguments = shlex.join(mask_command(overrides))
    return (
        f"# Made by: python -m quality init {arguments}\n"
        f"#   python -m quality {arguments} quality.contract=<this file>    verify it\n"
        "# Checks with the qualifier `today` warn outside the ranges of the data when this file was made. Let those that matter\n"
        "# fail (level: fail), and remove the others. docs/quality.md describes the tables and their columns.\n"
        + text[text.index("dataset:") :]
    )


def _range_check(name: str, summary: dict[str, Any]) -> str:
    """Return a check of a column's current range as YAML; "" for a column without values or with too many."""
    head = f"invalid:\n  name: {name} is as it was\n  qualifier: today\n"
    tail = "  threshold: {must_be: 0, level: warn}\n  attributes: {kind: distribution}\n"
    if summary["kind"] == "number":
        splits = [numbers for numbers in summary["numbers"].values() if numbers["min"] is not None]
        if not splits:
            return ""
        low, high = min(numbers["min"] for numbers in splits), max(numbers["max"] for numbers in splits)
        return f"{head}  valid_min: {_round_out(low, -1)}\n  valid_max: {_round_out(high, 1)}\n{tail}"
    values = sorted({value for counts in summary["counts"].values() for value in counts})
    if summary["kind"] == "category" and 0 < len(values) <= MAX_CATEGORIES and "other" not in values:
        quoted = ", ".join(tables.sql_string(value) for value in values)  # as in YAML
        return f"{head}  valid_values: [{quoted}]\n{tail}"
    return ""


def _round_out(value: float, sign: int) -> str:
    """Write a limit in few digits, moved outwards because FLOAT and DOUBLE round differently."""
    return str(int(value)) if float(value).is_integer() else f"{value + sign * abs(value) * 1e-4:.6g}"
