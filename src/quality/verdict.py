"""The verdict on a data set: its contract verified, once for each content, with the report beside it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datamodules.storage import cache
from quality import facts as tables_of_facts
from quality import profile, report, soda, tables
from quality.contract import Check, Contract
from quality.facts import SPLITS, Facts
from quality.hashes import hashed
from runs import terminal

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache's key: raise it when a verdict or its report changes
FILE = "verdict.json"
ROWS = "rows.jsonl"
WORST = ("failed", "inconclusive", "warned", "passed")
_OUTCOMES = {"PASSED": "passed", "WARN": "warned", "FAILED": "failed"}


@dataclass(frozen=True)
class Judged:
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
    checks: list[Judged]
    errors: str
    counts: list[dict[str, Any]]
    versions: dict[str, str]
    when: str

    @property
    def good(self) -> bool:
        """Whether a model may be trained on it."""
        return self.status in ("passed", "warned")

    def by(self, outcome: str) -> list[Judged]:
        """The checks with an outcome."""
        return [each for each in self.checks if each.outcome == outcome]


def of(data: Any, task: str, contract: Contract) -> tuple[Verdict, Path]:
    """The verdict on a data module's content, from the cache or made now.

    Args:
        data: a data module, nothing of it prepared yet.
        task: its task.
        contract: to verify.

    Returns:
        The verdict, and the folder of its report: verdict.json, rows.jsonl, report.md, report.html, profile.json,
        sample.parquet.

    Raises:
        Refused: files that cannot be read as a data set at all, or Soda is not installed.
    """
    versions = soda.versions()
    found = tables_of_facts.of(data, task)
    expected = {split: data.expected(split) for split in SPLITS}
    limits = [data.limit(split) for split in SPLITS]
    before = data.root / "quality" / f"{hashed(json.dumps([contract.name, data.place, limits])) % 2**64:016x}.json"
    previous = tables.remembered(before)
    key = {
        "format": FORMAT,
        "facts": found.fingerprint,
        "contract": [contract.name, contract.digest],
        "versions": versions,
        "expected": expected,
        "previous": None if previous == found.counts else previous or None,
    }

    def build(folder: Path) -> None:
        logger.info("verifying the data contract %s", contract.name)
        connection = tables.connect(found.path, folder / "spill")
        try:
            tables.add(connection, found, expected, previous)
            verdict = judged(contract, found, connection, versions, folder / ROWS)
            (folder / FILE).write_text(json.dumps(asdict(verdict), ensure_ascii=False, default=str), encoding="utf-8")
            seen = profile.write(folder, connection, task)
            report.write(folder, verdict, seen, data)
        finally:
            connection.close()

    folder = cache.entry(data.root, "verdicts", key, build)
    verdict = read(folder / FILE)
    if verdict.good and previous != verdict.counts:
        tables.remember(before, verdict.counts)
    return verdict, folder


def judged(contract: Contract, facts: Facts, connection: Any, versions: Mapping[str, str], rows: Path) -> Verdict:
    """Verifies a contract on a connection's tables.

    A verdict is good only when every check of the contract was evaluated, and none failed: Soda itself says that all is
    well with one that it could not evaluate.

    Args:
        contract: to verify.
        facts: what the table `facts` shows.
        connection: of `tables.connect`.
        versions: for the verdict.
        rows: file for all rows that break a check.
    """
    verified = soda.verify(contract.text, connection)
    outcomes = {each.path: each for each in verified.outcomes}
    strangers = sorted(set(outcomes) - {check.path for check in contract.checks})
    errors = [verified.errors] if verified.errors else []
    errors += [f"Soda evaluated {path}, which is not in the contract" for path in strangers]
    checks = []
    with rows.open("w", encoding="utf-8") as file:
        for check in contract.checks:
            found = outcomes.get(check.path)
            outcome = _OUTCOMES.get(found.outcome, "unevaluated") if found else "unevaluated"
            if found and check.filtered and found.details.get("check_rows_tested") == 0 and check.type != "row_count":
                checks.append(_judged(check, "unevaluated", found, said="its filter leaves no rows to look at"))
                continue
            if outcome == "passed":
                checks.append(_judged(check, outcome, found))
            else:
                checks.append(_judged(check, outcome, found, **_broken(check, connection, file)))
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = _status(verified.status, [each.outcome for each in checks], bool(errors))
    return Verdict(
        status, contract.name, contract.digest, facts.fingerprint, facts.task, checks, "\n".join(errors), facts.counts,
        dict(versions), when,
    )  # fmt: skip


def _status(said: str, outcomes: Sequence[str], errors: bool) -> str:
    if "failed" in outcomes:
        return "failed"
    if errors or "unevaluated" in outcomes or said not in ("PASSED", "WARNED"):
        return "inconclusive"
    return "warned" if "warned" in outcomes else "passed"


def _judged(check: Check, outcome: str, found: soda.Outcome | None, **more: Any) -> Judged:
    said = "" if found else "Soda did not evaluate it"
    return Judged(
        check.name,
        check.path,
        check.kind,
        check.type,
        outcome,
        found.value if found else None,
        found.threshold if found else "",
        **{"said": said, **more},
    )


def _broken(check: Check, connection: Any, file: Any) -> dict[str, Any]:
    """The rows that break a check: written to the file, counted, and the first ones returned."""
    import duckdb

    if not check.rows:
        return {}
    try:
        known = tables.columns(connection)
        shown = [name for name in check.columns if name in known]
        names = dict.fromkeys(["split", "number", "id", *shown])
        listed = ", ".join(f'"{name}"' for name in names)
        copies = "".join(f'"{name}", ' for name in shown if name.endswith(("_hash", "_group")))  # copies stand together
        connection.execute(f"select {listed} from facts where {check.rows} order by {copies}split, number, id")
        count, examples = 0, []
        while some := connection.fetchmany(1_000):
            for values in some:
                row = dict(zip(names, values, strict=True))
                if count < report.SHOWN:
                    examples.append(row)
                count += 1
                file.write(json.dumps({"check": check.name, **row}, ensure_ascii=False, default=str) + "\n")
        return {"rows": count, "examples": examples, "columns": tuple(shown)}
    except duckdb.Error as error:
        return {"said": f"its rows cannot be told: {str(error).splitlines()[0]}"}


def read(path: Path) -> Verdict:
    """A verdict from its file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    checks = [Judged(**{**each, "columns": tuple(each["columns"])}) for each in value.pop("checks")]
    return Verdict(checks=checks, **value)


