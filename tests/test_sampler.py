"""Batches by property: every example once, equal ranks, the budget, and an order that depends on (seed, epoch) only."""

import time
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from suite.data import _KeyedDataset
from suite.errors import DataError, UsageError
from suite.sampler import BucketBatchSampler, Key, WindowBatchSampler, plan_batches, round_up_lengths
from suite.seeding import mix

quick = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Case:
    """What a sampler is built from, less the rank."""

    lengths: NDArray[numpy.int64]
    batch_size: int | None
    max_tokens: int | None
    world_size: int = 1
    shuffle: bool = True
    seed: int = 0
    epoch: int = 0

    def build(self, rank: int = 0, **changes: Any) -> BucketBatchSampler:
        options = {name: value for name, value in vars(self).items() if name != "lengths"}
        return BucketBatchSampler(self.lengths, rank=rank, **{**options, **changes})

    def ranks(self, **changes: Any) -> list[list[list[Key]]]:
        return [list(self.build(rank, **changes)) for rank in range(self.world_size)]

    def table(self) -> NDArray[numpy.int64]:
        return self.lengths.reshape(len(self.lengths), -1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    world_size = draw(st.integers(1, 4))
    size = draw(st.integers(world_size, 50))
    parts = draw(st.sampled_from([None, 1, 2]))
    longest = draw(st.sampled_from([3, 15, 60]))
    generator = numpy.random.default_rng(draw(st.integers(0, 10**6)))
    lengths = generator.integers(0, longest + 1, size=size if parts is None else (size, parts))
    limits = draw(st.sampled_from(["batch_size", "max_tokens", "both"]))
    return Case(
        lengths,
        batch_size=draw(st.integers(1, 12)) if limits != "max_tokens" else None,
        max_tokens=draw(st.integers(1, 200)) if limits != "batch_size" else None,
        world_size=world_size,
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 5)),
        epoch=draw(st.integers(0, 4)),
    )


@quick
@given(cases())
def test_every_example_once_and_every_rank_alike(case: Case) -> None:
    ranks = case.ranks()
    keys = [key for batches in ranks for batch in batches for key in batch]
    assert {epoch for epoch, _ in keys} == {case.epoch}
    assert sorted(index for _, index in keys) == list(range(len(case.lengths)))
    assert all(batch for batches in ranks for batch in batches)
    for rank, batches in enumerate(ranks):
        for epoch in (case.epoch, case.epoch + 1):
            assert len(case.build(rank, epoch=epoch)) == len(batches)
    assert len(list(case.build(epoch=case.epoch + 1))) == len(ranks[0])
    # Ranks work equally long: shares of a step differ by one example at most.
    for step in zip(*ranks, strict=True):
        sizes = [len(batch) for batch in step]
        assert max(sizes) - min(sizes) <= 1


@quick
@given(cases())
def test_limits_hold_for_actual_padded_lengths(case: Case) -> None:
    """Of every batch but two kinds: an example that is too long alone, and a last one that took in the left-over.

    The left-over is fewer than world_size examples: it adds at most one example to a rank's batch.
    """
    rounded = round_up_lengths(case.table())
    steps = list(zip(*case.ranks(shuffle=False), strict=True))
    for number, step in enumerate(steps):
        for batch in step:
            members = [index for _, index in batch]
            spare = 1 if number == len(steps) - 1 and case.world_size > 1 else 0
            allowed = len(members) - spare
            if case.batch_size is not None:
                assert allowed <= case.batch_size
            if case.max_tokens is not None and allowed > 1:
                assert allowed * case.table()[members].max(axis=0).sum() <= case.max_tokens
                assert allowed * rounded[members].max(axis=0).sum() <= case.max_tokens


@quick
@given(cases())
def test_batches_are_as_full_as_the_limits_allow(case: Case) -> None:
    """Sorted longest first and one process: one more example would break a limit, so no batch is cut too early."""
    case = replace(case, world_size=1, shuffle=False)
    rounded = round_up_lengths(case.table())
    batches = [[index for _, index in batch] for batch in case.build()]
    for batch, following in pairwise(batches):
        grown = [*batch, following[0]]
        too_many = case.batch_size is not None and len(grown) > case.batch_size
        too_long = case.max_tokens is not None and len(grown) * rounded[grown].max(axis=0).sum() > case.max_tokens
        assert too_many or too_long
    firsts = [int(rounded[index, 0]) for batch in batches for index in batch]
    assert firsts == sorted(firsts, reverse=True)


@quick
@given(cases())
def test_order_is_a_function_of_seed_and_epoch(case: Case) -> None:
    sampler = case.build(epoch=0)
    state = numpy.random.get_state()[1].copy()  # type: ignore[index]
    list(sampler)
    half = iter(sampler)
    next(half)
    sampler.set_epoch(case.epoch + 1)
    assert list(sampler) == list(sampler) == list(case.build(epoch=case.epoch + 1))
    assert (numpy.random.get_state()[1] == state).all()  # type: ignore[index]


