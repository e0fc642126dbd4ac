"""Batches: every example once, alike on all ranks, restorable, with little padding."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.errors import InputError
from datamodules.batching import LengthBatches, evaluation_batches

lengths = st.lists(st.integers(1, 400), min_size=1, max_size=300)
worlds = st.integers(1, 4)
per_rank = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 100)


def batches(of: LengthBatches, epoch: int = 0, start: int = 0) -> list[list[int]]:
    of.set_epoch(epoch)
    of.set_start(start)
    return list(of)


@given(lengths, per_rank, worlds, seeds, epochs, st.booleans())
def test_an_epoch_has_every_example_at_most_once_and_drops_less_than_a_batch(
    lengths: list[int], per_rank: int, world: int, seed: int, epoch: int, plain: bool
) -> None:
    assume(len(lengths) >= world)
    size = per_rank * world
    given = len(lengths) if plain else lengths
    ranks = [batches(LengthBatches(given, size, seed, rank, world), epoch) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    assert len(ranks[0]) == len(LengthBatches(given, size, seed, 0, world)) == max(1, len(lengths) // size)
    # Every rank takes as many as every other from each batch.
    for step in zip(*ranks, strict=True):
        assert len({len(batch) for batch in step}) == 1
    seen = [index for rank in ranks for batch in rank for index in batch]
    assert len(seen) == len(set(seen))
    assert len(lengths) - len(seen) < (size if len(lengths) >= size else world)


@given(lengths, per_rank, worlds, seeds, epochs)
def test_ranks_partition_the_batches_of_one_process(
    lengths: list[int], per_rank: int, world: int, seed: int, epoch: int
) -> None:
    size = per_rank * world
    assume(len(lengths) >= size)
    alone = batches(LengthBatches(lengths, size, seed), epoch)
    ranks = [batches(LengthBatches(lengths, size, seed, rank, world), epoch) for rank in range(world)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert sorted(whole) == sorted(index for part in parts for index in part)


@given(lengths, per_rank, seeds, epochs, st.integers(0, 400))
def test_starting_at_k_gives_the_tail(lengths: list[int], size: int, seed: int, epoch: int, start: int) -> None:
    of = LengthBatches(lengths, size, seed)
    assert batches(of, epoch, start) == batches(of, epoch)[start:]


@given(lengths, per_rank, seeds, epochs)
def test_the_order_is_a_function_of_seed_and_epoch_alone(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    first, second = LengthBatches(lengths, size, seed), LengthBatches(lengths, size, seed)
    batches(second, epoch + 1, 1)
    assert batches(first, epoch) == batches(second, epoch)


def test_another_epoch_starts_at_its_beginning_and_the_same_one_where_it_was() -> None:
    of = LengthBatches(100, 10, 0)
    of.set_start(4)
    of.set_epoch(0)
    assert len(list(of)) == 6
    of.set_epoch(1)
    assert len(list(of)) == 10


def test_epochs_and_seeds_differ() -> None:
    given = np.random.default_rng(0).integers(20, 400, 1000)
    orders = [batches(LengthBatches(given, 10, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_little_padding_and_yet_a_random_order() -> None:
    given = np.random.default_rng(0).gamma(6, 25, 8000).astype(int) + 20
    of = LengthBatches(given, 12, 0)

    def share(all_batches: list[list[int]]) -> float:
        padded = sum(given[batch].max() * len(batch) for batch in all_batches)
        return 1 - sum(given[batch].sum() for batch in all_batches) / padded

    shuffled = np.random.default_rng(1).permutation(8000)[: 666 * 12].reshape(666, 12).tolist()
    assert share(batches(of)) < 0.04
    assert share(shuffled) > 0.3
    # Neither short before long, nor the same companions in every epoch.
    means = [given[batch].mean() for batch in batches(of)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.15
    pairs = [{(a, b) for batch in batches(of, epoch) for a in batch for b in batch if a < b} for epoch in (0, 1)]
    assert len(pairs[0] & pairs[1]) < 0.1 * len(pairs[0])


@given(lengths, per_rank, worlds)
def test_evaluation_has_every_example_once_and_the_same_batches_on_any_number_of_ranks(
    lengths: list[int], size: int, world: int
) -> None:
    alone = list(evaluation_batches(lengths, size))
    given = [evaluation_batches(lengths, size, rank, world) for rank in range(world)]
    assert all(len(each) for each in given)  # Lightning leaves out the validation of a process without a batch
    ranks = [list(each) if each.counted else [] for each in given]
    assert sorted(index for batch in alone for index in batch) == list(range(len(lengths)))
    assert sorted(alone) == sorted(batch for rank in ranks for batch in rank)
    ordered = [lengths[index] for batch in alone for index in batch]
    assert ordered == sorted(lengths, reverse=True)
    assert [len(batch) for batch in alone[:-1]] == [size] * (len(alone) - 1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.batch_size=10 .* 4; use 12"):
        LengthBatches(100, 10, 0, world=4)
    with pytest.raises(InputError, match="at least 1"):
        LengthBatches(100, 0, 0)
    with pytest.raises(InputError, match="at least 1"):
        evaluation_batches(100, 0)
    with pytest.raises(InputError, match="too few for 2"):
        LengthBatches(1, 2, 0, world=2)
    with pytest.raises(InputError, match="too few"):
        LengthBatches(0, 1, 0)


@given(lengths, per_rank, seeds, epochs, st.booleans())
def test_repeated_batches_are_those_of_the_first_epoch(
    lengths: list[int], size: int, seed: int, epoch: int, plain: bool
) -> None:
    """For `trainer.overfit_batches`; a resumed run still starts in the middle of an epoch."""
    sampler = LengthBatches(len(lengths) if plain else lengths, size, seed)
    first = batches(sampler)
    sampler.repeat = True
    assert batches(sampler, epoch) == first
    assert batches(sampler, epoch, start=1) == first[1:]
