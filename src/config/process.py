"""This process among others: its rank as torchrun, PyTorchJob and TrainJob set it, and the cores it may use."""

import contextlib
import math
import os
from pathlib import Path

from config.errors import InputError
from config.numbers import format_count

CGROUP = Path("/sys/fs/cgroup")
MIN_PROCESSES = 16  # that a setting may start on any machine


def join_pods() -> None:
    """Set the variables of this process's rank from those that Kubeflow Trainer gives to each pod.

    torchrun reads the same (PET_NNODES and others) and starts the processes of a pod. With one process in each pod it is
    not needed, and in its place the pod ends with the exit code of train.py.

    Raises:
        InputError: the pods are several, and each is to run several processes, which only torchrun starts.
    """
    nodes, processes = os.environ.get("PET_NNODES", "1"), os.environ.get("PET_NPROC_PER_NODE", "1")
    if "WORLD_SIZE" in os.environ or not nodes.isdigit() or int(nodes) < 2:
        return
    if processes != "1":
        raise InputError(
            f"each of {nodes} pods is to run {processes} processes (PET_NPROC_PER_NODE): set numProcPerNode: 1, or call "
            "torchrun train.py"
        )
    names = {"WORLD_SIZE": "NNODES", "RANK": "NODE_RANK", "MASTER_ADDR": "MASTER_ADDR", "MASTER_PORT": "MASTER_PORT"}
    if missing := [name for name in names.values() if not os.environ.get(f"PET_{name}")]:
        raise InputError(
            f"PET_NNODES is {nodes}, but PET_{missing[0]} is not set: call torchrun train.py, or unset PET_NNODES"
        )
    os.environ.update({name: os.environ[f"PET_{source}"] for name, source in names.items()}, LOCAL_RANK="0")


def world_size() -> int:
    """Return the number of processes of the run; 1 by default."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the index of this process among all, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """Return the index of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def available_cores() -> int:
    """Return the number of cores that this process may use: those of its affinity, at most the container's limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(cpu_limit() or cores)))


def check_processes(setting: str, count: int) -> None:
    """Check a number of processes that a setting starts on this machine, each of which loads all libraries.

    Args:
        setting: The setting, for the message.
        count: The number.

    Raises:
        InputError: There are more than `MIN_PROCESSES` and more than two for each core.
    """
    cores = available_cores()
    limit = max(MIN_PROCESSES, 2 * cores)
    if count > limit:
        raise InputError(
            f"{setting}={count}: as many processes would start, and this machine has {format_count(cores, 'core')}; set "
            f"{limit} or less"
        )


def cpu_limit() -> float | None:
    """Return the number of cores that a container may use on average; None without a limit.

    cgroup v2 has it in cpu.max, cgroup v1 in the files of the controller cpu, which may be mounted with cpuacct.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = _read("cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    for controller in ("cpu", "cpu,cpuacct"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (_read(f"{controller}/cpu.cfs_{name}_us") for name in ("quota", "period"))
            return int(quota) / int(period) if int(quota) > 0 else None
    return None


def memory_limit() -> float:
    """Return the bytes that a container may use; infinite without a limit.

    cgroup v2 has it in memory.max, cgroup v1 in memory.limit_in_bytes, where a number near 2^63 stands for no limit.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no limit reads "max"
            limit = int(_read(name))
            return limit if limit < 2**60 else math.inf
    return math.inf


def _read(name: str) -> str:
    return (CGROUP / name).read_text("ascii").strip()
