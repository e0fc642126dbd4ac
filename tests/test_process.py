"""This process among others: the variables of pods, and the limits of containers."""

import math
from pathlib import Path

import pytest

from config import process
from config.errors import InputError
from runs import provenance

PODS = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "1",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "a-0",
    "PET_MASTER_PORT": "29400",
}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    return environment


def test_the_variables_of_a_pod_are_those_of_its_rank(variables: dict[str, str]) -> None:
    variables |= PODS
    process.join_pods()
    assert (process.world_size(), process.rank(), process.local_rank()) == (2, 1, 0)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("a-0", "29400")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {**PODS, "PET_NNODES": "1", "PET_NPROC_PER_NODE": "auto"},
        {**PODS, "PET_NNODES": "1:4"},
        {**PODS, "WORLD_SIZE": "4", "PET_NPROC_PER_NODE": "2"},  # a process of torchrun, or the training operator's pod
    ],
)
def test_other_processes_keep_theirs(given: dict[str, str], variables: dict[str, str]) -> None:
    variables |= given
    process.join_pods()
    assert {key: value for key, value in variables.items() if not key.startswith("PYTEST")} == given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PET_NPROC_PER_NODE": "2"}, "each of 2 pods is to run 2 processes"),
        ({"PET_NPROC_PER_NODE": "auto"}, "set numProcPerNode: 1, or call torchrun train.py"),
        ({"PET_MASTER_ADDR": ""}, "PET_MASTER_ADDR is not set"),
    ],
)
def test_pods_that_cannot_meet_are_refused(change: dict[str, str], message: str, variables: dict[str, str]) -> None:
    variables |= {**PODS, **change}
    with pytest.raises(InputError, match=message):
        process.join_pods()


V1 = {
    "memory/memory.limit_in_bytes": "419430400\n",
    "cpu/cpu.cfs_quota_us": "150000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}
UNLIMITED_V1 = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "cpu", "memory"),
    [
        ({}, None, math.inf),
        ({"memory.max": "419430400\n", "cpu.max": "50000 100000\n"}, 0.5, 400 * 2**20),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, math.inf),
        (V1, 1.5, 400 * 2**20),
        ({key.replace("cpu/", "cpu,cpuacct/"): value for key, value in V1.items()}, 1.5, 400 * 2**20),
        (UNLIMITED_V1, None, math.inf),
    ],
)
def test_limits_of_a_container_are_those_of_both_versions_of_cgroups(
    files: dict[str, str], cpu: float | None, memory: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(process, "CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert (process.cpu_limit(), process.memory_limit()) == (cpu, memory)
    assert process.available_cores() == (math.ceil(cpu) if cpu else 8)
    hardware = provenance.hardware_info()
    assert hardware["cpu_limit"] == cpu
    assert hardware["cores"] == process.available_cores()
    assert (hardware["memory_mib"] == 400) is (memory < math.inf)
