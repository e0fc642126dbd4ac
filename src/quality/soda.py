"""Soda Core, and all that is done with it: a contract is verified on the tables of a DuckDB connection.

Soda 4 is under the Elastic License 2.0. Nothing else here imports it, and `quality=off` trains without it.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from config.errors import InputError

INSTALL_HINT = "data contracts need Soda: pip install 'isotrain[quality]', or set quality=off"


@dataclass(frozen=True)
class SodaOutcome:
    """What became of one check.

    Attributes:
        path: of the check, as in the contract.
        outcome: PASSED, WARN, FAILED, NOT_EVALUATED or EXCLUDED.
        value: that was compared with the threshold; None if there is none.
        threshold: what it had to be, in words.
        details: Soda's own numbers.
    """

    path: str
    outcome: str
    value: float | None
    threshold: str
    details: dict[str, Any]


@dataclass(frozen=True)
class SodaResult:
    """What became of a contract.

    Attributes:
        status: PASSED, WARNED, FAILED, ERROR or UNKNOWN.
        outcomes: in the contract's order.
        errors: Soda's, "" if there are none.
    """

    status: str
    outcomes: list[SodaOutcome]
    errors: str


def versions() -> dict[str, str]:
    """Of Soda and DuckDB: a verdict is theirs.

    Raises:
        InputError: they are not installed.
    """
    try:
        return {name: version(name) for name in ("soda-core", "soda-duckdb", "duckdb")}
    except PackageNotFoundError as error:
        raise InputError(INSTALL_HINT) from error


def verify(text: str, connection: Any) -> SodaResult:
    """Verifies a contract over the table `facts` of a connection.

    Args:
        text: the contract, which `quality.contract.parse` has taken.
        connection: a duckdb connection.
    """
    # Before the import: Soda sends telemetry unless told not to, and reads the .env of any folder above its own.
    with _environment(SODA_CORE_TELEMETRY_ENABLED="false", PYTHON_DOTENV_DISABLED="1"), _quiet():
        # soda_core first: the other way round it complains of a circular import.
        from soda_core.contracts.contract_verification import ContractVerificationSession  # isort: skip
        from soda_core.common.yaml import ContractYamlSource  # isort: skip
        from soda_duckdb import DuckDBDataSource  # isort: skip

        try:
            session = ContractVerificationSession.execute(
                contract_yaml_sources=[ContractYamlSource.from_str(text)],
                data_source_impls=[DuckDBDataSource.from_existing_cursor(connection, name="data")],
            )
        except Exception as error:  # of Soda's own kinds, none of them documented
            return SodaResult("ERROR", [], f"{type(error).__name__}: {error}")
    results = session.contract_verification_results
    if len(results) != 1:
        return SodaResult("ERROR", [], session.get_errors_str() or f"{len(results)} results for one contract")
    result = results[0]
    outcomes = [
        SodaOutcome(
            each.check.relative_path,
            each.outcome.name,
            None if each.threshold_value is None else float(each.threshold_value),
            _threshold(each.check),
            {key: value for key, value in (each.diagnostic_metric_values or {}).items() if value is not None},
        )
        for each in result.check_results
    ]
    return SodaResult(result.status.name, outcomes, session.get_errors_str() or "")


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Soda's log off the screen. It gathers its errors by a handler of the root logger, so that must still see them."""

    def ours(record: logging.LogRecord) -> bool:
        return not record.name.startswith("soda")

    before = list(logging.root.handlers)
    for handler in before:
        handler.addFilter(ours)
    try:
        yield
    finally:
        for handler in before:
            handler.removeFilter(ours)
        for handler in set(logging.root.handlers) - set(before):
            logging.root.removeHandler(handler)


def _threshold(check: Any) -> str:
    """What a check demands, in words: "0", ">= 1 and <= 5; warns unless < 1"."""
    parts = []
    for level, threshold in (("", check.threshold), ("warns unless ", check.warn_threshold)):
        if threshold is not None and (text := _range(threshold)):
            parts.append(level + text)
    return "; ".join(parts)


def _range(threshold: Any) -> str:
    signs = (
        ("must_be", "="),
        ("must_not_be", "not"),
        ("must_be_greater_than", ">"),
        ("must_be_greater_than_or_equal", ">="),
        ("must_be_less_than", "<"),
        ("must_be_less_than_or_equal", "<="),
    )
    given = {sign: value for key, sign in signs if (value := getattr(threshold, key, None)) is not None}
    above, below = (given.get(sign, given.get(sign + "=")) for sign in "><")
    # must_be_not_between is told by its ends alone: above the upper one or below the lower one.
    outside = above is not None and below is not None and above >= below
    return (" or " if outside else " and ").join(f"{sign} {value:g}" for sign, value in given.items())
