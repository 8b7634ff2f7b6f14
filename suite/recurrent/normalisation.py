"""Normalisation of one step's values inside a recurrence, forward and backward by hand.

Layer normalisation (Ba, Kiros and Hinton 2016) takes mean and variance over the features of a row, batch normalisation
(Ioffe and Szegedy 2015) over the rows of a feature, or running ones where there are any.
"""

from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-5  # added to variances of a row
# Added to variances of a feature. Few rows, or rows that have just started alike, differ by little: divided by it, the
# noise of their differences drowns the gradient (seen: norms of hundreds with 1e-5, of one with 1e-3).
BATCH_EPSILON = 1e-3


class Moments(NamedTuple):
    """``mean (F,)`` and biased ``variance (F,)`` of ``rows`` rows."""

    mean: Tensor
    variance: Tensor
    rows: int


class Running(NamedTuple):
    """Running ``mean (S, F)`` and ``variance (S, F)``; ``entries (T, B)``: which of the S each step and row takes."""

    mean: Tensor
    variance: Tensor
    entries: Tensor


class StepNorm:
    """Normalises the values ``(n, F)`` of each step, then multiplies by a gain and adds a bias.

    Args:
        axis: 1 over the features of each row (layer), 0 over the rows of each feature (batch).
        running: what axis 0 uses in eval, and in training for steps of a single row, which has no variance.
        training: whether axis 0 uses the rows' own moments where there are two or more.
    """

    def __init__(self, *, axis: int, running: Running | None = None, training: bool = True) -> None:
        self.axis, self.running, self.training = axis, running, training
        self.moments: list[Moments] = []  # of each step that used its own, for running averages
        self.steps = 0

    def begin(self, gain: Tensor | None, bias: Tensor | None) -> None:
        """Before the first step."""
        self.gain, self.bias = gain, bias
        self.saved: list[tuple[Tensor, Tensor]] = []

    def _has_own(self, rows: int) -> bool:
        return self.axis == 1 or (self.training and rows > 1)

    def forward(self, step: int, values: Tensor) -> Tensor:
        """The normalised ``values`` of a step."""
        if self._has_own(values.size(0)):
            variance, mean = torch.var_mean(values, dim=self.axis, keepdim=True, correction=0)
            if self.axis == 0:
                self.moments.append(Moments(mean[0], variance[0], values.size(0)))
        else:
            assert self.running is not None
            index = self.running.entries[step, : values.size(0)]
            mean, variance = self.running.mean[index], self.running.variance[index]
        scale = torch.rsqrt(variance + (EPSILON if self.axis else BATCH_EPSILON))
        normed = (values - mean) * scale
        self.saved.append((normed, scale))
        result = normed * self.gain if self.gain is not None else normed
        return result if self.bias is None else result + self.bias

    def release(self) -> list[Tensor]:
        """What ``backward`` needs of each step; nothing of it is held on to."""
        kept = [part for pair in self.saved for part in pair]
        self.steps, self.saved = len(self.saved), []
        return kept

    def begin_backward(self, kept: list[Tensor]) -> list[Tensor]:
        """Before the last step: takes what was released from the front of ``kept``, and gives the rest."""
        own = 2 * self.steps
        self.saved = list(zip(kept[:own:2], kept[1:own:2], strict=True))
        self.gain_slope = None if self.gain is None else torch.zeros_like(self.gain)
        self.bias_slope = None if self.bias is None else torch.zeros_like(self.bias)
        return kept[own:]

    def backward(self, step: int, slope: Tensor) -> Tensor:
        """The gradient of the values from that of the result."""
        normed, scale = self.saved[step]
        if self.bias_slope is not None:
            self.bias_slope += slope.sum(dim=0)
        if self.gain is not None and self.gain_slope is not None:
            self.gain_slope += (slope * normed).sum(dim=0)
            slope = slope * self.gain
        if not self._has_own(len(normed)):
            return slope * scale
        level = slope.mean(dim=self.axis, keepdim=True)
        along = (slope * normed).mean(dim=self.axis, keepdim=True)
        return (slope - level - normed * along) * scale

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Of gain and bias."""
        return self.gain_slope, self.bias_slope
