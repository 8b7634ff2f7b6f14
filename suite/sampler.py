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

import numpy
from numpy.typing import NDArray

from suite.errors import DataError, UsageError
from suite.seeding import mix

Key = tuple[int, int]  # (epoch, index): what a dataset needs to draw the same augmentation again
_GROWTH = 1.1  # neighbouring points of the length grid differ by a tenth: little padding, many ties to shuffle


def round_up_lengths(lengths: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """Each length rounded up to a geometric grid: 1, 2, ... 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, ..."""
    grid = [0, 1]
    while grid[-1] < lengths.max(initial=1):
        grid.append(max(grid[-1] + 1, int(grid[-1] * _GROWTH)))
    points = numpy.array(grid)
    return points[numpy.searchsorted(points, lengths)].astype(numpy.int64)


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

    Raises:
        UsageError: neither limit given, or one below 1.
        DataError: fewer examples than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[Sequence[int]] | NDArray[numpy.int64],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        start_batch: int = 0,
    ) -> None:
        for name, limit in (("batch_size", batch_size), ("max_tokens", max_tokens)):
            if limit is not None and limit < 1:
                raise UsageError(f"{name} is {limit}, allowed is 1 or more")
        if batch_size is None and max_tokens is None:
            raise UsageError("give batch_size, max_tokens or both")
        table = numpy.asarray(lengths, dtype=numpy.int64)
        if len(table) < world_size:
            raise DataError(f"{len(table)} examples are fewer than {world_size} processes: use fewer devices")
        table = table.reshape(len(table), -1)
        self.rounded = round_up_lengths(table)
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start_batch = epoch, start_batch
        self.sampler = self  # Lightning calls set_epoch on `batch_sampler.sampler`, never on the batch sampler
        self.cuts = self._cut(batch_size, max_tokens)

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
        for batch in batches[self.start_batch :]:
            members = order[self.cuts[batch] : self.cuts[batch + 1]]
            yield [(self.epoch, int(index)) for index in members[self.rank :: self.world_size]]

    def _order(self) -> NDArray[numpy.int64]:
        examples = numpy.arange(len(self.rounded))
        if self.shuffle:
            examples = numpy.random.default_rng(mix(self.seed, self.epoch, "examples")).permutation(examples)
        # lexsort takes its first key last: the first part of an example decides, longest first; it is stable.
        keys = -self.rounded[examples].T[::-1]
        return examples[numpy.lexsort(keys)]

    def _cut(self, batch_size: int | None, max_tokens: int | None) -> list[int]:
        """Where the sorted examples are cut into global batches: positions from 0 to N."""
        ordered = self.rounded[numpy.lexsort(-self.rounded.T[::-1])].tolist()
        most = batch_size * self.world_size if batch_size else len(ordered)
        budget = max_tokens * self.world_size if max_tokens else None
        cuts, widest = [0], [0] * len(ordered[0]) if ordered else []
        for position, row in enumerate(ordered):
            count = position - cuts[-1]
            grown = [max(pair) for pair in zip(widest, row, strict=True)]
            # A rank's share is rounded up to whole examples, and each rank must have at least one.
            share = -(-(count + 1) // self.world_size) * self.world_size
            full = count >= most or (budget is not None and share * sum(grown) > budget)
            if full and count >= self.world_size:
                cuts.append(position)
                grown = list(row)
            widest = grown
        if len(ordered) - cuts[-1] < self.world_size and len(cuts) > 1:
            cuts.pop()  # too few left over for every rank: they join the batch before
        return [*cuts, len(ordered)]