@quick
@given(cases(), st.data())
def test_start_batch_gives_the_tail_and_another_epoch_resets_it(case: Case, data: st.DataObject) -> None:
    whole = list(case.build())
    start = data.draw(st.integers(0, len(whole)))
    sampler = case.build(start_batch=start)
    assert len(sampler) == len(whole)
    sampler.set_epoch(case.epoch)  # Lightning says the epoch again on resuming
    assert list(sampler) == whole[start:]
    sampler.set_epoch(case.epoch + 1)
    assert list(sampler) == list(case.build(epoch=case.epoch + 1))


@quick
@given(cases(), st.integers(2, 4))
def test_ranks_together_make_the_steps_of_one_process(case: Case, world_size: int) -> None:
    """With batch_size: the same steps at ``world_size`` times the size, unless a left-over is too small for all."""
    batch_size = case.batch_size or 3
    left = len(case.lengths) % (batch_size * world_size)
    if 0 < left < world_size:
        return
    shared = replace(case, batch_size=batch_size, max_tokens=None, world_size=world_size)
    single = list(replace(shared, batch_size=batch_size * world_size, world_size=1).build())
    together = [sorted(chain.from_iterable(step)) for step in zip(*shared.ranks(), strict=True)]
    assert together == [sorted(batch) for batch in single]


@quick
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 40))
def test_two_ranks_make_the_steps_of_a_double_token_budget(length: int, count: int, pairs: int) -> None:
    """With max_tokens where the budget holds whole pairs; elsewhere an odd example would overfill one rank."""
    shared = Case(numpy.full(2 * pairs, length), None, int(round_up_lengths(numpy.array([length]))[0]) * count, 2)
    assert shared.max_tokens is not None
    single = list(replace(shared, max_tokens=2 * shared.max_tokens, world_size=1).build())
    together = [sorted(chain.from_iterable(step)) for step in zip(*shared.ranks(), strict=True)]
    assert together == [sorted(batch) for batch in single]


