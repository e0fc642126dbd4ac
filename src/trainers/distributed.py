"""Several processes that agree: start, broadcast, gather, decisions of rank zero, and one ending for all."""

import contextlib
import datetime
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from config import process

T = TypeVar("T")

_TIMEOUT = datetime.timedelta(minutes=30)
_ENDING, _WRITTEN, _LEFT = "isotrain/ending", "isotrain/written", "isotrain/left"
_SECONDS = 10.0  # that a rank waits at the end for one that may hang in a collective


def start() -> Any:
    """Joins the processes that torchrun, PyTorchJob or TrainJob started; does nothing for one.

    Before Lightning does it, because the run's folder is agreed on first.

    Returns:
        The store that the processes share; None for one process.
    """
    if process.world_size() == 1 or dist.is_initialized():
        return None
    os.environ.setdefault("LOCAL_RANK", "0")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(process.local_rank())
    store, rank, world_size = next(rendezvous("env://", timeout=_TIMEOUT))
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    return store


def stop() -> None:
    """Leaves the group, so that no process waits for another at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast(value: T) -> T:
    """Rank zero's value, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """Every rank's value in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank. A collective: every rank calls it at the same step."""
    if not dist.is_initialized():
        return flag
    tensor = torch.tensor([int(flag)], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())


def decide_on_rank_zero(decide: Callable[[], T]) -> T:
    """Rank zero's decision, on every rank. A collective.

    Args:
        decide: called on rank zero alone.

    Returns:
        What it returned there.

    Raises:
        Exception: what it raised there; on other ranks of the same class if the class has an exit code, else a
            RuntimeError.
    """
    if not dist.is_initialized():
        return decide()
    value: Any = None
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            value = decide()
        except Exception as error:
            failure = error
    kind = None if failure is None else type(failure) if hasattr(failure, "exit_code") else RuntimeError
    value, kind, message = broadcast((value, kind, str(failure)))
    if failure is not None:
        raise failure
    if kind is not None:
        raise kind(message)
    decision: T = value
    return decision


def agree(store: Any, value: str | None) -> str:
    """One value for all ranks: the first that any of them gives.

    Through the store and not by a collective, because a rank that fails does so while others wait in collectives.

    Args:
        store: that `start` returned.
        value: of this rank; None waits for another rank's.

    Raises:
        RuntimeError: the process that serves the store is gone.
    """
    if store is None:
        return value or ""
    if value is not None:
        return bytes(store.compare_set(_ENDING, "", value)).decode()
    while not store.check([_ENDING]):
        time.sleep(0.1)
    return bytes(store.get(_ENDING)).decode()


def leave_together(store: Any, decided_by: int) -> None:
    """Waits until rank zero has written how the run ended, and the others know it.

    torchrun ends all processes as soon as one of them fails, and rank zero may serve the store.

    Args:
        store: that `start` returned.
        decided_by: the rank whose failure, or end, decided how the run ended.
    """
    if store is None:
        return
    rank = process.rank()
    with contextlib.suppress(RuntimeError):  # the process that served the store is gone
        if rank == 0:
            store.set(_WRITTEN, "")
            _wait(store, [f"{_LEFT}/{other}" for other in range(1, process.world_size())], _SECONDS)
        else:
            # Rank zero may have much to hand over to an experiment tracker.
            _wait(store, [_WRITTEN], _TIMEOUT.total_seconds() if decided_by == 0 else _SECONDS)
            store.set(f"{_LEFT}/{rank}", "")


def _wait(store: Any, keys: list[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not store.check(keys) and time.monotonic() < end:
        time.sleep(0.05)
