"""Length-bucketed batches, shared out over ranks, that can start anywhere: a pure function of (seed, epoch, rank).

Lengths are rounded up to a grid and examples sorted by rounded length, ties in an order drawn anew each epoch. The
sequence of rounded lengths is then the same in every epoch, and so are the places where it is cut into batches: each
epoch has the same number of batches, while their content and order change. Lightning asks for the length once, and a
schedule counts on it.

A *global* batch is cut for all ranks together and dealt out to them, so that two processes with a batch_size of N and
one process with 2N make the same steps. (There are two exceptions: a last batch too small for all ranks joins the one
before, and max_tokens holds for the rank with most examples, so odd counts can be cut one example earlier.) Every rank
has the same number of batches and at least one example in each; every example appears exactly once in an epoch.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from suite.errors import DataError, UsageError
from suite.seeding import mix

Key = tuple[int, int]  # (epoch, index): what a dataset needs to draw the same augmentation again
Lengths = Sequence[int] | Sequence[Sequence[int]] | NDArray[numpy.int64]
_MOST_KEYS = 2**22  # of all combinations of rounded lengths: a table of more would take longer than sorting
_GROWTH = 1.1  # neighbouring points of the length grid differ by a tenth: little padding, many ties to shuffle


def round_up_lengths(lengths: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """Each length rounded up to a geometric grid: 1, 2, ... 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, ..."""
    points, places = _on_grid(lengths)
    return points[places]


def _on_grid(lengths: NDArray[numpy.int64]) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """The points of the grid up to the longest of ``lengths``, and the place among them of each length."""
    grid = [0, 1]
    while grid[-1] < lengths.max(initial=1):
        grid.append(max(grid[-1] + 1, int(grid[-1] * _GROWTH)))
    points = numpy.array(grid, dtype=numpy.int64)
    if grid[-1] > lengths.size:
        return points, numpy.searchsorted(points, lengths)
    return points, numpy.searchsorted(points, numpy.arange(grid[-1] + 1))[lengths]  # a search for each length only once


class Batching(NamedTuple):
    """What a sampler needs to know about its lengths. It holds for every epoch, rank and seed, so it is made once."""

    groups: NDArray[numpy.integer[Any]]
    """``(N,)``: equal for equal rounded lengths, 0 for the longest; uint16 if possible, because that sorts faster."""
    cuts: list[int]
    """Where the examples, sorted by group, are cut into global batches: positions from 0 to N."""


def plan_batches(
    lengths: Lengths, *, batch_size: int | None = None, max_tokens: int | None = None, world_size: int = 1
) -> Batching:
    """Sort and cut ``lengths`` ``(N,)`` or ``(N, K)`` for batches within the limits of each of ``world_size`` ranks.

    Raises:
        UsageError: neither limit given, or one below 1.
        DataError: fewer examples than processes.
    """
    for name, limit in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if limit is not None and limit < 1:
            raise UsageError(f"data.{name} must be at least 1, got {limit}.")
    if batch_size is None and max_tokens is None:
        raise UsageError("give data.batch_size, data.max_tokens or both")
    table = numpy.asarray(lengths, dtype=numpy.int64)
    if len(table) < world_size:
        raise DataError(f"{len(table)} examples are fewer than {world_size} processes: use fewer devices")
    rows, groups, counts = _group(table.reshape(len(table), -1))
    cuts = _cut(
        rows,
        counts,
        most=batch_size * world_size if batch_size else None,
        budget=max_tokens * world_size if max_tokens else None,
        world_size=world_size,
    )
    return Batching(groups, cuts)


def _group(table: NDArray[numpy.int64]) -> tuple[list[list[int]], NDArray[numpy.integer[Any]], list[int]]:
    """Rows of equal rounded lengths: the lengths of each group, the group of each row, the rows in each group.

    Longest first, by the first column, then the next. There are few groups, so the rows need no sorting.
    """
    points, places = _on_grid(table)
    size, keys = 1, numpy.zeros(len(table), dtype=numpy.int64)
    for column in places.T:
        if size * len(points) > _MOST_KEYS:
            _, keys = numpy.unique(keys, return_inverse=True)
            size = int(keys.max()) + 1
        keys = keys * len(points) + (len(points) - 1 - column)
        size *= len(points)
    if size > _MOST_KEYS:
        _, groups, counts = numpy.unique(keys, return_inverse=True, return_counts=True)
    else:
        counts = numpy.bincount(keys, minlength=size)
        groups = (numpy.cumsum(counts > 0) - 1)[keys]
        counts = counts[counts > 0]
    members = numpy.empty(len(counts), dtype=numpy.int64)
    members[groups] = numpy.arange(len(table))
    rows: list[list[int]] = points[places[members]].tolist()
    small = len(rows) <= numpy.iinfo(numpy.uint16).max
    return rows, groups.astype(numpy.uint16) if small else groups, counts.tolist()


def _cut(
    rows: list[list[int]], counts: list[int], *, most: int | None, budget: int | None, world_size: int
) -> list[int]:
    """Where sorted examples are cut, given as groups of equal ones: ``rows`` of lengths, ``counts`` examples of each.

    A batch ends before the first example that would make it hold more than ``most`` or more padded steps than
    ``budget``, the rank with most examples counting for all; but not before it has an example for each rank. Within a
    group that place is computed, so the work depends on the number of groups and batches only.
    """
    total = sum(counts)
    cuts, start, begin = [0], 0, 0
    widest: list[int] = []
    for row, count in zip(rows, counts, strict=True):
        end = begin + count
        widest = [max(pair) for pair in zip(widest, row, strict=True)] if widest else row
        cut = max(begin, start + _capacity(widest, most, budget, world_size, total))
        if cut < end:
            step = _capacity(row, most, budget, world_size, total)
            cuts.extend(range(max(cut, 1), end, step))
            start, widest = cuts[-1], row
        begin = end
    if total - cuts[-1] < world_size and len(cuts) > 1:
        cuts.pop()  # too few left over for every rank: they join the batch before
    return [*cuts, total]


def _capacity(widest: list[int], most: int | None, budget: int | None, world_size: int, total: int) -> int:
    """How many examples of these lengths make a global batch: at least one for each rank."""
    padded = sum(widest)
    fitting = total if budget is None or not padded else budget // (world_size * padded) * world_size
    return max(min(fitting, most or total), world_size)


class BucketBatchSampler:
    """Batches of (epoch, index) keys for one rank.

    Args:
        lengths: ``(N,)`` or ``(N, K)``: the lengths of each example, K where it has several parts.
        batch_size: examples in a batch of one rank, at most; no limit if ``None``.
        max_tokens: padded steps in a batch of one rank, parts added up, at most; a longer example stands alone.
        shuffle: draw ties and the order of batches anew each epoch; else longest first.
        seed: decides every order.
        rank: this process.
        world_size: processes.
        epoch: the epoch to begin with.
        start_batch: batches of that epoch that are already done.
        batching: of the same lengths, limits and world size, from ``plan_batches``; made here if not given.

    Raises:
        UsageError: neither limit given, or one below 1.
        DataError: fewer examples than processes.
    """

    def __init__(
        self,
        lengths: Lengths,
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        start_batch: int = 0,
        batching: Batching | None = None,
    ) -> None:
        if batching is None:
            batching = plan_batches(lengths, batch_size=batch_size, max_tokens=max_tokens, world_size=world_size)
        self.groups, self.cuts = batching
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start_batch = epoch, start_batch
        self.sampler = self  # Lightning calls set_epoch on `batch_sampler.sampler`, never on the batch sampler

    def __len__(self) -> int:
        """Batches of a whole epoch, the same in each and on each rank."""
        return len(self.cuts) - 1

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        batches = numpy.arange(len(self))
        if self.shuffle:
            batches = numpy.random.default_rng(mix(self.seed, self.epoch, "batches")).permutation(batches)
        epoch = self.epoch
        for batch in batches[self.start_batch :].tolist():
            members = order[self.cuts[batch] : self.cuts[batch + 1]]
            yield [(epoch, index) for index in members[self.rank :: self.world_size].tolist()]

    def _order(self) -> NDArray[numpy.int64]:
        examples = numpy.arange(len(self.groups))
        if self.shuffle:
            examples = numpy.random.default_rng(mix(self.seed, self.epoch, "examples")).permutation(examples)
        return examples[numpy.argsort(self.groups[examples], kind="stable")]


class WindowBatchSampler:
    """Batches of one process, longest first within each window of consecutive examples, window after window.

    So results can be written in order while later windows still wait.

    Args:
        lengths: ``(N,)`` or ``(N, K)``.
        window: examples in a window.
        batch_size: as for ``BucketBatchSampler``, as the rest.
        max_tokens: likewise.
        seed: likewise.
    """

    def __init__(
        self, lengths: NDArray[numpy.int64], *, window: int, batch_size: int | None, max_tokens: int | None, seed: int
    ) -> None:
        self.starts = range(0, len(lengths), window)
        self.samplers = [
            BucketBatchSampler(
                lengths[start : start + window], batch_size=batch_size, max_tokens=max_tokens, shuffle=False, seed=seed
            )
            for start in self.starts
        ]

    def __len__(self) -> int:
        return sum(map(len, self.samplers))

    def __iter__(self) -> Iterator[list[Key]]:
        for start, sampler in zip(self.starts, self.samplers, strict=True):
            for batch in sampler:
                yield [(epoch, start + index) for epoch, index in batch]