def text(verdict: Verdict) -> str:
    """A verdict in one line: what is wrong, and how much of it."""
    if verdict.good:
        return f"the data contract {verdict.contract}: {verdict.status}, {len(verdict.checks)} checks" + (
            f", {len(verdict.by('warned'))} warn" if verdict.status == "warned" else ""
        )
    failed, unknown = verdict.by("failed"), verdict.by("unevaluated")
    parts = []
    if failed:
        parts.append(
            f"{len(failed)} of {len(verdict.checks)} checks failed: " + "; ".join(_short(each) for each in failed[:4])
        )
    if len(failed) > 4:
        parts[-1] += f"; and {len(failed) - 4} more"
    if unknown or not failed:
        names = "; ".join(each.name for each in unknown[:3]) or "Soda reports an error"
        first = verdict.errors.strip().splitlines()[0][:200] if verdict.errors else ""
        parts.append(f"{len(unknown)} could not be evaluated ({names}{': ' + first if first else ''})")
    broken = "is broken" if failed else "could not be verified"
    return f"the data contract {verdict.contract} {broken}: " + "; ".join(parts)


def _short(check: Judged) -> str:
    if check.rows:
        return f"{check.name} ({check.rows} row{'s' * (check.rows != 1)}, e.g. {terminal.printable(check.examples[0]['id'])})"
    return f"{check.name} ({'none' if check.value is None else f'{check.value:g}'}, must be {check.threshold})"
