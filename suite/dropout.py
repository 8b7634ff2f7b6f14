"""Dropout that does not cost more than the layer before it.

``torch.nn.Dropout`` on CPU draws one Bernoulli variable at a time. Here a 64-bit draw decides four elements: 16 bits
each, so that the probability is exact to 1/65,536 and the scale matches it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suite.errors import UsageError

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zeroes elements with probability ``p`` in training and scales the others by ``1 / (1 - p)``.

    Raises:
        UsageError: ``p`` outside [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise UsageError(f"dropout is {p}, allowed is 0 up to but not including 1")
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop elements of ``inputs``, of any shape."""
        if not self.training or not self.p:
            return inputs
        if inputs.device.type != "cpu":
            return nn.functional.dropout(inputs, self.p)
        return inputs * draw_mask(inputs.shape, self.p, like=inputs)


def draw_mask(shape: Sequence[int], p: float, *, like: Tensor) -> Tensor:
    """Zero with probability ``p`` and ``1 / (1 - p)`` elsewhere, of ``shape`` and otherwise like a tensor."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1.0 - p).div_(1.0 - p)
    threshold = min(round(p * _LEVELS), _LEVELS - 1)
    count = math.prod(shape)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    kept = torch.empty(shape, dtype=like.dtype)  # written at once: from truth values it would be a slower pass
    torch.ge(draws.view(torch.int16)[:count].view(shape), threshold - _LEVELS // 2, out=kept)
    return kept.mul_(_LEVELS / (_LEVELS - threshold))
