"""Verifies a contract on tables: a verdict, and the rows that break each check."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quality import soda, tables
from quality.contract import Check, Contract
from quality.facts import Facts
from quality.verdict import CheckResult, Verdict

SHOWN = 25  # rows of a check that the verdict itself has
_OUTCOMES = {"PASSED": "passed", "WARN": "warned", "FAILED": "failed"}


def judge_contract(
    contract: Contract, facts: Facts, connection: Any, versions: Mapping[str, str], rows: Path
) -> Verdict:
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
    outcomes = {outcome.path: outcome for outcome in verified.outcomes}
    strangers = sorted(set(outcomes) - {check.path for check in contract.checks})
    errors = [verified.errors] if verified.errors else []
    errors += [f"Soda evaluated {path}, which is not in the contract" for path in strangers]
    checks = []
    with rows.open("w", encoding="utf-8") as file:
        for check in contract.checks:
            result = outcomes.get(check.path)
            outcome = _OUTCOMES.get(result.outcome, "unevaluated") if result else "unevaluated"
            tested = result.details.get("check_rows_tested") if result else None
            if check.filtered and tested == 0 and check.type != "row_count":
                checks.append(_judged(check, "unevaluated", result, said="its filter leaves no rows to look at"))
                continue
            broken = {} if outcome == "passed" else _broken(check, connection, file)
            checks.append(_judged(check, outcome, result, **broken))
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = _status(verified.status, [check.outcome for check in checks], bool(errors))
    return Verdict(
        status, contract.name, contract.digest, facts.fingerprint, facts.task, checks, "\n".join(errors), facts.counts,
        dict(versions), when,
    )  # fmt: skip


def _status(soda_status: str, outcomes: Sequence[str], errors: bool) -> str:
    if "failed" in outcomes:
        return "failed"
    if errors or "unevaluated" in outcomes or soda_status not in ("PASSED", "WARNED"):
        return "inconclusive"
    return "warned" if "warned" in outcomes else "passed"


def _judged(check: Check, outcome: str, result: soda.SodaOutcome | None, **more: Any) -> CheckResult:
    return CheckResult(
        check.name,
        check.path,
        check.kind,
        check.type,
        outcome,
        result.value if result else None,
        result.threshold if result else "",
        **{"said": "" if result else "Soda did not evaluate it", **more},
    )


def _broken(check: Check, connection: Any, file: Any) -> dict[str, Any]:
    """The rows that break a check: written to the file, counted, and the first ones returned."""
    import duckdb

    if not check.rows:
        return {}
    try:
        known = tables.column_types(connection)
        shown = [name for name in check.columns if name in known]
        names = dict.fromkeys(["split", "number", "id", *shown])
        listed = ", ".join(f'"{name}"' for name in names)
        copies = "".join(f'"{name}", ' for name in shown if name.endswith(("_hash", "_group")))  # copies stand together
        connection.execute(f"select {listed} from facts where {check.rows} order by {copies}split, number, id")
        count, examples = 0, []
        while some := connection.fetchmany(1_000):
            for values in some:
                row = dict(zip(names, values, strict=True))
                if count < SHOWN:
                    examples.append(row)
                count += 1
                file.write(json.dumps({"check": check.name, **row}, ensure_ascii=False, default=str) + "\n")
        return {"rows": count, "examples": examples, "columns": tuple(shown)}
    except duckdb.Error as error:
        return {"said": f"its rows cannot be told: {str(error).splitlines()[0]}"}
