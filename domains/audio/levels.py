"""How loud the samples of a file are: above full scale, in the range of integers, cancelled in the mix-down."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy

from domains.audio.decoding import Samples

_FAR = 8.0  # 18 dB above full scale: more than any recording that is merely too loud
_FEW = 16  # samples that are not zero, of which less can be said
_SHARE = 0.01  # of samples above 1: fewer are spikes
_CANCELLED = 0.2  # times what channels that have nothing in common leave: 7 dB below that


class Levels(NamedTuple):
    """Of all samples of a file.

    Args:
        above: samples of the mix-down beyond -1 and 1.
        peak: the largest absolute value in any channel.
        looks_integer: the samples are most likely integers that were stored as floats without scaling.
        kept: variance of the mix-down over the mean variance of the channels; 1 for a single channel or silence.
        channels: of the file.
    """

    above: int
    peak: float
    looks_integer: bool
    kept: float
    channels: int

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel in the mix-down; independent ones, or one beside silent ones, do not."""
        return self.channels > 1 and self.kept * self.channels < _CANCELLED


class Meter:
    """Measures blocks ``(n, channels)`` of one file.

    Args:
        floating: the file stores floating point, so that integers may have been stored without scaling.
    """

    def __init__(self, *, floating: bool) -> None:
        self.floating, self.frames, self.above, self.peak = floating, 0, 0, 0.0
        self.whole, self.filled, self.loud = True, 0, 0
        self.sums = self.squares = numpy.zeros(0)

    def add(self, block: Samples, mono: Samples) -> None:
        """Measure a block and the mean of its channels."""
        largest = float(numpy.abs(block).max(initial=0.0))
        self.peak, self.frames = max(self.peak, largest), self.frames + len(block)
        if largest > 1.0:
            self.above += int(numpy.count_nonzero(numpy.abs(mono) > 1.0))
        if self.floating:
            self.loud += int(numpy.count_nonzero(numpy.abs(block) > 1.0)) if largest > 1.0 else 0
            self.filled += int(numpy.count_nonzero(block))
            self.whole = self.whole and bool((block == numpy.rint(block)).all())
        if block.shape[1] > 1:
            both = numpy.column_stack([block, mono]).astype(numpy.float64)
            if not len(self.sums):
                self.sums, self.squares = numpy.zeros(both.shape[1]), numpy.zeros(both.shape[1])
            self.sums = self.sums + both.sum(axis=0)
            self.squares = self.squares + numpy.square(both).sum(axis=0)

    def read(self) -> Levels:
        """The levels of all blocks."""
        kept, channels = 1.0, max(1, len(self.sums) - 1)
        if channels > 1:
            variances = numpy.maximum(0.0, self.squares / self.frames - numpy.square(self.sums / self.frames))
            mean = float(variances[:-1].mean())
            kept = float(variances[-1]) / mean if mean > 1e-12 else 1.0
        return Levels(self.above, self.peak, self._looks_integer(), kept, channels)

    def _looks_integer(self) -> bool:
        if self.peak < 2.0 or self.loud < _FEW:
            return False
        return self.whole or (self.peak > _FAR and self.loud > _SHARE * self.filled)


def describe(levels: Iterable[tuple[str, Levels]], *, total: int, split: str) -> list[str]:
    """Lines on what is odd about the files of a split, by path."""
    found = list(levels)
    lines = []
    hot = [(path, each) for path, each in found if each.above]
    if hot:
        path, loudest = max(hot, key=lambda pair: pair[1].peak)
        lines.append(
            f"data: {split}: {sum(each.above for _, each in hot):,} samples above 1 in {len(hot):,} of {total:,} files "
            f"are clipped (the largest is {loudest.peak:.3g}, in {path})"
        )
    cancelled = [(path, each) for path, each in found if each.cancels]
    if cancelled:
        path, worst = min(cancelled, key=lambda pair: pair[1].kept)
        decibels = 10 * numpy.log10(max(worst.kept, 1e-12))
        lines.append(
            f"data: {split}: in {len(cancelled):,} of {total:,} files the channels cancel when averaged to mono "
            f"(by {-decibels:.0f} dB in {path}): invert one, or keep one channel"
        )
    return lines
