"""Verifies a data set, once for each content: the verdict, and the report beside it."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.storage import cache
from quality import contract as contracts
from quality import facts, profile, report, soda, tables
from quality import verdict as verdicts
from quality.description import describe
from quality.facts import SPLITS
from quality.hashes import hash64
from quality.judgement import judge_contract
from quality.settings import Settings
from quality.verdict import Verdict

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache's key: raise it when a verdict or its report changes


def verify_data(data: Any, settings: Settings) -> tuple[Verdict, Path]:
    """The verdict on a data module's content, from the cache or made now.

    The counts of data that is good, or taken all the same (`warn`), are what the next data from the same place is held against.

    Args:
        data: a data module, nothing of it prepared yet.
        settings: its task, and the contract to verify.

    Returns:
        The verdict, and the folder of its report: verdict.json, rows.jsonl, report.md, report.html, profile.json,
        sample.parquet.

    Raises:
        InputError: files that cannot be read as a data set at all, a contract that cannot be one, or Soda is not installed.
    """
    versions = soda.versions()
    description = describe(settings.task)
    contract = contracts.read(settings.contract, data.root)
    table = facts.load_facts(data, settings.task)
    expected = {split: data.expected(split) if hasattr(data, "expected") else None for split in SPLITS}
    limits = [data.limit(split) if hasattr(data, "limit") else None for split in SPLITS]
    place = getattr(data, "place", type(data).__name__)
    before = data.root / "quality" / f"{hash64(json.dumps([contract.name, place, limits])) % 2**64:016x}.json"
    previous = tables.read_counts(before)
    key = {
        "format": FORMAT,
        "facts": table.fingerprint,
        "contract": [contract.name, contract.digest],
        "versions": versions,
        "expected": expected,
        "previous": None if previous == table.counts else previous or None,
    }

    def build(folder: Path) -> None:
        logger.info("verifying the data contract %s", contract.name)
        connection = tables.connect(table.path, folder / "spill")
        try:
            tables.add_tables(connection, table, expected, previous)
            verdict = judge_contract(contract, table, connection, versions, folder / verdicts.ROWS)
            (folder / verdicts.FILE).write_text(
                json.dumps(asdict(verdict), ensure_ascii=False, default=str), encoding="utf-8"
            )
            statistics = profile.write(folder, connection, description)
            report.write(folder, verdict, statistics, description, data)
        finally:
            connection.close()

    folder = cache.entry(data.root, "verdicts", key, build)
    verdict = verdicts.read(folder / verdicts.FILE)
    if (verdict.good or settings.action == "warn") and previous != verdict.counts:
        tables.write_counts(before, verdict.counts)
    return verdict, folder
