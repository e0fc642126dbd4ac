"""Soda Core: a contract is verified on the tables of a DuckDB connection.

Soda 4 is under the Elastic License 2.0. This is the only module that imports it, and `quality=off` trains without it.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from config.errors import InputError
from quality.sandbox import Sandbox

INSTALL_HINT = "data contracts need Soda: pip install -e '.[quality]' in isotrain's checkout, or set quality=off"
_SIGNS = {
    "must_be": "=",
    "must_not_be": "not",
    "must_be_greater_than": ">",
    "must_be_greater_than_or_equal": ">=",
    "must_be_less_than": "<",
    "must_be_less_than_or_equal": "<=",
}


@dataclass(frozen=True)
class SodaOutcome:
    """Soda's result for one check.

    Attributes:
        path: of the check, as in the contract.
        outcome: PASSED, WARN, FAILED, NOT_EVALUATED or EXCLUDED.
        value: the value that was compared with the threshold; None if there is none.
        threshold: the required value, in words.
        details: Soda's diagnostic metrics.
    """

    path: str
    outcome: str
    value: float | None
    threshold: str
    details: dict[str, Any]


@dataclass(frozen=True)
class SodaResult:
    """Soda's result for a contract.

    Attributes:
        status: PASSED, WARNED, FAILED, ERROR or UNKNOWN.
        outcomes: in the contract's order.
        errors: Soda's error messages; "" if there are none.
    """

    status: str
    outcomes: list[SodaOutcome]
    errors: str


def versions() -> dict[str, str]:
    """Return the versions of Soda and DuckDB, which a verdict depends on.

    Raises:
        InputError: they are not installed.
    """
    try:
        return {name: version(name) for name in ("soda-core", "soda-duckdb", "duckdb")}
    except PackageNotFoundError as error:
        raise InputError(INSTALL_HINT) from error


def verify(text: str, sandbox: Sandbox) -> SodaResult:
    """Verify a contract on the table `facts` of a connection.

    Args:
        text: a contract that `quality.contract.parse` accepts.
        sandbox: runs the contract's SQL.

    Raises:
        ContractError: a statement does not end at the time limit.
    """
    # Set before the import: Soda sends telemetry by default, and reads the nearest .env file above its own folder.
    with _environment(SODA_CORE_TELEMETRY_ENABLED="false", PYTHON_DOTENV_DISABLED="1"), _hide_log():
        # soda_core first: the other order is a circular import.
        from soda_core.contracts.contract_verification import ContractVerificationSession  # isort: skip
        from soda_core.common.yaml import ContractYamlSource  # isort: skip
        from soda_duckdb import DuckDBDataSource  # isort: skip

        source = DuckDBDataSource.from_existing_cursor(sandbox.connection, name="data")
        source.data_source_connection.connection = type(source.data_source_connection.connection)(sandbox)
        try:
            session = ContractVerificationSession.execute(
                contract_yaml_sources=[ContractYamlSource.from_str(text)], data_source_impls=[source]
            )
        except Exception as error:  # Soda's exceptions are not documented
            return SodaResult("ERROR", [], f"{type(error).__name__}: {error}")
        finally:
            if sandbox.failure:
                raise sandbox.failure
    results = session.contract_verification_results
    if len(results) != 1:
        return SodaResult("ERROR", [], session.get_errors_str() or f"{len(results)} results for one contract")
    outcomes = [
        SodaOutcome(
            result.check.relative_path,
            result.outcome.name,
            None if result.threshold_value is None else float(result.threshold_value),
            _describe_thresholds(result.check),
            {key: value for key, value in (result.diagnostic_metric_values or {}).items() if value is not None},
        )
        for result in results[0].check_results
    ]
    return SodaResult(results[0].status.name, outcomes, session.get_errors_str() or "")


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _hide_log() -> Iterator[None]:
    """Hide Soda's log. Soda collects errors with a handler of the root logger, which must still receive them."""

    def is_foreign(record: logging.LogRecord) -> bool:
        return not record.name.startswith("soda")

    handlers = list(logging.root.handlers)
    for handler in handlers:
        handler.addFilter(is_foreign)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_foreign)
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)


def _describe_thresholds(check: Any) -> str:
    """Describe what a check requires: "0", ">= 1 and <= 5; warns unless < 1"."""
    parts = []
    for level, threshold in (("", check.threshold), ("warns unless ", check.warn_threshold)):
        if threshold is not None and (text := _describe_range(threshold)):
            parts.append(level + text)
    return "; ".join(parts)


def _describe_range(threshold: Any) -> str:
    limits = {sign: value for key, sign in _SIGNS.items() if (value := getattr(threshold, key, None)) is not None}
    above, below = (limits.get(sign, limits.get(sign + "=")) for sign in "><")
    # Soda represents must_be_not_between by its ends: above the upper one or below the lower one.
    outside = above is not None and below is not None and above >= below
    return (" or " if outside else " and ").join(f"{sign} {value:g}" for sign, value in limits.items())
