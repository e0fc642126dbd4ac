"""Verification of a contract on tables: the verdict, and the rows that violate each check."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quality import sandbox, soda, tables
from quality.contract import Check, Contract
from quality.facts import Facts
from quality.verdict import CheckResult, Verdict

EXAMPLES = 25  # rows of a check in the verdict
_OUTCOMES = {"PASSED": "passed", "WARN": "warned", "FAILED": "failed"}


def judge_contract(
    contract: Contract,
    facts: Facts,
    connection: Any,
    versions: Mapping[str, str],
    rows: Path,
    seconds: float = sandbox.SECONDS,
) -> Verdict:
    """Verify a contract on the tables of a connection, which is locked first.

    The verdict is accepted only if every check of the contract was evaluated and none failed; Soda itself passes contracts
    with checks that it could not evaluate.

    Args:
        contract: the contract.
        facts: of the data set, for the verdict.
        connection: of `sandbox.load`.
        versions: for the verdict.
        rows: file for all rows that violate a check.
        seconds: limit of the time of the contract's SQL.

    Raises:
        ContractError: a statement does not end at the time limit.
    """
    cursor = sandbox.Sandbox(connection, seconds)
    with sandbox.limit_memory(), rows.open("w", encoding="utf-8") as file:
        result = soda.verify(contract.text, cursor)
        outcomes = {outcome.path: outcome for outcome in result.outcomes}
        checks = [_check_result(check, outcomes.get(check.path), cursor, file) for check in contract.checks]
    unknown = sorted(set(outcomes) - {check.path for check in contract.checks})
    errors = [error for error in (cursor.limit_error, result.errors) if error]
    errors += [f"Soda evaluated {path}, which is not in the contract" for path in unknown]
    return Verdict(
        status=_overall_status(result.status, [check.outcome for check in checks], bool(errors)),
        contract=contract.name,
        digest=contract.digest,
        fingerprint=facts.fingerprint,
        task=facts.task,
        checks=checks,
        errors="\n".join(errors),
        counts=facts.counts,
        versions=dict(versions),
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _overall_status(soda_status: str, outcomes: Sequence[str], errors: bool) -> str:
    if "failed" in outcomes:
        return "failed"
    if errors or "unevaluated" in outcomes or soda_status not in ("PASSED", "WARNED"):
        return "inconclusive"
    return "warned" if "warned" in outcomes else "passed"


def _check_result(check: Check, result: soda.SodaOutcome | None, cursor: sandbox.Sandbox, file: Any) -> CheckResult:
    outcome = "unevaluated"
    details: dict[str, Any] = {"message": "Soda did not evaluate it"}
    value, threshold = (result.value, result.threshold) if result else (None, "")
    if result and check.filtered and result.details.get("check_rows_tested") == 0 and check.type != "row_count":
        details = {"message": "its filter selects no rows"}
    else:
        if result:
            outcome, details = _OUTCOMES.get(result.outcome, "unevaluated"), {}
        if outcome != "passed":
            details = details | _violating_rows(check, cursor, file)
    return CheckResult(check.name, check.path, check.kind, check.type, outcome, value, threshold, **details)


def _violating_rows(check: Check, cursor: sandbox.Sandbox, file: Any) -> dict[str, Any]:
    """Write the rows that violate a check to the file, and return their number, the first ones and their columns."""
    import duckdb

    if not check.rows:
        return {}
    try:
        known_columns = tables.column_types(cursor.connection)
        columns = [name for name in check.columns if name in known_columns]
        names = dict.fromkeys(["split", "number", "id", *columns])
        selection = ", ".join(f'"{name}"' for name in names)
        # Sorted by hash, copies are neighbours.
        order = "".join(f'"{name}", ' for name in columns if name.endswith(("_hash", "_group")))
        duckdb.SQLExpression(check.rows)  # refuses what is more than one expression, such as `true union select ...`
        cursor.execute(f"select {selection} from facts where ({check.rows}\n) order by {order}split, number, id")
        count, examples = 0, []
        while batch := cursor.fetchmany(1_000):
            for values in batch:
                row = dict(zip(names, values, strict=True))
                if count < EXAMPLES:
                    examples.append(row)
                count += 1
                file.write(json.dumps({"check": check.name, **row}, ensure_ascii=False, default=str) + "\n")
        return {"rows": count, "examples": examples, "columns": tuple(columns)}
    except (duckdb.Error, sandbox.RefusedStatementError) as error:
        return {"message": f"its rows are unknown: {str(error).splitlines()[0]}"}
