"""Lengths, masks and padding: the conventions that every other file relies on.

Sequences are batch first, padded at the end, with explicit ``lengths (B,)``; a mask is True where valid.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int | None = None) -> Tensor:
    """Mask ``(B, size)``, True where ``position < length``; ``size`` defaults to the longest length."""
    size = int(lengths.max()) if size is None else size
    return torch.arange(size, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)


def pad_sequences(sequences: Sequence[Sequence[int] | Tensor], *, value: int | float = 0) -> tuple[Tensor, Tensor]:
    """Stack rows of unequal length into ``(B, T, ...)`` with ``value`` after each end, and their lengths ``(B,)``."""
    rows = [row if isinstance(row, Tensor) else torch.tensor(row, dtype=torch.long) for row in sequences]
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float(value)), lengths


def reverse_valid(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the valid part of each row of ``inputs (B, T, ...)`` in time; padding stays where it is."""
    positions = torch.arange(inputs.size(1), device=inputs.device).unsqueeze(0)
    ends = lengths.unsqueeze(1)
    index = torch.where(positions < ends, ends - 1 - positions, positions)
    firsts = inputs.size(1) * torch.arange(inputs.size(0), device=inputs.device).unsqueeze(1)
    return _Permute.apply(inputs, (firsts + index).flatten())


class _Permute(torch.autograd.Function):
    """Steps of all rows by an index that is its own inverse: the gradient is the same, and nothing is scattered.

    Whole steps are copied, ``index (B * T,)`` counts them through; ``gather`` would look at the index of each element.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return inputs.flatten(0, 1).index_select(0, index).view(inputs.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _Permute.apply(grads[0], index), None


def valid_steps(values: Tensor, mask: Tensor) -> Tensor:
    """``values (B, T, ...)`` where ``mask (B, T)``, as ``(N, ...)``: what ``values[mask]`` gives.

    Where all are valid nothing is gathered, nor scattered in the backward pass (a CPU is asked; asking would stop an
    accelerator).
    """
    if mask.device.type == "cpu" and bool(mask.all()):
        return values.flatten(0, 1)
    return values[mask]


def last_valid(inputs: Tensor, lengths: Tensor) -> Tensor:
    """The last valid step of each row: ``(B, T, ...)`` to ``(B, ...)``. Rows of length zero give their first step."""
    rows = torch.arange(inputs.size(0), device=inputs.device)
    return inputs[rows, (lengths - 1).clamp_min(0)]


def mask_steps(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Zero the padding of ``inputs (B, T, D)``; their gradient there is zero as well, whatever they held."""
    mask = length_mask(lengths, inputs.size(1))
    return inputs.masked_fill(~mask.view(*mask.shape, *[1] * (inputs.dim() - 2)), 0.0)
