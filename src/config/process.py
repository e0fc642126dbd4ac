"""Rank and number of processes, as torchrun, PyTorchJob and TrainJob set them in the environment."""

import os


def world_size() -> int:
    """Return the number of processes of the run; 1 by default."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the index of this process among all, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """Return the index of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0
