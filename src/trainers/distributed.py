"""Several processes that agree: start, broadcast, gather."""

import datetime
import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from config import process

T = TypeVar("T")


def start() -> None:
    """Joins the processes that torchrun, PyTorchJob or TrainJob started; does nothing for one.

    Before Lightning does it, because the run's folder is agreed on first.
    """
    if process.world_size() == 1 or dist.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(process.local_rank())
    dist.init_process_group("nccl" if cuda else "gloo", timeout=datetime.timedelta(minutes=30))


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


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank. A collective: every rank calls it at the same step."""
    if not dist.is_initialized():
        return flag
    tensor = torch.tensor([int(flag)], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())
