"""Fixtures of the tests on a cluster, and the versions that it has."""

from pathlib import Path
from typing import Any

import pytest
from real_cluster import KUBECONFIG, VERSIONS, namespace, require, submit, versions

__all__ = ["namespace", "require", "submit", "versions"]

if not KUBECONFIG:
    collect_ignore = [
        "test_admission_on_cluster.py",
        "test_optimization_jobs_on_cluster.py",
        "test_pipelines_on_cluster.py",
        "test_trainjob_status_on_cluster.py",
    ]  # test_experiments_on_cluster.py says once what is skipped


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sets no time limit for a test: each wait has one, ISOTRAIN_CLUSTER_TIMEOUT."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the versions that were found on the cluster."""
    if VERSIONS:
        terminalreporter.section("cluster")
        for name, version in VERSIONS.items():
            terminalreporter.line(f"{name}: {version}")
