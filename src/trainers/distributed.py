"""Distributed training: start, gather, decisions of rank zero, and one ending for all ranks."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from config import process
from trainers import rendezvous
from trainers.peers import ENDING, Ending, Peers, read_ending

T = TypeVar("T")

_WRITTEN, _LEFT = "written", "left"  # keys of the store
_EXIT_TIMEOUT_S = 10.0  # of a rank that waits for one that may hang in a collective
_POLL_S = 0.05


def start(
    accelerator: str,
    description: Mapping[str, Any] | None = None,
    post: Callable[[BaseException], None] = lambda error: None,
) -> Peers | None:
    """Join the processes started by torchrun, PyTorchJob or TrainJob; do nothing for a single process.

    Lightning would do so later; the run folder is agreed on before.

    Args:
        accelerator: trainer.accelerator.
        description: what the processes must have in common, besides code and versions; see `rendezvous.compare`.
        post: raises an exception in the main thread, if another process ends or is lost.

    Returns:
        The other processes; None for a single process.

    Raises:
        InputError: the processes were started differently.
        ProcessEnding: another process has ended.
        ProcessLostError: another process did not come.
    """
    if process.world_size() == 1 or dist.is_initialized():
        return None
    os.environ.setdefault("LOCAL_RANK", "0")
    backend, seconds = choose_backend(accelerator), rendezvous.start_timeout()
    if backend == "nccl":
        torch.cuda.set_device(process.local_rank())
    store = rendezvous.store() or rendezvous.join(seconds)
    ranks = rendezvous.exchange(store, {**(description or {}), **rendezvous.requirements(backend)}, seconds)
    rendezvous.compare(ranks)
    peers = Peers(store, process.rank(), ranks, rendezvous.store_server(), post)
    dist.init_process_group(
        backend, store=store, rank=process.rank(), world_size=process.world_size(), timeout=rendezvous.TIMEOUT
    )
    return peers


def choose_backend(accelerator: str) -> str:
    """Return the backend of collectives for an accelerator, as trainer.accelerator."""
    return "nccl" if accelerator != "cpu" and torch.cuda.is_available() else "gloo"


def stop() -> None:
    """Leave the process group, so that no process waits for another at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(value: T) -> list[T]:
    """Return the values of all ranks, in rank order, on every rank. A collective."""
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
    """Call a function on rank zero, and return its result on every rank. A collective.

    Args:
        decide: function called on rank zero only.

    Raises:
        Exception: what `decide` raised; on other ranks an exception of the same class if the class has an exit code,
            else a RuntimeError.
    """
    if not dist.is_initialized():
        return decide()
    result: Any = None
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            result = decide()
        except Exception as raised:
            error = raised
    error_class = None if error is None else type(error) if hasattr(error, "exit_code") else RuntimeError
    message = [(result, error_class, str(error))]
    dist.broadcast_object_list(message, src=0)
    if error is not None:
        raise error
    result, error_class, text = message[0]
    if error_class is not None:
        raise error_class(text)
    decision: T = result
    return decision


def agree(store: Any, ending: Ending | None) -> Ending:
    """Return one ending on all ranks: the first that any of them sets.

    It uses the store rather than a collective, because a rank that fails does so while others wait in collectives.

    Args:
        store: of `rendezvous.join`.
        ending: of this rank; None waits for that of another rank.

    Raises:
        RuntimeError: the process that serves the store has exited.
    """
    if ending is not None:
        return Ending(**json.loads(bytes(store.compare_set(ENDING, "", ending.to_json()))))
    while (decided := read_ending(store)) is None:
        time.sleep(_POLL_S)
    return decided


def leave_together(store: Any, decided_by: int) -> None:
    """Wait until rank zero has written how the run ended, and the other ranks know it.

    torchrun ends all processes as soon as one of them fails, and rank zero may serve the store.

    Args:
        store: of `rendezvous.join`; None for a single process.
        decided_by: the rank that decided how the run ended.
    """
    if store is None:
        return
    rank = process.rank()
    with contextlib.suppress(RuntimeError):  # the process that served the store has exited
        if rank == 0:
            store.set(_WRITTEN, "")
            _wait(store, [f"{_LEFT}/{number}" for number in range(1, process.world_size())], _EXIT_TIMEOUT_S)
        else:
            # Rank zero may upload a large model to an experiment tracker.
            _wait(store, [_WRITTEN], rendezvous.TIMEOUT.total_seconds() if decided_by == 0 else _EXIT_TIMEOUT_S)
            store.set(f"{_LEFT}/{rank}", "")


def _wait(store: Any, keys: list[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not store.check(keys) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
