"""A verdict on a data set: what became of each check of its contract."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import terminal

FILE = "verdict.json"
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class CheckResult:
    """One check and what became of it.

    Attributes:
        name, path, kind, type: of the check, as in `quality.contract.Check`.
        outcome: passed, warned, failed or unevaluated.
        value: that was compared; None if there is none.
        threshold: what it had to be.
        rows: how many rows break it; None where single rows do not.
        examples: the first of them.
        columns: of the examples that matter here.
        said: why it is unevaluated, or its rows cannot be told.
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
    said: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a gate decides by.

    Attributes:
        status: passed, warned, failed, or inconclusive: a check was not evaluated, so that nobody knows.
        contract: its name.
        digest: of its text.
        fingerprint: of the facts.
        task: of the data set.
        checks: all of them, in the contract's order.
        errors: Soda's.
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
    def good(self) -> bool:
        """Whether a model may be trained on it."""
        return self.status in ("passed", "warned")

    def by(self, outcome: str) -> list[CheckResult]:
        """The checks with an outcome."""
        return [check for check in self.checks if check.outcome == outcome]


def read(path: Path) -> Verdict:
    """A verdict from its file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    checks = [CheckResult(**{**check, "columns": tuple(check["columns"])}) for check in value.pop("checks")]
    return Verdict(checks=checks, **value)


def summarise_verdict(verdict: Verdict) -> str:
    """A verdict in one line: what is wrong, and how much of it."""
    if verdict.good:
        return f"the data contract {verdict.contract}: {verdict.status}, {len(verdict.checks)} checks" + (
            f", {len(verdict.by('warned'))} warn" if verdict.status == "warned" else ""
        )
    failed, unknown = verdict.by("failed"), verdict.by("unevaluated")
    parts = []
    if failed:
        parts.append(
            f"{len(failed)} of {len(verdict.checks)} checks failed: " + "; ".join(_short(check) for check in failed[:4])
        )
    if len(failed) > 4:
        parts[-1] += f"; and {len(failed) - 4} more"
    if unknown or not failed:
        names = "; ".join(check.name for check in unknown[:3]) or "Soda reports an error"
        first = verdict.errors.strip().splitlines()[0][:200] if verdict.errors else ""
        parts.append(f"{len(unknown)} could not be evaluated ({names}{': ' + first if first else ''})")
    broken = "is broken" if failed else "could not be verified"
    return f"the data contract {verdict.contract} {broken}: " + "; ".join(parts)


def _short(check: CheckResult) -> str:
    if check.rows:
        return f"{check.name} ({check.rows} row{'s' * (check.rows != 1)}, e.g. {terminal.make_printable(check.examples[0]['id'])})"
    return f"{check.name} ({'none' if check.value is None else f'{check.value:g}'}, must be {check.threshold})"
