"""Batches of example indices, for training and evaluation on any number of ranks.

Training: one global list of batches, a pure function of the seed and the epoch. Texts are grouped by length, to save
padding; the order stays random. Each rank takes its share of every batch.
Evaluation: a fixed list of batches, distributed whole over the ranks, so that one process and many compute the
same batches and each example once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError

# Batches in a pool that is sorted by length. More: less padding; fewer: an order nearer to a plain shuffle.
POOL = 50

Lengths = npt.NDArray[Any] | Sequence[int]


class LengthBatches:
    """Batches of example indices for training; the `sampler` of a DataLoader with `batch_size=None`.

    Each epoch draws a permutation from (seed, epoch), sorts pools of `POOL` batches by length, cuts them into
    batches and shuffles those. The last partial batch of an epoch is dropped, unless it is the only one.

    Attributes:
        epoch: the epoch of the next iteration.
        start: number of batches of that epoch to skip, to resume in the middle of it.
        repeat: whether every epoch has the batches of the first one, for `trainer.overfit_batches`.
    """

    def __init__(self, lengths: Lengths | int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """Store lengths and sizes.

        Args:
            lengths: [N] length of each example; or N itself, for examples of one size (a plain shuffle).
            batch_size: examples per step over all processes.
            seed: of the order, together with the epoch.
            rank: of this process; it takes batch[rank::world] of each batch.
            world: number of processes.

        Raises:
            InputError: no examples, or a batch size that does not divide over the processes.
        """
        self.lengths = None if isinstance(lengths, int) else np.asarray(lengths)
        self.examples = lengths if isinstance(lengths, int) else len(lengths)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.epoch = 0
        self.start = 0
        self.repeat = False
        if batch_size < 1:
            raise InputError(f"data.batch_size must be at least 1, not {batch_size}")
        if batch_size % world:
            raise InputError(
                f"data.batch_size={batch_size} is the total of all processes and must be a multiple of their number, "
                f"{world}; use {batch_size + world - batch_size % world}"
            )
        if self.examples < world:
            raise InputError(f"{self.examples} training examples are too few for {world} process(es)")

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; a new one starts at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def set_start(self, batches: int) -> None:
        """Skip the first batches of this epoch."""
        self.start = batches

    def __len__(self) -> int:
        """Number of batches in a full epoch, independent of `start`."""
        return max(1, self.examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.order()[self.start :]:
            yield batch[self.rank :: self.world].tolist()

    def order(self) -> npt.NDArray[np.int64]:
        """Return the example indices of this epoch over all processes, [batches, batch_size]."""
        epoch = 0 if self.repeat else self.epoch
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        # All ranks take the same number of examples, also of a single partial batch.
        size = min(self.batch_size, self.examples - self.examples % self.world)
        indices = random.permutation(self.examples)[: len(self) * size]
        if self.lengths is not None:
            for first in range(0, len(indices), POOL * size):
                pool = indices[first : first + POOL * size]
                indices[first : first + POOL * size] = pool[np.argsort(self.lengths[pool], kind="stable")]
        batches = indices.reshape(len(self), size)
        return batches[random.permutation(len(batches))] if self.lengths is not None else batches


class EvaluationBatches:
    """A fixed list of index batches; the `sampler` of a DataLoader with `batch_size=None`.

    Attributes:
        counted: whether their results count. A process without a batch of its own repeats one of another process,
            because Lightning skips the validation of a process without batches, collective operations included.
    """

    def __init__(self, batches: list[list[int]], counted: bool = True) -> None:
        self.batches, self.counted = batches, counted

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def evaluation_batches(lengths: Lengths | int, batch_size: int, rank: int = 0, world: int = 1) -> EvaluationBatches:
    """Make the batches for evaluation: longest first, every example once, whole batches distributed over the ranks.

    Longest first, so that a lack of memory shows at once. The batches do not depend on `world`: rank r takes
    r::world.

    Args:
        lengths: [N] length of each example; or N itself.
        batch_size: examples per forward pass of one process.
        rank: of this process.
        world: number of processes.

    Raises:
        InputError: a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"data.eval_batch_size must be at least 1, not {batch_size}")
    order = (
        np.arange(lengths) if isinstance(lengths, int) else np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    )
    batches = [order[first : first + batch_size].tolist() for first in range(0, len(order), batch_size)]
    own_batches = batches[rank::world]
    return EvaluationBatches(own_batches or [batches[0][:1]], counted=bool(own_batches))
