"""Which of how many processes this is, as torchrun, PyTorchJob and TrainJob say it in the environment."""

import os


def world_size() -> int:
    """Number of processes of the run (1 when nobody says otherwise)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process among all, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """This process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0
