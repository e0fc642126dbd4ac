"""The start of several processes: they find each other, and compare what they were started with."""

import contextlib
import datetime
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from config import process, source_code
from config.errors import InputError, ProcessLostError
from runs import folder as folders
from trainers import peers

TIMEOUT = datetime.timedelta(minutes=30)  # of collectives
START_VARIABLE = "ISOTRAIN_START_TIMEOUT"  # seconds until all processes must have joined
_DEFAULT_START_S = 1800.0  # images are pulled, nodes are added
_POLL_S = 0.2
_MAX_RANKS = 3  # of a message
# The settings that processes may have of their own: of the machine, or of rank zero alone.
_ALLOWED_DIFFERENCES = {
    key: lambda old, new, config: True
    for key in ("data.cache_dir", "data.workers", "trainer.threads", "logger", "logger.*", "metrics_file")
}
_stores: list[Any] = []


def store() -> Any:
    """Return the store of the processes; None before `join`."""
    return _stores[0] if _stores else None


def start_timeout() -> float:
    """Return the seconds within which all processes must join.

    Raises:
        InputError: the variable is not a number above 0.
    """
    text = os.environ.get(START_VARIABLE) or str(_DEFAULT_START_S)
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e9:
            return float(text)
    raise InputError(f"{START_VARIABLE}={text}: must be a number of seconds above 0")


def join(seconds: float) -> Any:
    """Connect to the key-value store of the processes, which rank zero or torchrun serves.

    Args:
        seconds: time to wait for its server.

    Returns:
        The store.

    Raises:
        InputError: a variable that torchrun, PyTorchJob and TrainJob set is missing.
        ProcessLostError: the server does not answer.
    """
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise InputError(
            f"WORLD_SIZE is {process.world_size()}, but {' and '.join(missing)} is not set: start with torchrun, or unset WORLD_SIZE"
        )
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = process.rank() == 0 and not _is_served_by_torchrun()
    if not serves:
        _wait_for_server(host, port, seconds)
    server = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, process.world_size(), serves, TIMEOUT, wait_for_workers=False, multi_tenant=True
    )
    # torchrun keeps its store when it starts the processes again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    _stores[:] = [dist.PrefixStore(f"isotrain/{attempt}", server)]  # type: ignore[attr-defined]
    return _stores[0]


def _is_served_by_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def store_server() -> str:
    """Return the name of the process that serves the store."""
    return "torchrun on the first machine" if _is_served_by_torchrun() else "rank 0"


def _wait_for_server(host: str, port: int, seconds: float) -> None:
    """Wait until a port answers. torch's own client would wait without noticing a signal."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError as error:
            if time.monotonic() > end:
                raise ProcessLostError(
                    f"{store_server()} does not answer at {host}:{port} after {seconds:g} s ({error}): look at its log; "
                    f"{START_VARIABLE} sets how long to wait"
                ) from error
        else:
            return
        time.sleep(_POLL_S)


def exchange(store: Any, description: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Exchange what the processes were started with.

    Args:
        store: returned by `join`.
        description: of this process.
        seconds: time to wait for the others.

    Returns:
        The descriptions in rank order, with `host`, `pid` and `processes` (their number).

    Raises:
        ProcessEnding: another process has ended.
        ProcessLostError: another process did not join, or this one has replaced a process that did.
    """
    rank, world_size = process.rank(), process.world_size()
    identity = {"host": socket.gethostname(), "pid": os.getpid(), "processes": world_size}
    text = json.dumps({**description, **identity}, default=str)
    with peers.store_errors():
        if bytes(store.compare_set(f"start/{rank}", "", text)).decode() != text:
            raise ProcessLostError(
                f"rank {rank} was lost, and this process took its place while the others still ran: start all of them "
                "again; the training resumes from its last checkpoint"
            )
        keys = [f"start/{number}" for number in range(world_size)]
        end = time.monotonic() + seconds
        while not store.check(keys):
            if ending := peers.read_ending(store):
                raise peers.ProcessEnding(ending)
            if time.monotonic() > end:
                absent = ", ".join(str(number) for number, key in enumerate(keys) if not store.check([key]))
                raise ProcessLostError(
                    f"rank {absent} did not join within {seconds:g} s: look at its log and at the events of its pod; "
                    f"{START_VARIABLE} sets how long to wait"
                )
            time.sleep(_POLL_S)
        return [json.loads(bytes(store.get(key))) for key in keys]


def compare(ranks: Sequence[Mapping[str, Any]]) -> None:
    """Compare what the processes were started with, as `exchange` returns it.

    All processes must have the same resolved configuration (secrets and a few settings of the machine excepted), code of
    isotrain and of the user's tasks, versions of Python, torch and Lightning, backend and number of processes: otherwise
    they would call different collectives, and wait for each other until a time-out.

    Raises:
        InputError: they differ; the message names the settings.
    """
    messages = []
    for number, rank in enumerate(ranks[1:], 1):
        if lines := _differences(ranks[0], rank, number):
            messages.append(
                "\n".join([f"rank {number} ({rank['host']}) and rank 0 ({ranks[0]['host']}) differ:", *lines])
            )
    if messages:
        more = [f"{len(messages) - _MAX_RANKS} more ranks differ"] if len(messages) > _MAX_RANKS else []
        raise InputError(
            "\n".join(
                [
                    "the processes of this training were not started alike:",
                    *messages[:_MAX_RANKS],
                    *more,
                    "Start all of them with the same command and image; in a PyTorchJob these are in Master and Worker.",
                ]
            )
        )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], number: int) -> list[str]:
    configs = first.get("config") or {}, second.get("config") or {}
    values = folders.config_differences(*configs, allowed=_ALLOWED_DIFFERENCES)
    for key in sorted((first.keys() | second.keys()) - {"config", "host", "pid"}):
        if first.get(key) != second.get(key):
            values.append((key, first.get(key), second.get(key)))
    return folders.difference_lines(values, "{old} on rank 0, {new} on rank " + str(number))


def requirements(backend: str) -> dict[str, str]:
    """Return what the processes must have in common besides their configuration: code, versions and backend."""
    import platform

    import lightning

    return {
        "code of isotrain": source_code.code_digest()[:12],
        "version of Python": ".".join(platform.python_version_tuple()[:2]),
        "version of torch": str(torch.__version__).partition("+")[0],
        "version of Lightning": str(lightning.__version__),
        "backend": backend,
    }
