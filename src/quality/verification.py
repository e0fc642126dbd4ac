"""Verification of a data set, cached by its content: the verdict and its report."""

import json
import logging
from pathlib import Path
from typing import Any

from config import checked_json
from datamodules.storage import cache
from quality import contract as contracts
from quality import profile, report, sandbox, soda, tables
from quality import verdict as verdicts
from quality.description import describe
from quality.facts import SPLITS, load_facts
from quality.hashes import hash64
from quality.judgement import judge_contract
from quality.verdict import Verdict

logger = logging.getLogger(__name__)

FORMAT = 2  # part of the cache key: raise it when a verdict or its report changes


def verify_data(
    data: Any, task: str, contract_name: str, action: str = "enforce", seconds: float = sandbox.SECONDS
) -> tuple[Verdict, Path]:
    """Return the verdict on a data module's content, from the cache or computed.

    The counts of accepted data, or of any data with the action `warn`, are what the next data of the same source is
    compared with.

    Args:
        data: a data module, not prepared yet.
        task: name of its task.
        contract_name: name of a shipped contract, or path of a file.
        action: enforce or warn.
        seconds: limit of the time of the contract's SQL.

    Returns:
        The verdict, and the folder of its report: verdict.json, rows.jsonl, report.md, report.html, profile.json,
        sample.parquet.

    Raises:
        InputError: the files cannot be read as a data set, the contract is invalid, or Soda is not installed.
        ContractError: a statement of the contract does not end at the time limit.
    """
    versions = soda.versions()
    description = describe(task)
    contract = contracts.read(contract_name, data.root)
    facts = load_facts(data, task)
    expected = {split: data.expected(split) if hasattr(data, "expected") else None for split in SPLITS}
    limits = [data.limit(split) if hasattr(data, "limit") else None for split in SPLITS]
    source = getattr(data, "origin", type(data).__name__)
    counts_file = data.root / "quality" / f"{hash64(json.dumps([contract.name, source, limits])) % 2**64:016x}.json"
    previous = tables.read_counts(counts_file)
    key = {
        "format": FORMAT,
        "facts": facts.fingerprint,
        "contract": [contract.name, contract.digest],
        "versions": versions,
        "expected": expected,
        "previous": None if previous == facts.counts else previous or None,
        **({} if seconds == sandbox.SECONDS else {"seconds": seconds}),
    }

    def build(folder: Path) -> None:
        logger.info("verifying the data contract %s", contract.name)
        with tables.connect(facts.path, folder / "spill") as connection:
            statistics = profile.write(folder, connection, description)
        with sandbox.load(facts.path, folder / "spill") as connection:
            tables.add_tables(connection, facts, expected, previous)
            verdict = judge_contract(contract, facts, connection, versions, folder / verdicts.ROWS, seconds)
        verdicts.write(folder / verdicts.FILE, verdict)
        report.write(folder, verdict, statistics, description, data)

    def read(folder: Path) -> Verdict:
        return verdicts.read(folder / verdicts.FILE)

    folder = cache.entry(data.root, "verdicts", key, build, check=read)
    verdict = read(folder)
    if (verdict.accepted or action == "warn") and previous != verdict.counts:
        checked_json.write(counts_file, verdict.counts)
    return verdict, folder
