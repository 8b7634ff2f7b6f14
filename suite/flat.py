"""Sequences of ids in one flat array: a few bytes an id, and no Python object each."""

from collections.abc import Iterable, Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[numpy.int32]


class FlatSequences:
    """N sequences of whole numbers: ``ids`` one after the other, sequence ``i`` from ``offsets[i]`` on.

    Args:
        ids: ``(total,)``.
        offsets: ``(N + 1,)``, from 0 to the total.
    """

    def __init__(self, ids: Ids, offsets: NDArray[numpy.int64]) -> None:
        assert offsets[0] == 0
        assert offsets[-1] == len(ids)
        self.ids, self.offsets = ids, offsets

    @classmethod
    def pack(cls, sequences: Iterable[Sequence[int]]) -> "FlatSequences":
        """Put sequences one after the other."""
        rows = [numpy.asarray(sequence, dtype=numpy.int32) for sequence in sequences]
        offsets = numpy.concatenate([[0], numpy.cumsum([len(row) for row in rows], dtype=numpy.int64)])
        return cls(numpy.concatenate([numpy.empty(0, numpy.int32), *rows]), offsets.astype(numpy.int64))

    @property
    def lengths(self) -> NDArray[numpy.int64]:
        """``(N,)``."""
        return numpy.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        """Sequence ``index``, a view."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def padded(self, indices: Sequence[int], *, value: int) -> tuple[Tensor, Tensor]:
        """Sequences ``indices`` as ``pad_ids`` has them, gathered at once."""
        rows = numpy.asarray(indices, dtype=numpy.int64)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        steps = numpy.arange(lengths.max(initial=0))
        valid = steps < lengths[:, None]
        table = numpy.full(valid.shape, value, dtype=numpy.int64)
        table[valid] = self.ids[(starts[:, None] + steps)[valid]]
        return torch.from_numpy(table), torch.from_numpy(lengths)


def pad_ids(rows: Sequence[Ids], *, value: int, width: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as ``(B, T)`` with ``value`` after each end, and their lengths ``(B,)``; T is at least ``width``."""
    lengths = [len(row) for row in rows]
    table = numpy.full((len(rows), max([width, *lengths])), value, dtype=numpy.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return torch.from_numpy(table), torch.tensor(lengths, dtype=torch.int64)
