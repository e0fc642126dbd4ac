"""The benchmark gate: a run compared with the published results of its model and data."""

from collections.abc import Mapping
from typing import Any

from config.known_results import find_known_result
from pipelines.verdict import Verdict


def check_benchmark(record: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Compare a run with the floor for its model and data.

    Args:
        record: The record of the run.

    Returns:
        The verdict (status `none` without a known result), and the source of the result.
    """
    row, reason = find_known_result(record)
    if row is None:
        return Verdict("none", reason), ""
    value = float(record["metrics"][row["metric"]])
    reason = f"{row['metric']} {value:.1f}, floor {row['floor']:g}, published {row['published']:g}"
    return Verdict("passed" if value >= row["floor"] else "failed", reason), f"Source: {row['source']}."
