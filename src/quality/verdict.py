"""The verdict on a data set: the result of each check of its contract."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from config import terminal
from config.numbers import format_count
from config.parsing import read_json

FILE = "verdict.json"
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name, path, kind, type: of the check, as in `quality.contract.Check`.
        outcome: passed, warned, failed or unevaluated.
        value: the value that was compared with the threshold; None if there is none.
        threshold: the required value, in words.
        rows: number of rows that violate it; None if single rows do not.
        examples: the first of these rows.
        columns: columns of the examples to display.
        message: why it is unevaluated, or why its rows are unknown; `said` in the file.
    """

    name: str
    path: str
    kind: str
    type: str
    outcome: str
    value: float | None = None
    threshold: str = ""
    rows: int | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate.

    Attributes:
        status: passed, warned, failed, or inconclusive if a check was not evaluated.
        contract: name of the contract.
        digest: of the contract's text.
        fingerprint: of the facts.
        task: of the data set.
        checks: all results, in the contract's order.
        errors: Soda's error messages.
        counts: examples by split and class.
        versions: of Soda and DuckDB.
        when: UTC.
    """

    status: str
    contract: str
    digest: str
    fingerprint: str
    task: str
    checks: list[CheckResult]
    errors: str
    counts: list[dict[str, Any]]
    versions: dict[str, str]
    when: str

    @property
    def accepted(self) -> bool:
        """Whether a model may be trained on the data."""
        return self.status in ("passed", "warned")

    def by(self, outcome: str) -> list[CheckResult]:
        """Return the checks with an outcome."""
        return [check for check in self.checks if check.outcome == outcome]


def write(path: Path, verdict: Verdict) -> None:
    """Write a verdict to a JSON file."""

    def rename(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {"said" if name == "message" else name: value for name, value in items}

    text = json.dumps(asdict(verdict, dict_factory=rename), ensure_ascii=False, default=str)
    path.write_text(text, encoding="utf-8")


def read(path: Path) -> Verdict:
    """Read a verdict from its file."""
    fields = read_json(path)
    checks = [
        CheckResult(message=check.pop("said"), **{**check, "columns": tuple(check["columns"])})
        for check in fields.pop("checks")
    ]
    return Verdict(checks=checks, **fields)


def summarise_verdict(verdict: Verdict) -> str:
    """Summarise a verdict in one line: its status, and the first checks that failed or could not be evaluated."""
    head = f"the data contract {verdict.contract}"
    if verdict.accepted:
        warnings = f", {len(verdict.by('warned'))} warned" if verdict.status == "warned" else ""
        return f"{head}: {verdict.status}, {format_count(len(verdict.checks), 'check')}{warnings}"
    failed, unevaluated = verdict.by("failed"), verdict.by("unevaluated")
    parts = []
    if failed:
        more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
        checks = "; ".join(_describe_check(check) for check in failed[:4])
        parts.append(f"{len(failed)} of {len(verdict.checks)} checks failed: {checks}{more}")
    if unevaluated or not failed:
        names = "; ".join(check.name for check in unevaluated[:3]) or "Soda reports an error"
        error = f": {verdict.errors.strip().splitlines()[0][:200]}" if verdict.errors else ""
        parts.append(f"{len(unevaluated)} could not be evaluated ({names}{error})")
    return f"{head} {'is violated' if failed else 'could not be verified'}: " + "; ".join(parts)


def _describe_check(check: CheckResult) -> str:
    if check.rows:
        example = terminal.make_printable(check.examples[0]["id"])
        return f"{check.name} ({check.rows} row{'s' * (check.rows != 1)}, e.g. {example})"
    return f"{check.name} ({'none' if check.value is None else f'{check.value:g}'}, must be {check.threshold})"
