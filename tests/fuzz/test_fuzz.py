"""Damaged inputs of every command for some minutes: ISOTRAIN_FUZZ_MINUTES (10), from the seed ISOTRAIN_FUZZ_SEED (1).

The nightly workflow draws new seeds; here a change is tested, and nothing else may fail.
"""

import os
from pathlib import Path

import pytest
from tests.fuzz import cases, processes, seeds
from tests.fuzz.__main__ import describe, fuzz, make_world

MINUTES = float(os.environ.get("ISOTRAIN_FUZZ_MINUTES", "10"))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid inputs of every command."""
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    processes.warm_up()
    make_world(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("target", "seed"), seeds.SEEDS)
def test_damage_that_once_ended_with_1(target: str, seed: int, origin: Path, tmp_path: Path) -> None:
    case = cases.run(cases.by_name(target), seed, origin, tmp_path / "case")
    assert not case.problems, describe(case)


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 900)
def test_damage_has_a_documented_end(origin: Path, tmp_path: Path) -> None:
    """Exit code, one message, no traceback, memory, time, and nothing changed but the command's own files."""
    seed = int(os.environ.get("ISOTRAIN_FUZZ_SEED", "1"))
    failed = fuzz(origin, tmp_path / "failures", MINUTES, seed, [])
    assert not failed, "\n".join(map(describe, failed))