def cut_one_by_one(
    rounded: NDArray[numpy.int64], batch_size: int | None, max_tokens: int | None, world_size: int
) -> list[int]:
    """Where the examples are cut, one example after the other: the order that resuming older runs depends on."""
    ordered = rounded[numpy.lexsort(-rounded.T[::-1])].tolist()
    most = batch_size * world_size if batch_size else len(ordered)
    budget = max_tokens * world_size if max_tokens else None
    cuts, widest = [0], [0] * len(ordered[0])
    for position, row in enumerate(ordered):
        count = position - cuts[-1]
        grown = [max(pair) for pair in zip(widest, row, strict=True)]
        share = -(-(count + 1) // world_size) * world_size
        full = count >= most or (budget is not None and share * sum(grown) > budget)
        if full and count >= world_size:
            cuts.append(position)
            grown = list(row)
        widest = grown
    if len(ordered) - cuts[-1] < world_size and len(cuts) > 1:
        cuts.pop()
    return [*cuts, len(ordered)]


@st.composite
def wide_cases(draw: st.DrawFn) -> Case:
    """More examples and lengths than ``cases``: few or many equal ones, one to four parts, limits of every scale."""
    world_size = draw(st.integers(1, 5))
    size = draw(st.integers(world_size, 400))
    parts = draw(st.sampled_from([None, 1, 2, 3, 4]))
    longest = draw(st.sampled_from([0, 1, 3, 20, 200, 10**7]))
    generator = numpy.random.default_rng(draw(st.integers(0, 10**6)))
    lengths = generator.integers(0, longest + 1, size=size if parts is None else (size, parts))
    limits = draw(st.sampled_from(["batch_size", "max_tokens", "both"]))
    return Case(
        lengths,
        batch_size=draw(st.integers(1, 500)) if limits != "max_tokens" else None,
        max_tokens=draw(st.integers(1, 10 ** draw(st.integers(1, 8)))) if limits != "batch_size" else None,
        world_size=world_size,
        seed=draw(st.integers(0, 5)),
        epoch=draw(st.integers(0, 4)),
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(cases(), wide_cases()))
def test_cuts_and_order_are_those_of_the_plain_loop(case: Case) -> None:
    rounded = round_up_lengths(case.table())
    sampler = case.build()
    assert sampler.cuts == cut_one_by_one(rounded, case.batch_size, case.max_tokens, case.world_size)
    examples = numpy.arange(len(rounded))
    if case.shuffle:
        examples = numpy.random.default_rng(mix(case.seed, case.epoch, "examples")).permutation(examples)
    expected = examples[numpy.lexsort(-rounded[examples].T[::-1])]
    assert sampler._order().tolist() == expected.tolist()


def test_a_million_pairs_are_planned_in_half_a_second() -> None:
    lengths = numpy.random.default_rng(0).poisson(25, (1_000_000, 2)) + 1
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        plan_batches(lengths, max_tokens=4096)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.5, seconds


@quick
@given(cases(), st.integers(1, 60))
def test_windows_follow_each_other(case: Case, window: int) -> None:
    limits = {"batch_size": case.batch_size, "max_tokens": case.max_tokens}
    sampler = WindowBatchSampler(case.lengths, window=window, seed=0, **limits)
    batches = [[index for _, index in batch] for batch in sampler]
    assert len(batches) == len(sampler)
    assert sorted(chain.from_iterable(batches)) == list(range(len(case.lengths)))
    windows = [{index // window for index in batch} for batch in batches]
    assert all(len(each) == 1 for each in windows)
    assert [min(each) for each in windows] == sorted(min(each) for each in windows)
    if window >= len(case.lengths):
        whole = replace(case, world_size=1, shuffle=False).build(epoch=0)
        assert batches == [[index for _, index in batch] for batch in whole]


def test_golden_batches() -> None:
    lengths = [3, 9, 1, 4, 9, 2, 9, 30]
    case = Case(numpy.array(lengths), None, 20, shuffle=False)
    # 30 is beyond the budget and stands alone; 2 * 9, then 9 with 4 beside it, then 3 * 3 and the rest
    assert list(case.build()) == [[(0, 7)], [(0, 1), (0, 4)], [(0, 6), (0, 3)], [(0, 0), (0, 5), (0, 2)]]
    two = replace(case, max_tokens=None, batch_size=2, world_size=2)
    assert two.ranks() == [[[(0, 7), (0, 4)], [(0, 3), (0, 5)]], [[(0, 1), (0, 6)], [(0, 0), (0, 2)]]]


def test_epochs_and_seeds_differ_in_content_and_order() -> None:
    case = Case(numpy.full(64, 5), 8, None)
    first, second, other = list(case.build()), list(case.build(epoch=1)), list(case.build(seed=1))
    indices = [[[index for _, index in batch] for batch in batches] for batches in (first, second, other)]
    assert indices[0] != indices[1] != indices[2] != indices[0]
    assert {frozenset(batch) for batch in indices[0]} != {frozenset(batch) for batch in indices[1]}
    plain = [[index for _, index in batch] for batch in case.build(shuffle=False, epoch=3, seed=9)]
    assert plain == numpy.arange(64).reshape(8, 8).tolist()


def test_shuffle_moves_batches_out_of_length_order() -> None:
    case = Case(numpy.arange(1, 65), 4, None)
    longest = [max(case.lengths[index] for _, index in batch) for batch in case.build()]
    assert longest != sorted(longest, reverse=True)
    assert len(set(longest)) == 16


@pytest.mark.parametrize("lengths", [[], numpy.zeros((0, 2)), [4]])
def test_refuses_fewer_examples_than_processes(lengths: Any) -> None:
    processes = len(lengths) + 1
    with pytest.raises(DataError, match=rf"{len(lengths)} examples are fewer than {processes} processes"):
        BucketBatchSampler(lengths, batch_size=2, shuffle=False, seed=0, world_size=processes)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, r"give data\.batch_size, data\.max_tokens or both"),
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, got 0\."),
        ({"max_tokens": -5}, r"data\.max_tokens must be at least 1, got -5\."),
        ({"batch_size": 4, "max_tokens": 0}, r"data\.max_tokens must be at least 1, got 0\."),
    ],
)
def test_refuses_limits(limits: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BucketBatchSampler([1, 2, 3], shuffle=False, seed=0, **limits)


@quick
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_rounded_lengths(values: list[int]) -> None:
    """Never shorter, within a tenth and one, monotone, and the same whatever else is in the list."""
    lengths = numpy.array(sorted(values))
    rounded = round_up_lengths(lengths)
    assert rounded.dtype == numpy.int64
    assert (rounded >= lengths).all()
    assert (rounded <= lengths * 1.1 + 1).all()
    assert (numpy.diff(rounded) >= 0).all()
    assert (round_up_lengths(rounded) == rounded).all()
    assert [int(round_up_lengths(lengths[i : i + 1])[0]) for i in range(len(lengths))] == rounded.tolist()


def test_rounded_lengths_golden() -> None:
    lengths = numpy.array([0, 1, 9, 19, 20, 21, 22, 23, 25, 100, 104])
    assert round_up_lengths(lengths).tolist() == [0, 1, 9, 19, 20, 22, 22, 24, 26, 103, 113]


def test_an_example_without_anything_random_is_spared_its_seed() -> None:
    class Told:
        lengths = numpy.ones((3, 1), dtype=numpy.int64)

        def fetch(self, index: int, seed: int) -> tuple[int, int]:
            return index, seed

    class Fixed(Told):
        draws = False

    assert _KeyedDataset(Told(), 5)[(2, 1)] == (1, mix(5, 2, 1, "augment"))
    assert _KeyedDataset(Fixed(), 5)[(2, 1)] == (1, 0)
